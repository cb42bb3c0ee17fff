/*
 * claim.c: the life of an idempotency key.
 *
 *   none --begin--> STARTED --complete--> COMPLETED (replayed until retention ends)
 *                    |   ^ \--fail(final)-->'
 *       fail(retry)  v   | begin: resumed, new token
 *                   FAILED, or STARTED with its ttl passed
 *
 * One key lock per (scope, key), Exclusive, kept to commit by whoever wrote
 * and released at once by whoever did not, so that a bystander's
 * transaction never delays the holder. Final states are read without a lock
 * first, and once more when the lock is refused: a finished key never answers
 * in_progress. Rollback frees the key; a committed claim survives a crash
 * whatever synchronous_commit says.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "core/refusal.h"
#include "core/stats.h"
#include "core/wait.h"
#include "core/xact.h"
#include "idempotency/claim.h"
#include "idempotency/policy.h"
#include "store/token.h"

static void
check_role(const Record *record)
{
	if (!has_privs_of_role(GetUserId(), record->role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for an idempotency key of role \"%s\"", refusal_role(record->role)),
				 errhint("Give short-lived logins a common role: ALTER ROLE login SET role = 'service'.")));
}

static bool
claim_live(const Record *record, const ClockReading *now)
{
	return record->state == RECORD_STARTED && deadline_left(&record->deadline, now) > 0;
}

/* Past its retention: as if it were not there, even while the row is. */
static bool
forgotten(const Record *record, const ClockReading *now)
{
	return record->retain_until <= now->wall && !claim_live(record, now);
}

static bool
same_bytes(Datum a, Datum b)
{
	return datum_image_eq(a, b, false, -1);
}

static bool
same_uuid(Datum a, Datum b)
{
	return a != 0 && b != 0 && memcmp(DatumGetPointer(a), DatumGetPointer(b), 16) == 0;
}

/* What a record means to a begin; false: the caller may claim it. */
static bool
judge(const ClaimRequest *request, const Record *record, ClaimAnswer *answer)
{
	answer->now = clock_read();
	answer->known = true;
	answer->record = *record;
	if (forgotten(record, &answer->now))
		return false;
	check_role(record);
	if (request->fingerprint != 0 && record->fingerprint != 0 &&
		!same_bytes(request->fingerprint, record->fingerprint))
	{
		answer->status = CLAIM_MISMATCH;
		return true;
	}
	if (record->state == RECORD_COMPLETED)
	{
		answer->status = CLAIM_REPLAY;
		answer->left_us = record->retain_until - answer->now.wall;
		return true;
	}
	if (!claim_live(record, &answer->now))
		return false;
	answer->left_us = deadline_left(&record->deadline, &answer->now);
	answer->status = same_uuid(request->request_id, record->request_id) ? CLAIM_STARTED : CLAIM_IN_PROGRESS;
	return true;
}

/* Writes the claim over the record that was found (found = true), or a new one; false: no attempt is left. */
static bool
write_claim(const ClaimRequest *request, RecordStore *store, bool found, ClaimAnswer *answer)
{
	Record	   *record = &answer->record;
	bool		resumed = found && !forgotten(record, &answer->now);
	IdempotencyPolicy policy;

	idempotency_policy_get(&request->policy, &policy);
	answer->known = true;
	if (!resumed)
	{
		memset(record, 0, sizeof(*record));
		record->scope = request->scope.datum;
		record->key = request->key.datum;
		record->role = GetUserId();
		record->created_at = answer->now.wall;
	}
	else if (policy.max_attempts > 0 && record->attempt >= policy.max_attempts)
	{
		answer->status = CLAIM_EXHAUSTED;
		answer->left_us = record->retain_until - answer->now.wall;
		return false;
	}

	/* A resumed key stays its first role's: a completer or one login of a group must not take it from the others. */
	record->policy = request->policy.datum;
	record->state = RECORD_STARTED;
	record->token = token_issue();
	record->attempt++;
	if (request->fingerprint != 0)
		record->fingerprint = request->fingerprint;
	record->request_id = request->request_id;
	record->ttl_us = request->ttl_us > 0 ? request->ttl_us : policy.ttl_us;
	record->deadline = deadline_after(&answer->now, record->ttl_us);
	record->retention_us = policy.retention_us;
	record->retain_until = answer->now.wall + policy.retention_us;
	record_write(store, record);
	xact_require_durable(false);

	answer->status = resumed ? CLAIM_RESUMED : CLAIM_STARTED;
	answer->left_us = record->ttl_us;
	return true;
}

/* Under the key lock. Returns true when it wrote. */
static bool
begin_locked(const ClaimRequest *request, RecordStore *store, ClaimAnswer *answer)
{
	Record		record;
	bool		found = record_read_locked(store, &request->scope, &request->key, &record);

	if (!found)
		answer->now = clock_read();
	else if (judge(request, &record, answer))
	{
		record_make_durable(store); /* whoever held the lock may have committed with distsys.durability off */
		return false;
	}
	return write_claim(request, store, found, answer);
}

