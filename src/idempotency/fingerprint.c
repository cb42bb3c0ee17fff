/*
 * fingerprint.c: SHA-256 of requests, and keys made from parts.
 *
 * Every part is hashed with its length before it (8 bytes, big-endian), so
 * ("ab", "c") and ("a", "bc") differ; a missing part has length 2^64 - 1.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#include "core/arg.h"
#include "core/hash.h"

/* Collects parts, each with its length before it. */
static void
add_part(StringInfo input, const char *data, int len)
{
	uint64		length = pg_hton64(data == NULL ? PG_UINT64_MAX : (uint64) len);

	appendBinaryStringInfo(input, (const char *) &length, sizeof(length));
	if (data != NULL)
		appendBinaryStringInfo(input, data, len);
}

static Datum
digest_datum(StringInfo input)
{
	bytea	   *result = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);

	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	hash_sha256(input->data, input->len, (uint8 *) VARDATA(result));
	return PointerGetDatum(result);
}

/* ---- JSON ---- */

static void
add_scalar(StringInfo input, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			appendStringInfoChar(input, 'n');
			break;
		case jbvBool:
			appendStringInfoChar(input, value->val.boolean ? 't' : 'f');
			break;
		case jbvNumeric:
			{
				/* 1.0 and 1 are the same number */
				char	   *digits = numeric_normalize(value->val.numeric);

				appendStringInfoChar(input, '#');
				add_part(input, digits, strlen(digits));
				pfree(digits);
				break;
			}
		case jbvString:
			appendStringInfoChar(input, '"');
			add_part(input, value->val.string.val, value->val.string.len);
			break;
		default:
			elog(ERROR, "unexpected jsonb scalar %d", (int) value->type);
	}
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fingerprint_json);

/* jsonb has sorted its keys and dropped duplicates and white space already. */
Datum
distsys_fingerprint_json(PG_FUNCTION_ARGS)
{
	Jsonb	   *body;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	StringInfoData input;

	arg_not_null(fcinfo, 0, "body");
	body = PG_GETARG_JSONB_P(0);
	initStringInfo(&input);
	iterator = JsonbIteratorInit(&body->root);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
				appendStringInfoChar(&input, value.val.array.rawScalar ? 's' : '[');
				break;
			case WJB_END_ARRAY:
				appendStringInfoChar(&input, ']');
				break;
			case WJB_BEGIN_OBJECT:
				appendStringInfoChar(&input, '{');
				break;
			case WJB_END_OBJECT:
				appendStringInfoChar(&input, '}');
				break;
			case WJB_KEY:
			case WJB_VALUE:
			case WJB_ELEM:
				add_scalar(&input, &value);
				break;
			default:
				elog(ERROR, "unexpected jsonb token %d", (int) token);
		}
	}
	PG_RETURN_DATUM(digest_datum(&input));
}

/* ---- parts ---- */

/* VARIADIC parts text[] */
static void
add_parts(FunctionCallInfo fcinfo, int argno, StringInfo input)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	arg_not_null(fcinfo, argno, "parts");
	array = PG_GETARG_ARRAYTYPE_P(argno);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		text	   *part;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("parts must not contain null")));
		part = DatumGetTextPP(elements[i]);
		add_part(input, VARDATA_ANY(part), VARSIZE_ANY_EXHDR(part));
	}
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fingerprint_parts);

Datum
distsys_fingerprint_parts(PG_FUNCTION_ARGS)
{
	StringInfoData input;

	initStringInfo(&input);
	add_parts(fcinfo, 0, &input);
	PG_RETURN_DATUM(digest_datum(&input));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fingerprint_request);

/* (method, path, body); body may be NULL, byte for byte otherwise */
Datum
distsys_fingerprint_request(PG_FUNCTION_ARGS)
{
	NameArg		method = arg_name(fcinfo, 0, "method", NAME_SHORT);
	NameArg		path;
	NameArg		body;
	StringInfoData input;

	arg_not_null(fcinfo, 1, "path");
	(void) arg_text(fcinfo, 1, "path", 0, &path);
	initStringInfo(&input);
	add_part(&input, method.data, method.len);
	add_part(&input, path.data, path.len);
	if (arg_text(fcinfo, 2, "body", 0, &body))
		add_part(&input, body.data, body.len);
	else
		add_part(&input, NULL, 0);
	PG_RETURN_DATUM(digest_datum(&input));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_key);

/* UUID version 8 (RFC 9562) over SHA-256 of namespace and parts. */
Datum
distsys_idempotency_key(PG_FUNCTION_ARGS)
{
	NameArg		namespace = arg_name(fcinfo, 0, "namespace", NAME_LONG);
	StringInfoData input;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	initStringInfo(&input);
	add_part(&input, namespace.data, namespace.len);
	add_parts(fcinfo, 1, &input);
	hash_sha256(input.data, input.len, digest);
	memcpy(uuid->data, digest, UUID_LEN);
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x80;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
	PG_RETURN_UUID_P(uuid);
}

/* ---- the header ---- */

static void
raise_bad_header(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid Idempotency-Key header"),
			 errdetail("%s", detail),
			 errhint("Send a quoted string, Idempotency-Key: \"8e03978e\", or a bare token.")));
}

/* The inside of an RFC 8941 string whose opening quote has been read; returns what follows the closing one. */
static const char *
parse_quoted(const char *p, const char *end, StringInfo key)
{
	for (; p < end && *p != '"'; p++)
	{
		if (*p == '\\' && (++p == end || (*p != '"' && *p != '\\')))
			raise_bad_header("A backslash may only stand before a quote or a backslash.");
		if ((unsigned char) *p < 0x20 || (unsigned char) *p > 0x7e)
			raise_bad_header("A string holds printable ASCII only.");
		appendStringInfoChar(key, *p);
	}
	if (p == end)
		raise_bad_header("The closing quote is missing.");
	return p + 1;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_key_parse);

Datum
distsys_idempotency_key_parse(PG_FUNCTION_ARGS)
{
	NameArg		header;
	const char *p;
	const char *end;
	StringInfoData key;
	Datum		result;

	arg_not_null(fcinfo, 0, "header");
	(void) arg_text(fcinfo, 0, "header", 1024, &header);
	p = header.data;
	end = p + header.len;
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
		end--;

	initStringInfo(&key);
	if (p < end && *p == '"')
	{
		p = parse_quoted(p + 1, end, &key);
		if (p < end && *p != ';')	/* parameters of the item are allowed and mean nothing here */
			raise_bad_header("Something follows the closing quote.");
	}
	else
	{
		for (; p < end; p++)
		{
			if ((unsigned char) *p <= 0x20 || (unsigned char) *p > 0x7e || *p == '"')
				raise_bad_header("A bare token holds printable ASCII without spaces and quotes.");
			appendStringInfoChar(&key, *p);
		}
	}
	result = PointerGetDatum(cstring_to_text_with_len(key.data, key.len));
	(void) arg_name_datum(result, "idempotency key", NAME_LONG);
	PG_RETURN_DATUM(result);
}
