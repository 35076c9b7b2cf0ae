/*-------------------------------------------------------------------------
 *
 * notify.h
 *		Notifications of changes of upload sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_NOTIFY_H
#define VALI_BLOB_NOTIFY_H

#include "session.h"

extern void notify_change(const Session *before, const Session *after);

#endif							/* VALI_BLOB_NOTIFY_H */
