/*-------------------------------------------------------------------------
 *
 * notify.c
 *		Notifications of changes of upload sessions.
 *
 * They are sent with the transaction that makes the change, as by NOTIFY.  What
 * one contains is for everybody in the database, so a session is named by its id:
 * an upload_id, an owner or a path is for those only who may read the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"

#include "catalog.h"
#include "lifecycle.h"
#include "notify.h"
#include "settings.h"

#define CHANNEL "vali_blob"
#define LEASE_CHANNEL "vali_blob_lease"

/* Notify of what has become of a session. */
static void
notify_event(const char *event, const Session *session)
{
	const char *total_size = session->total_size == SIZE_DEFERRED ? "null" :
		psprintf("%lld", (long long) session->total_size);

	Async_Notify(CHANNEL,
				 psprintf("{\"event\": \"%s\", \"id\": %lld, \"status\": \"%s\", \"uploaded_bytes\": %lld, \"total_size\": %s}",
						  event, (long long) session->id,
						  status_name(session->status),
						  (long long) session->uploaded_bytes, total_size));
}

/* Notify of what has become of a lease. */
static void
notify_lease_event(const char *event, const Session *session)
{
	Async_Notify(LEASE_CHANNEL,
				 psprintf("{\"id\": %lld, \"event\": \"%s\"}",
						  (long long) session->id, event));
}

/* Notify of the end of a session. */
static void
notify_end(const Session *session)
{
	switch (session->status)
	{
		case STATUS_COMPLETE:
			notify_event("completed", session);
			break;
		case STATUS_ABORTED:
			notify_event("aborted", session);
			break;
		case STATUS_EXPIRED:
			notify_event("expired", session);
			break;
		default:
			break;
	}
}

/*
 * Notify of a change.  A session that was inserted has no "before", one that was
 * deleted no "after".
 */
void
notify_change(const Session *before, const Session *after)
{
	if (before != NULL && after != NULL)
	{
		if (after->lease_requested && !before->lease_requested)
			notify_lease_event("requested", after);
		/* only if somebody waits, as to notify costs more than to release */
		if (before->lease_requested && !after->lease_requested)
			notify_lease_event("released", after);
	}
	if (notify_setting == NOTIFY_OFF)
		return;

	if (before == NULL)
		notify_event("started", after);
	if (after == NULL)
		notify_event("deleted", before);
	else if (before == NULL || before->status != after->status)
		notify_end(after);
	/* a rule has decided that it is due; several chunks may be one change */
	if (before != NULL && after != NULL && status_is_live(after->status) &&
		before->notified_at != after->notified_at)
		notify_event("progress", after);
}
