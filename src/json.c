/*-------------------------------------------------------------------------
 *
 * json.c
 *		The JSON objects of an upload session: metadata, provider_data and
 *		result.
 *
 * The values are jsonb as they come from rows and arguments, perhaps toasted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "json.h"

/* Detoast a value. */
static Jsonb *
as_jsonb(const struct varlena *json)
{
	return DatumGetJsonbP(PointerGetDatum(json));
}

/* Is a value a JSON object? */
bool
json_is_object(const struct varlena *json)
{
	return JB_ROOT_IS_OBJECT(as_jsonb(json));
}

/* Return the kind of a JSON value, for messages. */
const char *
json_kind(const struct varlena *json)
{
	return TextDatumGetCString(DirectFunctionCall1(jsonb_typeof,
												   PointerGetDatum(json)));
}

/* Has a JSON object no keys? */
bool
json_is_empty(const struct varlena *json)
{
	return JB_ROOT_COUNT(as_jsonb(json)) == 0;
}

/* Return the object {}. */
struct varlena *
json_empty_object(void)
{
	Datum		empty = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	return (struct varlena *) DatumGetPointer(empty);
}

/* Return a text as a JSON value, sharing its memory. */
static JsonbValue
text_value(const text *value)
{
	JsonbValue	result = {
		.type = jbvString,
		.val.string.val = VARDATA_ANY(value),
		.val.string.len = VARSIZE_ANY_EXHDR(value),
	};

	return result;
}

/* Return texts as an array. */
struct varlena *
json_text_array(const Datum *texts, int count)
{
	JsonbInState state = {0};

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < count; i++)
	{
		JsonbValue	element = text_value(DatumGetTextPP(texts[i]));

		CHECK_FOR_INTERRUPTS();
		pushJsonbValue(&state, WJB_ELEM, &element);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	return (struct varlena *) JsonbValueToJsonb(state.result);
}

/* Return an object with one member. */
struct varlena *
json_text_member(const char *key, const text *value)
{
	JsonbInState state = {0};
	JsonbValue	name = text_value(cstring_to_text(key));
	JsonbValue	member = text_value(value);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&state, WJB_KEY, &name);
	pushJsonbValue(&state, WJB_VALUE, &member);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return (struct varlena *) JsonbValueToJsonb(state.result);
}

/* Are two values the same? */
bool
json_equals(const struct varlena *a, const struct varlena *b)
{
	return DatumGetBool(DirectFunctionCall2(jsonb_eq, PointerGetDatum(a),
											PointerGetDatum(b)));
}

/* Does an object have this key? */
static bool
has_key(Jsonb *object, const JsonbValue *key)
{
	JsonbValue	value;

	return getKeyJsonValueFromContainer(&object->root, key->val.string.val,
										key->val.string.len, &value) != NULL;
}

/*
 * Push one whole value, of which the iterator has just returned the first
 * token.  Nested values are pushed token by token instead of at once, so that
 * a large one can be interrupted.
 */
static void
push_value(JsonbInState *state, JsonbIterator **it, JsonbIteratorToken token,
		   JsonbValue *value)
{
	int			depth = 0;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (token == WJB_BEGIN_OBJECT || token == WJB_BEGIN_ARRAY)
			depth++;
		else if (token == WJB_END_OBJECT || token == WJB_END_ARRAY)
			depth--;
		/* only keys, values and elements carry a value */
		pushJsonbValue(state, token, token < WJB_BEGIN_ARRAY ? value : NULL);
		if (depth == 0)
			return;
		token = JsonbIteratorNext(it, value, false);
	}
}

/*
 * Push the members of an object, except nulls if remove_nulls, and except keys
 * that 'overriding' has, if it is given.
 */
static void
push_members(JsonbInState *state, Jsonb *object, Jsonb *overriding,
			 bool remove_nulls)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	/* pass the beginning; there is nothing but keys with values until the end */
	Assert(JB_ROOT_IS_OBJECT(object));
	(void) JsonbIteratorNext(&it, &key, false);
	while (JsonbIteratorNext(&it, &key, false) == WJB_KEY)
	{
		CHECK_FOR_INTERRUPTS();
		if (overriding != NULL && has_key(overriding, &key))
		{
			(void) JsonbIteratorNext(&it, &value, true);	/* skip its value */
			continue;
		}
		token = JsonbIteratorNext(&it, &value, false);
		if (remove_nulls && token == WJB_VALUE && value.type == jbvNull)
			continue;
		pushJsonbValue(state, WJB_KEY, &key);
		push_value(state, &it, token, &value);
	}
}

/*
 * Merge an object's top-level keys into another; a null removes its key.
 *
 * Takes one pass over both, whatever the number of keys: what jsonb's
 * operators offer for removing keys takes a pass for each of them.
 */
struct varlena *
json_merge(const struct varlena *target, const struct varlena *patch)
{
	Jsonb	   *old = as_jsonb(target);
	Jsonb	   *new = as_jsonb(patch);
	JsonbInState state = {0};

	/* only if somebody has dropped the CHECK that says so */
	if (!JB_ROOT_IS_OBJECT(old))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot merge keys into a JSON value of type %s",
						json_kind(target)),
				 errhint("Store a JSON object in the column.")));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_members(&state, old, new, false);
	push_members(&state, new, NULL, true);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return (struct varlena *) JsonbValueToJsonb(state.result);
}
