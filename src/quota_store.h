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

extern bool quota_read(const text *owner, bool latest, Quota *quota);
extern bool quota_claim(const text *owner, Quota *quota, Usage *usage);
extern Usage quota_verify_usage(const text *owner);
extern Usage quota_visible_usage(const text *owner, bool is_counted);

extern void live_insert(const Session *session);
extern void live_change(const Session *before, const Session *after);

#endif							/* VALI_BLOB_QUOTA_STORE_H */
