/*-------------------------------------------------------------------------
 *
 * sweeper_api.h
 *		Registration of the background sweeper.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEPER_API_H
#define VALI_BLOB_SWEEPER_API_H

extern void sweeper_init(void);

#endif							/* VALI_BLOB_SWEEPER_API_H */
