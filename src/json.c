/*-------------------------------------------------------------------------
 *
 * json.c
 *		The JSON objects of an upload session: metadata, provider_data and
 *		result.
 *
 * The values are jsonb as they come from rows and arguments, perhaps toasted.
 * Only documented jsonb operators build new ones, since the C interface for
 * that differs between PostgreSQL majors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "json.h"

/* Detoast a value. */
static Jsonb *
as_jsonb(struct varlena *json)
{
	return DatumGetJsonbP(PointerGetDatum(json));
}

/* Tell whether a value is a JSON object. */
bool
json_is_object(struct varlena *json)
{
	return JB_ROOT_IS_OBJECT(as_jsonb(json));
}

/* The kind of a JSON value, for messages. */
const char *
json_kind(struct varlena *json)
{
	return TextDatumGetCString(DirectFunctionCall1(jsonb_typeof,
												   PointerGetDatum(json)));
}

/* Tell whether a JSON object has no keys. */
bool
json_is_empty(struct varlena *json)
{
	return JB_ROOT_COUNT(as_jsonb(json)) == 0;
}

/* Make the object {}. */
struct varlena *
json_empty_object(void)
{
	Datum		empty = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	return (struct varlena *) DatumGetPointer(empty);
}

/* Take away every top-level key whose value in the patch is null. */
static Datum
remove_null_keys(Datum merged, Jsonb *patch)
{
	JsonbIterator *it = JsonbIteratorInit(&patch->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	text	   *key = NULL;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = cstring_to_text_with_len(value.val.string.val,
										   value.val.string.len);
		else if (token == WJB_VALUE && value.type == jbvNull)
			merged = DirectFunctionCall2(jsonb_delete, merged,
										 PointerGetDatum(key));
	}
	return merged;
}

/* Merge an object's top-level keys into another; a null removes its key. */
struct varlena *
json_merge(struct varlena *target, struct varlena *patch)
{
	Datum		merged = DirectFunctionCall2(jsonb_concat,
											 PointerGetDatum(target),
											 PointerGetDatum(patch));

	merged = remove_null_keys(merged, as_jsonb(patch));
	return (struct varlena *) DatumGetPointer(merged);
}
