/*-------------------------------------------------------------------------
 *
 * quota_store.h
 *		The limits of owners, and what their live sessions use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_QUOTA_STORE_H
#define VALI_BLOB_QUOTA_STORE_H

#include "session.h"

extern Quota quota_read(const text *owner, bool latest);
extern void quota_lock(const text *owner);
extern Quota quota_claim(const text *owner);
extern Usage quota_verify_usage(const text *owner);
extern Usage quota_visible_usage(const text *owner, bool is_counted);

extern void insert_live_row(const Session *session);
extern void update_live_row(const Session *before, const Session *after);

#endif							/* VALI_BLOB_QUOTA_STORE_H */
