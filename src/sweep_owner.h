/*-------------------------------------------------------------------------
 *
 * sweep_owner.h
 *		The role that the worker sweeps as.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEP_OWNER_H
#define VALI_BLOB_SWEEP_OWNER_H

extern Oid	sweep_owner(void);

#endif							/* VALI_BLOB_SWEEP_OWNER_H */
