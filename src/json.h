/*-------------------------------------------------------------------------
 *
 * json.h
 *		The JSON objects of an upload session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_JSON_H
#define VALI_BLOB_JSON_H

extern bool json_is_object(const struct varlena *json);
extern const char *json_kind(const struct varlena *json);
extern bool json_is_empty(const struct varlena *json);
extern struct varlena *json_empty_object(void);
extern struct varlena *json_text_array(const Datum *texts, int count);
extern struct varlena *json_text_member(const char *key, const text *value);
extern bool json_equals(const struct varlena *a, const struct varlena *b);
extern struct varlena *json_merge(const struct varlena *target,
								  const struct varlena *patch);

#endif							/* VALI_BLOB_JSON_H */
