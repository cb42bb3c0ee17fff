/*
 * arg.h: reads and checks the arguments of SQL functions. Every failure is the
 * documented SQLSTATE: 22004 NULL, 22023 bad value, 22001 too long.
 * `what` is the name of the SQL parameter as the user knows it.
 */
#ifndef DISTSYS_ARG_H
#define DISTSYS_ARG_H

#include "compat.h"
#include "fmgr.h"
#include "datatype/timestamp.h"
#include "utils/timestamp.h"

#define NAME_LONG 255			/* bytes: leases, keys, resources, scopes */
#define NAME_SHORT 63			/* bytes: topics, policies, groups, consumers, members */

/* A checked name: bytes inside the argument (not NUL-terminated) and the text Datum to store or to look up with. */
typedef struct NameArg
{
	const char *data;
	int			len;
	Datum		datum;
} NameArg;

#define MICROSECONDS INT64CONST(1)
#define MILLISECONDS INT64CONST(1000)
#define SECONDS INT64CONST(1000000)

extern void arg_not_null(FunctionCallInfo fcinfo, int argno, const char *what);
/* 1..max_bytes bytes, no control characters, not NULL */
extern NameArg arg_name(FunctionCallInfo fcinfo, int argno, const char *what, int max_bytes);
extern NameArg arg_name_datum(Datum value, const char *what, int max_bytes);
extern char *name_cstring(NameArg name);	/* palloc'd, for messages */
/* optional text: false when NULL; longer than max_bytes is 22001 (0 = any length) */
extern bool arg_text(FunctionCallInfo fcinfo, int argno, const char *what, int max_bytes, NameArg *out);
/* a word out of a NULL-terminated list, case-sensitive; returns its index; 22023 with the list in the HINT */
extern int	arg_word(FunctionCallInfo fcinfo, int argno, const char *what, const char *const *words);
extern int64 arg_int64(FunctionCallInfo fcinfo, int argno, const char *what, int64 min, int64 max);
extern int32 arg_int32(FunctionCallInfo fcinfo, int argno, const char *what, int32 min, int32 max);
extern bool arg_bool(FunctionCallInfo fcinfo, int argno, const char *what);
/* a fencing token: not NULL, > 0 */
extern int64 arg_token(FunctionCallInfo fcinfo, int argno);
/* an interval in microseconds within [min, max]; months, infinity and values outside are 22023 with `hint` (may be NULL) */
extern int64 arg_interval(FunctionCallInfo fcinfo, int argno, const char *what, int64 min_us, int64 max_us, const char *hint);
extern int64 interval_to_us(const Interval *value, const char *what, int64 min_us, int64 max_us, const char *hint);
/* `wait` of a function: not NULL (22004), 0 .. distsys.max_function_wait (22023, HINT names call_form when not NULL) */
extern int64 arg_function_wait(FunctionCallInfo fcinfo, int argno, const char *call_form);
/* text[] -> array of checked names; NULL array 22004, multi-dimensional 2202E, NULL element 22004, empty 22023 unless allow_empty */
extern NameArg *arg_name_array(FunctionCallInfo fcinfo, int argno, const char *what, int max_bytes, bool allow_empty, int *n);
extern int64 *arg_int64_array(FunctionCallInfo fcinfo, int argno, const char *what, int64 min, int64 max, int *n);
/* an argument value that a later version builds: 0A000 */
pg_noreturn extern void arg_not_built(const char *what, const char *hint);

/* Min and Max for arguments that are calls: those macros evaluate the one that they return twice */
static inline int64
at_least(int64 value, int64 lowest)
{
	return Max(value, lowest);
}

static inline int64
at_most(int64 value, int64 highest)
{
	return Min(value, highest);
}

extern Datum interval_datum(int64 us);	/* palloc'd interval from microseconds (days stay 0) */
extern int32 seconds_up(int64 us);		/* rounded up to whole seconds, clamped to int */

#endif							/* DISTSYS_ARG_H */
