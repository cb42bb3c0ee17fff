/*
 * refusal.c: the SQLSTATE of a refusal, and names in it, see refusal.h.
 */
#include "postgres.h"

#include "compat.h"

#include "core/guc.h"
#include "core/refusal.h"

#define ERRCODE_PT_CONFLICT MAKE_SQLSTATE('P', 'T', '4', '0', '9')
#define ERRCODE_PT_UNPROCESSABLE MAKE_SQLSTATE('P', 'T', '4', '2', '2')
#define ERRCODE_PT_TOO_MANY_REQUESTS MAKE_SQLSTATE('P', 'T', '4', '2', '9')
#define ERRCODE_PT_UNAVAILABLE MAKE_SQLSTATE('P', 'T', '5', '0', '3')

static const struct
{
	int			sqlstate;
	int			http;
}			statuses[] = {
	{ERRCODE_SD_FENCING_TOKEN_STALE, ERRCODE_PT_CONFLICT},
	{ERRCODE_SD_LEASE_NOT_HELD, ERRCODE_PT_CONFLICT},
	{ERRCODE_SD_WOULD_DEADLOCK, ERRCODE_PT_CONFLICT},
	{ERRCODE_SD_IDEMPOTENCY_IN_PROGRESS, ERRCODE_PT_CONFLICT},
	{ERRCODE_SD_IDEMPOTENCY_MISMATCH, ERRCODE_PT_UNPROCESSABLE},
	{ERRCODE_SD_IDEMPOTENCY_CLAIM_LOST, ERRCODE_PT_CONFLICT},
	{ERRCODE_SD_RATE_LIMITED, ERRCODE_PT_TOO_MANY_REQUESTS},
	{ERRCODE_SD_LIMITER_UNAVAILABLE, ERRCODE_PT_UNAVAILABLE},
	{ERRCODE_SD_DELIVERY_NOT_HELD, ERRCODE_PT_CONFLICT}
};

int
errcode_sd(int sqlstate)
{
	int			http = ERRCODE_PT_UNAVAILABLE;

	if (!guc_http_sqlstate)
		return errcode(sqlstate);
	for (int i = 0; i < lengthof(statuses); i++)
	{
		if (statuses[i].sqlstate == sqlstate)
			http = statuses[i].http;
	}
	return errcode(http);
}

const char *
refusal_role(Oid role)
{
	const char *name = GetUserNameFromId(role, true);

	return name != NULL ? name : psprintf("%u", role);
}
