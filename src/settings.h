/*-------------------------------------------------------------------------
 *
 * settings.h
 *		The extension's settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SETTINGS_H
#define VALI_BLOB_SETTINGS_H

/* The access path to the rows of upload_session */
typedef enum RowAccess
{
	ROW_ACCESS_AUTO,
	ROW_ACCESS_SQL,
	ROW_ACCESS_DIRECT
} RowAccess;

/* What the channel vali_blob tells */
typedef enum NotifyLevel
{
	NOTIFY_OFF,
	NOTIFY_LIFECYCLE,
	NOTIFY_PROGRESS
} NotifyLevel;

/* How many values node_setting has */
#define NODE_COUNT 1024

/* Durations are in seconds; -1 stands for "forever". */
extern int	session_ttl_setting;
extern int	retention_setting;
extern int	reclaim_retention_setting;
extern bool require_owner_setting;
extern int	row_access_setting;
extern bool sweep_setting;
extern int	sweep_interval_setting;
extern int	sweep_batch_size_setting;
extern int	node_setting;
extern int	notify_setting;
extern int	notify_interval_setting;	/* in milliseconds */

/* -1 stands for "any number"; bytes are whole numbers. */
extern double max_upload_size_setting;
extern int	max_live_uploads_setting;
extern double max_live_bytes_setting;

extern void define_settings(void);

#endif							/* VALI_BLOB_SETTINGS_H */
