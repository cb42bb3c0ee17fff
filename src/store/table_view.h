/*
 * table_view.h: SETOF functions that show a table of ours, a row for each of its rows.
 */
#ifndef DISTSYS_TABLE_VIEW_H
#define DISTSYS_TABLE_VIEW_H

#include "fmgr.h"

#include "store/row.h"

#define TABLE_VIEW_COLUMNS 16

/* Fills the columns that the function returns; nulls are false at first. What it allocates is gone with the next row. */
typedef void (*TableViewColumns) (Relation rel, HeapTuple row, Datum *values, bool *nulls);

extern Datum table_view(FunctionCallInfo fcinfo, CatalogTable table, TableViewColumns columns);

#endif							/* DISTSYS_TABLE_VIEW_H */
