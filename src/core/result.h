/*
 * result.h: builds the rows that functions return.
 */
#ifndef DISTSYS_RESULT_H
#define DISTSYS_RESULT_H

#include "fmgr.h"
#include "access/htup.h"
#include "utils/tuplestore.h"

/* A row of a named composite type (its oid comes from catalog_type()). */
extern Datum result_row(Oid rowtype, const Datum *values, const bool *nulls);
/* The row of a function with OUT parameters. */
extern Datum result_record(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls);
/* A row as JSON text, for messages. */
extern char *result_row_json(Datum row);
/* For SETOF functions: InitMaterializedSRF was called; appends a row. */
extern void result_put(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls);
extern void result_begin_set(FunctionCallInfo fcinfo);

#endif							/* DISTSYS_RESULT_H */