static bool
judge_latest(const ClaimRequest *request, RecordStore *store, ClaimAnswer *answer)
{
	Record		record;

	return record_read_latest(store, &request->scope, &request->key, true, &record) &&
		judge(request, &record, answer);
}

/* One try; wait_us is for a holder that has not committed yet. */
static void
begin_once(const ClaimRequest *request, int64 wait_us, ClaimAnswer *answer)
{
	RecordStore store;
	LOCKTAG		tag;
	bool		written = false;

	record_open(&store, true, "idempotency_begin()");
	if (!judge_latest(request, &store, answer))
	{
		record_tag(&tag, &request->scope, &request->key);
		if (keylock_try(&tag, ExclusiveLock) ||
			(!judge_latest(request, &store, answer) && wait_us > 0 && keylock_wait(&tag, ExclusiveLock, wait_us)))
		{
			written = begin_locked(request, &store, answer);
			if (!written)
				keylock_release(&tag, ExclusiveLock);
		}
		else if (!judge_latest(request, &store, answer))
		{
			answer->status = CLAIM_IN_PROGRESS;
			answer->known = false;
		}
	}
	record_close(&store, written);
}

static void
count(const ClaimAnswer *answer)
{
	static const char *const metrics[] = {
		[CLAIM_STARTED] = "started",
		[CLAIM_RESUMED] = "resumed",
		[CLAIM_REPLAY] = "replay",
		[CLAIM_IN_PROGRESS] = "in_progress",
		[CLAIM_MISMATCH] = "mismatch",
		[CLAIM_EXHAUSTED] = "exhausted"
	};

	stats_add("idempotency", "", metrics[answer->status], 1);
}

void
claim_begin(const ClaimRequest *request, ClaimAnswer *answer)
{
	int64		until = wait_clock() + request->wait_us;
	int64		left_us = request->wait_us;
	int64		poll_us = 0;
	IdempotencyPolicy policy;

	idempotency_policy_get(&request->policy, &policy);
	if (policy.require_fingerprint && request->fingerprint == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("policy \"%s\" requires a fingerprint", name_cstring(request->policy)),
				 errhint("Pass distsys.fingerprint_json(body), fingerprint_request(method, path, body) or fingerprint_parts(...).")));

	for (;;)
	{
		begin_once(request, left_us, answer);
		left_us = until - wait_clock();
		if (answer->status != CLAIM_IN_PROGRESS || left_us <= 0)
			break;
		wait_poll(&poll_us, left_us, WAIT_CLAIM);
	}
	count(answer);
}

/* ---- under the claim ---- */

static void
raise_lost(const NameArg *scope, const NameArg *key, const char *why)
{
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_IDEMPOTENCY_CLAIM_LOST),
			 errmsg("claim of key \"%s\" in scope \"%s\" is lost", name_cstring(*key), name_cstring(*scope)),
			 errdetail("%s", why),
			 errhint("Roll back: another attempt owns the key.")));
}

/* Locks the key and reads the record that `token` has claimed. */
static void
open_claim(RecordStore *store, const NameArg *scope, const NameArg *key, int64 token, const char *command,
		   LOCKTAG *tag, Record *record)
{
	record_open(store, true, command);
	record_tag(tag, scope, key);
	(void) keylock_wait(tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	if (!record_read_locked(store, scope, key, record))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("idempotency key \"%s\" in scope \"%s\" was never begun", name_cstring(*key), name_cstring(*scope)),
				 errhint("Call distsys.idempotency_begin() first; a key is forgotten after its retention.")));
	check_role(record);
	if (record->token != token)
		raise_lost(scope, key, record->token > token ? "It has been resumed since." : "This token was never given out for it.");
}

static void
check_started(const NameArg *scope, const NameArg *key, const Record *record)
{
	if (record->state == RECORD_COMPLETED)
		raise_lost(scope, key, "It is completed.");
	if (record->state == RECORD_FAILED)
		raise_lost(scope, key, "This attempt has given it up with idempotency_fail().");
}

static Size
datum_bytes(Datum value)
{
	return value == 0 ? 0 : toast_raw_datum_size(value) - VARHDRSZ;
}

static void
check_response_size(const Record *record, const ClaimResponse *response)
{
	IdempotencyPolicy policy;
	Size		size = datum_bytes(response->body) + datum_bytes(response->bytes) +
		datum_bytes(response->headers) + datum_bytes(response->error);

	idempotency_policy_of_record(record->policy, &policy);
	if (size > (Size) policy.max_response_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("response is too large to be stored"),
				 errdetail("It has %zu bytes, the policy's max_response_bytes is %d.", size, policy.max_response_bytes),
				 errhint("Complete without a body; the record then replays code and headers.")));
}

static bool
same_optional(Datum a, Datum b)
{
	return (a == 0) == (b == 0) && (a == 0 || same_bytes(a, b));
}

