/*
 * version.c: which library is this?
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__library_version);

Datum
distsys__library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(DISTSYS_VERSION));
}
