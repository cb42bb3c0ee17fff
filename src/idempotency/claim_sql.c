/*
 * claim_sql.c: the SQL functions of idempotency keys: arguments in, rows out.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "core/refusal.h"
#include "core/result.h"
#include "idempotency/claim.h"
#include "idempotency/policy.h"

/* While the holder has not committed, nobody knows how long it takes. */
#define RETRY_UNKNOWN (1 * SECONDS)
#define FINGERPRINT_BYTES 32

static const char *const statuses[] = {
	[CLAIM_STARTED] = "started",
	[CLAIM_RESUMED] = "resumed",
	[CLAIM_REPLAY] = "replay",
	[CLAIM_IN_PROGRESS] = "in_progress",
	[CLAIM_MISMATCH] = "mismatch",
	[CLAIM_EXHAUSTED] = "exhausted"
};

/* Row type distsys.idempotency_result */
enum
{
	OUT_STATUS,
	OUT_TOKEN,
	OUT_ATTEMPT,
	OUT_RECOVERY_POINT,
	OUT_CHECKPOINT,
	OUT_RESPONSE_CODE,
	OUT_RESPONSE_HEADERS,
	OUT_RESPONSE_BODY,
	OUT_RESPONSE_BYTES,
	OUT_ERROR,
	OUT_RETRY_AFTER,
	OUT_RETRY_AFTER_S,
	OUT_CREATED_AT,
	OUT_COMPLETED_AT,
	OUT_EXPIRES_AT,
	OUT_TTL_REMAINING,
	NOUT
};

static void
put(Datum *values, bool *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = value == (Datum) 0;
}

static int64
retry_after(const ClaimAnswer *answer)
{
	return answer->known ? Min(answer->left_us, RETRY_UNKNOWN) : RETRY_UNKNOWN;
}

/* A holder's token and progress go to the holder, the answer to whoever replays it. */
static void
answer_columns(const ClaimAnswer *answer, Datum *values, bool *nulls)
{
	const Record *record = &answer->record;
	bool		holder = answer->status == CLAIM_STARTED || answer->status == CLAIM_RESUMED;

	memset(values, 0, NOUT * sizeof(Datum));
	memset(nulls, true, NOUT * sizeof(bool));
	put(values, nulls, OUT_STATUS, CStringGetTextDatum(statuses[answer->status]));
	if (answer->status == CLAIM_IN_PROGRESS)
	{
		put(values, nulls, OUT_RETRY_AFTER, interval_datum(retry_after(answer)));
		put(values, nulls, OUT_RETRY_AFTER_S, Int32GetDatum(at_least(seconds_up(retry_after(answer)), 1)));
	}
	if (!answer->known)
		return;

	put(values, nulls, OUT_CREATED_AT, TimestampTzGetDatum(record->created_at));
	if (answer->status == CLAIM_MISMATCH)
		return;
	put(values, nulls, OUT_ATTEMPT, Int32GetDatum(record->attempt));
	put(values, nulls, OUT_EXPIRES_AT, TimestampTzGetDatum(answer->now.wall + answer->left_us));
	values[OUT_TTL_REMAINING] = interval_datum(answer->left_us);
	nulls[OUT_TTL_REMAINING] = false;
	if (holder)
		put(values, nulls, OUT_TOKEN, Int64GetDatum(record->token));
	if (answer->status != CLAIM_REPLAY)
	{
		put(values, nulls, OUT_RECOVERY_POINT, record->recovery_point);
		put(values, nulls, OUT_CHECKPOINT, record->checkpoint);
		put(values, nulls, OUT_ERROR, record->error);
	}
	if (answer->status == CLAIM_REPLAY)
	{
		values[OUT_RESPONSE_CODE] = Int32GetDatum(record->response_code);
		nulls[OUT_RESPONSE_CODE] = !record->has_code;
		put(values, nulls, OUT_RESPONSE_HEADERS, record->response_headers);
		put(values, nulls, OUT_RESPONSE_BODY, record->response_body);
		put(values, nulls, OUT_RESPONSE_BYTES, record->response_bytes);
		put(values, nulls, OUT_ERROR, record->error);
		put(values, nulls, OUT_COMPLETED_AT, TimestampTzGetDatum(record->completed_at));
	}
}

