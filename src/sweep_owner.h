/*-------------------------------------------------------------------------
 *
 * sweep_owner.h
 *		The role that the worker sweeps as, and whether that is safe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEP_OWNER_H
#define VALI_BLOB_SWEEP_OWNER_H

#include "sweep.h"

extern Oid	sweep_owner(void);
extern bool check_sweep_is_safe(Oid owner, SweepScanKind kind);

#endif							/* VALI_BLOB_SWEEP_OWNER_H */
