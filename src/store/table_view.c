/*
 * table_view.c: SETOF functions that show a table of ours, see table_view.h.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "core/result.h"
#include "store/table_view.h"

Datum
table_view(FunctionCallInfo fcinfo, CatalogTable table, TableViewColumns columns)
{
	Relation	rel = row_open_read(table);
	RowScan    *scan = row_scan_begin(rel, 0, NULL, NULL);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "distsys view", ALLOCSET_SMALL_SIZES);
	HeapTuple	row;

	result_begin_set(fcinfo);
	while ((row = row_scan_next(scan)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(per_row);
		Datum		values[TABLE_VIEW_COLUMNS];
		bool		nulls[TABLE_VIEW_COLUMNS] = {false};

		columns(rel, row, values, nulls);
		result_put(fcinfo, values, nulls);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(per_row);
	}
	row_scan_end(scan);
	row_close(rel);
	return (Datum) 0;
}