static Datum
answer_row(const ClaimAnswer *answer)
{
	Datum		values[NOUT];
	bool		nulls[NOUT];

	answer_columns(answer, values, nulls);
	return result_row(catalog_type(TYPE_IDEMPOTENCY_RESULT), values, nulls);
}

static void
answer_set(FunctionCallInfo fcinfo, const ClaimAnswer *answer)
{
	Datum		values[NOUT];
	bool		nulls[NOUT];

	answer_columns(answer, values, nulls);
	result_put(fcinfo, values, nulls);
}

/* ---- begin ---- */

static Datum
arg_fingerprint(FunctionCallInfo fcinfo, int argno)
{
	bytea	   *fingerprint;

	if (PG_ARGISNULL(argno))
		return (Datum) 0;
	fingerprint = PG_GETARG_BYTEA_PP(argno);
	if (VARSIZE_ANY_EXHDR(fingerprint) != FINGERPRINT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("fingerprint must have %d bytes", FINGERPRINT_BYTES),
				 errdetail("It has %zu.", (Size) VARSIZE_ANY_EXHDR(fingerprint)),
				 errhint("Pass the bytes of a SHA-256, not its hexadecimal text; distsys.fingerprint_json() and its siblings return them.")));
	return PointerGetDatum(fingerprint);
}

static int64
arg_claim_ttl(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return 0;
	return arg_interval(fcinfo, argno, "ttl", CLAIM_TTL_MIN, CLAIM_TTL_MAX, CLAIM_TTL_HINT);
}

static void
begin(FunctionCallInfo fcinfo, ClaimRequest *request, ClaimAnswer *answer)
{
	request->scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	request->key = arg_name(fcinfo, 1, "key", NAME_LONG);
	request->fingerprint = arg_fingerprint(fcinfo, 2);
	request->request_id = PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3);
	request->policy = arg_name(fcinfo, 4, "policy", NAME_SHORT);
	request->ttl_us = arg_claim_ttl(fcinfo, 5);
	request->wait_us = arg_function_wait(fcinfo, 6, NULL);
	memset(answer, 0, sizeof(*answer));
	claim_begin(request, answer);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_begin);

Datum
distsys_idempotency_begin(PG_FUNCTION_ARGS)
{
	ClaimRequest request;
	ClaimAnswer answer;

	begin(fcinfo, &request, &answer);
	PG_RETURN_DATUM(answer_row(&answer));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_begin_or_raise);

Datum
distsys_idempotency_begin_or_raise(PG_FUNCTION_ARGS)
{
	ClaimRequest request;
	ClaimAnswer answer;

	begin(fcinfo, &request, &answer);
	if (answer.status == CLAIM_IN_PROGRESS)
		ereport(ERROR,
				(errcode_sd(ERRCODE_SD_IDEMPOTENCY_IN_PROGRESS),
				 errmsg("idempotency key \"%s\" in scope \"%s\" is in progress",
						name_cstring(request.key), name_cstring(request.scope)),
				 errdetail("Retry after %.3f s.", retry_after(&answer) / 1e6)));
	if (answer.status == CLAIM_MISMATCH)
		ereport(ERROR,
				(errcode_sd(ERRCODE_SD_IDEMPOTENCY_MISMATCH),
				 errmsg("idempotency key \"%s\" in scope \"%s\" was used for another request",
						name_cstring(request.key), name_cstring(request.scope)),
				 errhint("A new request needs a new key.")));
	PG_RETURN_DATUM(answer_row(&answer));
}

/* ---- under the claim ---- */

static Datum
arg_optional(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? (Datum) 0 : PointerGetDatum(PG_GETARG_VARLENA_PP(argno));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_checkpoint);

Datum
distsys_idempotency_checkpoint(PG_FUNCTION_ARGS)
{
	NameArg		scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);
	int64		token = arg_token(fcinfo, 2);
	NameArg		point = arg_name(fcinfo, 3, "recovery_point", NAME_SHORT);

	claim_checkpoint(&scope, &key, token, point.datum, arg_optional(fcinfo, 4), arg_claim_ttl(fcinfo, 5));
	PG_RETURN_BOOL(true);
}

