/*
 * refusal.h: the SQLSTATE of a refusal. With distsys.http_sqlstate it is the
 * one that PostgREST turns into an HTTP status: PT409, PT422, PT429 or PT503.
 */
#ifndef DISTSYS_REFUSAL_H
#define DISTSYS_REFUSAL_H

#include "errors.h"

/* Instead of errcode() for every code of class SD. */
extern int	errcode_sd(int sqlstate);
/* Whose it is, for a message: the role's name, its number when it has been dropped. */
extern const char *refusal_role(Oid role);

#endif							/* DISTSYS_REFUSAL_H */
