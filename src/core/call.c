/*
 * call.c: procedures that end the transaction they were called in, see call.h.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/snapmgr.h"

#include "core/call.h"
#include "core/result.h"

void
call_check(FunctionCallInfo fcinfo, const char *function)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;

	/* 15 and 17 would commit the statements before it in the same pipeline; an exception block is a subtransaction */
	if (atomic || (MyXactFlags & XACT_FLAGS_PIPELINING) || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot run inside a transaction block, a function or a pipeline", function),
				 errhint("Call it in autocommit mode, as a plain CALL statement outside BEGIN.")));
}

void
call_begin(void)
{
	MemoryContext caller = CurrentMemoryContext;

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	call_commit();
}

void
call_commit(void)
{
	SPI_commit();
	InvalidateCatalogSnapshot();
}

void
call_end(void)
{
	SPI_finish();
}

Datum
call_result(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls)
{
	return result_record(fcinfo, values, nulls);
}