static bool
same_response(const Record *record, const ClaimResponse *response)
{
	return record->has_code == response->has_code && record->response_code == response->code &&
		same_optional(record->response_body, response->body) &&
		same_optional(record->response_bytes, response->bytes) &&
		same_optional(record->response_headers, response->headers) &&
		same_optional(record->error, response->error);
}

void
claim_complete(const NameArg *scope, const NameArg *key, int64 token, const ClaimResponse *response)
{
	RecordStore store;
	LOCKTAG		tag;
	Record		record;
	ClockReading now;

	open_claim(&store, scope, key, token, "idempotency_complete()", &tag, &record);
	if (record.state == RECORD_COMPLETED)
	{
		if (!same_response(&record, response))
			raise_lost(scope, key, "It is completed with another answer.");
		keylock_release(&tag, ExclusiveLock);
		record_close(&store, false);
		return;
	}
	check_started(scope, key, &record);
	check_response_size(&record, response);

	now = clock_read();
	record.state = RECORD_COMPLETED;
	record.response_code = response->code;
	record.has_code = response->has_code;
	record.response_body = response->body;
	record.response_bytes = response->bytes;
	record.response_headers = response->headers;
	record.error = response->error;
	record.completed_at = now.wall;
	record.retain_until = now.wall + record.retention_us;
	record_write(&store, &record);
	record_close(&store, true);
	xact_require_durable(false);
	stats_add("idempotency", "", "completed", 1);
}

void
claim_fail(const NameArg *scope, const NameArg *key, int64 token, Datum error)
{
	RecordStore store;
	LOCKTAG		tag;
	Record		record;

	open_claim(&store, scope, key, token, "idempotency_fail()", &tag, &record);
	if (record.state == RECORD_FAILED)
	{
		keylock_release(&tag, ExclusiveLock);
		record_close(&store, false);
		return;
	}
	check_started(scope, key, &record);
	record.state = RECORD_FAILED;
	record.error = error;
	record_write(&store, &record);
	record_close(&store, true);
	xact_require_durable(false);
	stats_add("idempotency", "", "failed", 1);
}

/* ttl_us 0: the ttl it has. */
static void
prolong(Record *record, int64 ttl_us, ClockReading *now)
{
	*now = clock_read();
	if (ttl_us > 0)
		record->ttl_us = ttl_us;
	record->deadline = deadline_after(now, record->ttl_us);
	record->retain_until = Max(record->retain_until, now->wall + record->retention_us);
}

void
claim_checkpoint(const NameArg *scope, const NameArg *key, int64 token, Datum recovery_point, Datum data, int64 ttl_us)
{
	RecordStore store;
	LOCKTAG		tag;
	Record		record;
	ClockReading now;

	open_claim(&store, scope, key, token, "idempotency_checkpoint()", &tag, &record);
	check_started(scope, key, &record);
	record.recovery_point = recovery_point;
	record.checkpoint = data;
	prolong(&record, ttl_us, &now);
	record_write(&store, &record);
	record_close(&store, true);
	xact_require_durable(false);
}

void
claim_renew(const NameArg *scope, const NameArg *key, int64 token, int64 ttl_us, ClaimAnswer *answer)
{
	RecordStore store;
	LOCKTAG		tag;

	open_claim(&store, scope, key, token, "idempotency_renew()", &tag, &answer->record);
	check_started(scope, key, &answer->record);
	prolong(&answer->record, ttl_us, &answer->now);
	record_write(&store, &answer->record);
	record_close(&store, true);
	xact_require_durable(false);
	answer->status = CLAIM_STARTED;
	answer->known = true;
	answer->left_us = answer->record.ttl_us;
}

/* The status is what a begin of the same request by somebody else would answer. */
bool
claim_get(const NameArg *scope, const NameArg *key, ClaimAnswer *answer)
{
	RecordStore store;
	ClaimRequest request = {.scope = *scope, .key = *key};
	bool		found;
	Record		record;

	record_open(&store, false, NULL);
	found = record_read_latest(&store, scope, key, true, &record);
	if (found && !judge(&request, &record, answer))
	{
		found = !forgotten(&record, &answer->now);
		if (found)
			check_role(&record);
		answer->status = CLAIM_RESUMED;
		answer->left_us = 0;
	}
	record_close(&store, false);
	return found;
}

bool
claim_forget(const NameArg *scope, const NameArg *key)
{
	RecordStore store;
	LOCKTAG		tag;
	Record		record;
	bool		found;

	record_open(&store, true, "idempotency_forget()");
	record_tag(&tag, scope, key);
	(void) keylock_wait(&tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	found = record_read_locked(&store, scope, key, &record);
	if (found)
	{
		record_delete(&store);
		xact_require_durable(false);
	}
	else
		keylock_release(&tag, ExclusiveLock);
	record_close(&store, found);
	return found;
}
