/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Every difference between the PostgreSQL majors that we support.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_COMPAT_H
#define VALI_BLOB_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "vali_blob needs PostgreSQL 15 or newer"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn _Noreturn
#endif

#ifdef PG_MODULE_MAGIC_EXT
#define VALI_BLOB_MODULE_MAGIC \
	PG_MODULE_MAGIC_EXT(.name = "vali_blob", .version = VALI_BLOB_VERSION)
#else
#define VALI_BLOB_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* VALI_BLOB_COMPAT_H */
