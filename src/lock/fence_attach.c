/*
 * fence_attach.c: tables whose rows can be written only under a lease.
 *
 * fence_attach puts two ordinary triggers on a table: one before each row is inserted, updated or deleted, one
 * before TRUNCATE. They ask whether this transaction has asserted the lease and still pins it (lease_pinned): SD002
 * otherwise. For each row and not for each statement, since a write through an inheritance or partitioning parent
 * fires the row triggers of the table that gets the row, but only the statement triggers of the parent.
 *
 * The table's owner may attach, detach and disable: it guards against programs that forget the lease, not against
 * him. The triggers fire as ordinary ones do: not where session_replication_role is replica, since what logical
 * replication applies was guarded where it was written. They depend on their function, so DROP EXTENSION without
 * CASCADE names the tables, and pg_dump brings them back after the data.
 *
 * Locks: ShareRowExclusive on the table to the end of the transaction, as CREATE TRIGGER does.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "compat.h"
#include "executor/spi.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "core/arg.h"
#include "core/refusal.h"
#include "lock/lease.h"
#include "store/catalog.h"

#define ROW_TRIGGER "distsys_fence"
#define TRUNCATE_TRIGGER "distsys_fence_truncate"
#define GUARD "_fence_guard"

/* ---- which tables ---- */

static void
raise_wrong_kind(Relation rel, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" %s", RelationGetRelationName(rel), what),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static void
check_kind(Relation rel)
{
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		raise_wrong_kind(rel, "is a partitioned table", "Attach the fence to each of its partitions.");
	if (rel->rd_rel->relkind != RELKIND_RELATION)
		raise_wrong_kind(rel, "is not a table", NULL);
	if (IsCatalogRelation(rel))
		raise_wrong_kind(rel, "is a system catalog", NULL);
	if (getExtensionOfObject(RelationRelationId, RelationGetRelid(rel)) == get_extension_oid("distsys", true))
		raise_wrong_kind(rel, "is a table of distsys itself", NULL);
}

static void
raise_no_table(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("there is no table with OID %u", relid)));
}

/* Asked before the lock is queued for, so that a stranger stands in nobody's way. */
static void
check_owner(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	if (relkind == '\0')
		raise_no_table(relid);
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(relkind), get_rel_name(relid));
}

static Relation
open_owned(Oid relid)
{
	Relation	rel;

	check_owner(relid);
	rel = try_relation_open(relid, ShareRowExclusiveLock);
	if (rel == NULL)
		raise_no_table(relid);
	check_owner(relid);
	check_kind(rel);
	return rel;
}

/* The lease that guards the table already; NULL: none. */
static char *
attached_lease(Relation rel)
{
	Oid			guard = LookupFuncName(list_make2(makeString(DISTSYS_SCHEMA), makeString(GUARD)), 0, NULL, false);

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == guard && strcmp(trigger->tgname, ROW_TRIGGER) == 0)
			return trigger->tgnargs > 0 ? pstrdup(trigger->tgargs[0]) : pstrdup("");
	}
	return NULL;
}

/* ---- attach, detach ---- */

static void
execute(const char *command)
{
	int			result = SPI_execute(command, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "\"%s\" failed: %s", command, SPI_result_code_string(result));
}

static void
fence_attach(Oid relid, const NameArg *lease_name)
{
	Relation	rel = open_owned(relid);
	char	   *name = quote_literal_cstr(name_cstring(*lease_name));
	char	   *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel));
	char	   *attached = attached_lease(rel);

	if (attached != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" has a fence already", RelationGetRelationName(rel)),
				 errdetail("It can be written only under the lease \"%s\".", attached),
				 errhint("Detach it first: SELECT distsys.fence_detach(%s);", quote_literal_cstr(table))));
	relation_close(rel, NoLock);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	execute(psprintf("CREATE TRIGGER " ROW_TRIGGER " BEFORE INSERT OR UPDATE OR DELETE ON %s "
					 "FOR EACH ROW EXECUTE FUNCTION " DISTSYS_SCHEMA "." GUARD "(%s)", table, name));
	execute(psprintf("CREATE TRIGGER " TRUNCATE_TRIGGER " BEFORE TRUNCATE ON %s "
					 "FOR EACH STATEMENT EXECUTE FUNCTION " DISTSYS_SCHEMA "." GUARD "(%s)", table, name));
	SPI_finish();
}

static void
fence_detach(Oid relid)
{
	Relation	rel = open_owned(relid);
	char	   *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel));

	if (attached_lease(rel) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no fence", RelationGetRelationName(rel))));
	relation_close(rel, NoLock);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	execute(psprintf("DROP TRIGGER " ROW_TRIGGER " ON %s", table));
	/* somebody may have dropped one of the two by hand */
	execute(psprintf("DROP TRIGGER IF EXISTS " TRUNCATE_TRIGGER " ON %s", table));
	SPI_finish();
}

/* ---- the trigger ---- */

/* The lease's name out of the trigger's argument, kept for the statement. */
static NameArg *
guarding_lease(FunctionCallInfo fcinfo, const Trigger *trigger)
{
	NameArg    *name = (NameArg *) fcinfo->flinfo->fn_extra;
	MemoryContext caller;

	if (name != NULL)
		return name;
	caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	name = palloc(sizeof(NameArg));
	*name = arg_name_datum(CStringGetTextDatum(trigger->tgargs[0]), "lease_name", NAME_LONG);
	MemoryContextSwitchTo(caller);
	fcinfo->flinfo->fn_extra = name;
	return name;
}

static void
raise_not_asserted(const NameArg *name, Relation rel)
{
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_LEASE_NOT_HELD),
			 errmsg("lease \"%s\" is not asserted in this transaction", name_cstring(*name)),
			 errdetail("Table \"%s\" can be written only under this lease.", RelationGetRelationName(rel)),
			 errhint("Call distsys.lease_assert(%s, token) in the transaction that writes, before it does; after ROLLBACK TO SAVEPOINT again.",
					 quote_literal_cstr(name_cstring(*name)))));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__fence_guard);

Datum
distsys__fence_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	NameArg    *name;

	if (!CALLED_AS_TRIGGER(fcinfo) || data->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg(GUARD "() can only be called as a trigger with the name of a lease"),
				 errhint("Use distsys.fence_attach().")));
	name = guarding_lease(fcinfo, data->tg_trigger);
	if (!lease_pinned(name))
		raise_not_asserted(name, data->tg_relation);

	if (!TRIGGER_FIRED_FOR_ROW(data->tg_event) || !TRIGGER_FIRED_BEFORE(data->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple);
}

/* ---- SQL ---- */

static Oid
arg_table(FunctionCallInfo fcinfo, const char *command)
{
	arg_not_null(fcinfo, 0, "rel");
	PreventCommandDuringRecovery(command);
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	return PG_GETARG_OID(0);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fence_attach);

Datum
distsys_fence_attach(PG_FUNCTION_ARGS)
{
	Oid			relid = arg_table(fcinfo, "fence_attach()");
	NameArg		lease_name = arg_name(fcinfo, 1, "lease_name", NAME_LONG);

	fence_attach(relid, &lease_name);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fence_detach);

Datum
distsys_fence_detach(PG_FUNCTION_ARGS)
{
	fence_detach(arg_table(fcinfo, "fence_detach()"));
	PG_RETURN_BOOL(true);
}
