-- distsys: the SQL face. Built from sql/*.sql; every object is qualified, so search_path does not matter.
\echo Use "CREATE EXTENSION distsys" to load this file. \quit