/* complete and complete_bytes: (scope, key, token, response_code, body, response_headers) */
static Datum
complete(FunctionCallInfo fcinfo, bool bytes)
{
	NameArg		scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);
	int64		token = arg_token(fcinfo, 2);
	ClaimResponse response = {0};

	response.code = arg_int32(fcinfo, 3, "response_code", 0, 999);
	response.has_code = true;
	if (bytes)
	{
		arg_not_null(fcinfo, 4, "response_bytes");
		response.bytes = arg_optional(fcinfo, 4);
	}
	else
		response.body = arg_optional(fcinfo, 4);
	response.headers = arg_optional(fcinfo, 5);
	claim_complete(&scope, &key, token, &response);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_complete);

Datum
distsys_idempotency_complete(PG_FUNCTION_ARGS)
{
	return complete(fcinfo, false);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_complete_bytes);

Datum
distsys_idempotency_complete_bytes(PG_FUNCTION_ARGS)
{
	return complete(fcinfo, true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_fail);

Datum
distsys_idempotency_fail(PG_FUNCTION_ARGS)
{
	NameArg		scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);
	int64		token = arg_token(fcinfo, 2);
	bool		retryable = arg_bool(fcinfo, 3, "retryable");
	ClaimResponse response = {0};

	response.error = arg_optional(fcinfo, 4);
	response.has_code = !PG_ARGISNULL(5);
	if (response.has_code)
		response.code = arg_int32(fcinfo, 5, "response_code", 0, 999);
	response.body = arg_optional(fcinfo, 6);
	if (retryable)
		claim_fail(&scope, &key, token, response.error);
	else
		claim_complete(&scope, &key, token, &response);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_renew);

Datum
distsys_idempotency_renew(PG_FUNCTION_ARGS)
{
	NameArg		scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);
	int64		token = arg_token(fcinfo, 2);
	ClaimAnswer answer = {0};

	result_begin_set(fcinfo);
	claim_renew(&scope, &key, token, arg_claim_ttl(fcinfo, 3), &answer);
	answer_set(fcinfo, &answer);
	return (Datum) 0;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_get);

Datum
distsys_idempotency_get(PG_FUNCTION_ARGS)
{
	NameArg		scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);
	ClaimAnswer answer = {0};

	result_begin_set(fcinfo);
	if (claim_get(&scope, &key, &answer))
		answer_set(fcinfo, &answer);
	return (Datum) 0;
}

/* ---- operators ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_forget);

Datum
distsys_idempotency_forget(PG_FUNCTION_ARGS)
{
	NameArg		scope = arg_name(fcinfo, 0, "scope", NAME_LONG);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);

	PG_RETURN_BOOL(claim_forget(&scope, &key));
}

typedef struct AbandonedSearch
{
	FunctionCallInfo fcinfo;
	ClockReading now;
	int64		older_than_us;
	int			left;
} AbandonedSearch;

static bool
put_abandoned(const Record *record, void *arg)
{
	AbandonedSearch *search = (AbandonedSearch *) arg;
	int64		overdue = -deadline_left(&record->deadline, &search->now);
	Datum		values[6] = {0};
	bool		nulls[6] = {false};

	/* past its retention a begin would start anew, without the recovery point */
	if (record->state != RECORD_STARTED || overdue < search->older_than_us ||
		record->retain_until <= search->now.wall ||
		!has_privs_of_role(GetUserId(), record->role))
		return true;
	values[0] = record->scope;
	values[1] = record->key;
	put(values, nulls, 2, record->recovery_point);
	put(values, nulls, 3, record->checkpoint);
	values[4] = Int32GetDatum(record->attempt);
	values[5] = TimestampTzGetDatum(search->now.wall - overdue);
	result_put(search->fcinfo, values, nulls);
	return --search->left > 0;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_abandoned);

/* Claims whose ttl passed at least older_than ago and that nobody has finished: the feed of a completer. */
Datum
distsys_idempotency_abandoned(PG_FUNCTION_ARGS)
{
	AbandonedSearch search;

	search.fcinfo = fcinfo;
	search.older_than_us = arg_interval(fcinfo, 0, "older_than", 0, PG_INT64_MAX, NULL);
	search.left = arg_int32(fcinfo, 1, "max_rows", 1, PG_INT32_MAX);
	search.now = clock_read();
	result_begin_set(fcinfo);
	record_visit_all(put_abandoned, &search);
	return (Datum) 0;
}
