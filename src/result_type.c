/*-------------------------------------------------------------------------
 *
 * result_type.c
 *		The composite types that functions return: chunk_result, upload_lease.
 *
 * Attributes are found by name, so that a later version of the extension may
 * append others while this library is still loaded; these are null.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "lifecycle.h"
#include "result_type.h"

/* Find an attribute by its name, and check its type. */
static int
find_attribute(const ResultRowType *type, int attribute, TupleDesc desc)
{
	const char *name = type->attributes[attribute].name;
	Oid			expected = type->attributes[attribute].type;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0 &&
			(OidIsValid(expected) ? att->atttypid == expected :
			 type_is_enum(att->atttypid)))
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("attribute \"%s\" of type \"%s\" does not exist or has another type",
					name, type->name),
			 errhint("Restore the attribute with ALTER TYPE.  Creating the extension again would drop all sessions.")));
}

/*
 * Look a type up.  The map is cached for the version of the type seen last.  The
 * caller closes it.
 */
OpenResultType
open_result_type(ResultRowType *type, Oid oid)
{
	OpenResultType open = {
		.desc = lookup_rowtype_tupdesc(oid, -1),
	};
	uint64		version = assign_record_type_identifier(oid, -1);

	Assert(type->count <= MAX_RESULT_ATTRIBUTES);
	if (type->map_version != version)
	{
		type->map_version = 0;	/* the map is not valid if we fail */
		for (int i = 0; i < type->count; i++)
			type->map[i] = find_attribute(type, i, open.desc);
		type->map_version = version;
	}
	memcpy(open.map, type->map, sizeof(open.map));
	return open;
}

void
close_result_type(const OpenResultType *type)
{
	ReleaseTupleDesc(type->desc);
}

/* Begin a value, all of whose attributes are null. */
void
begin_result(const OpenResultType *type, ResultRow *row)
{
	row->type = type;
	/* also attributes that this library does not know */
	memset(row->nulls, true, type->desc->natts * sizeof(bool));
}

void
set_attribute(ResultRow *row, int attribute, Datum value)
{
	int			i;

	Assert(attribute < MAX_RESULT_ATTRIBUTES);
	i = row->type->map[attribute];
	row->values[i] = value;
	row->nulls[i] = false;
}

HeapTuple
form_result(ResultRow *row)
{
	return heap_form_tuple(row->type->desc, row->values, row->nulls);
}

/* Return the status of a session that readers see. */
Datum
shown_status_datum(const Session *session, TimestampTz now)
{
	return session->status == STATUS_OTHER ?
		ObjectIdGetDatum(session->other_status) :
		status_to_datum(session_shown_status(session, now));
}
