/*-------------------------------------------------------------------------
 *
 * json.h
 *		The JSON objects of an upload session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_JSON_H
#define VALI_BLOB_JSON_H

extern bool json_is_object(struct varlena *json);
extern const char *json_kind(struct varlena *json);
extern bool json_is_empty(struct varlena *json);
extern struct varlena *json_empty_object(void);
extern struct varlena *json_merge(struct varlena *target,
								  struct varlena *patch);

#endif							/* VALI_BLOB_JSON_H */
