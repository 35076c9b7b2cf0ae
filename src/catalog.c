/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		Where the extension's own objects are.
 *
 * Everything is found from the extension itself: its schema, and in it its
 * objects by name.  The search_path plays no part, and a schema that merely
 * looks like ours is never used.
 *
 * A backend keeps what it found until an invalidation of our tables, of any
 * schema or of any function says that it may have changed (DROP EXTENSION,
 * ALTER SCHEMA ... RENAME, REVOKE ... ON FUNCTION).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"

static const char *const status_names[STATUS_COUNT] = {
	"pending", "in_progress", "complete", "aborted", "expired"
};

static const char *const outcome_names[OUTCOME_COUNT] = {
	"advanced", "replayed", "conflict", "too_large", "incomplete",
	"ended", "expired", "not_found", "locked"
};

static Catalog current;

/* The tables that we found last, even if not all else has been found yet. */
static Oid	found_session_table = InvalidOid;
static Oid	found_reclaim_table = InvalidOid;

/* Counts invalidations; what we know is as of one value of it. */
static uint64 invalidations = 1;
static uint64 current_as_of = 0;

/* Forget what is known when our table changes, or any. */
static void
on_relation_change(Datum arg pg_attribute_unused(), Oid relation)
{
	if (relation == InvalidOid || relation == found_session_table ||
		relation == found_reclaim_table)
		invalidations++;
}

/* Forget what is known when a schema or a function changes. */
static void
on_object_change(Datum arg pg_attribute_unused(),
				 int cache_id pg_attribute_unused(),
				 uint32 hash pg_attribute_unused())
{
	invalidations++;
}

/* Ask for invalidations, once in a backend's life. */
static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterRelcacheCallback(on_relation_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_object_change, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, on_object_change, (Datum) 0);
	registered = true;
}

/* Find the schema that the extension was created in. */
static Oid
find_schema(void)
{
	Oid			extension = get_extension_oid("vali_blob", false);
	Oid			schema = InvalidOid;
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/* Complain that an object of ours is not where the script put it. */
pg_noreturn static void
complain_missing(const char *kind, const char *name, const char *schema)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" of extension vali_blob is missing in schema %s",
					kind, name, schema),
			 errhint("If it was renamed or moved, undo that.  Dropping the extension and creating it again would drop all sessions.")));
}

/* Find one of our tables. */
static Oid
find_table(const Catalog *catalog, const char *name)
{
	Oid			table = get_relname_relid(name, catalog->schema_oid);

	if (!OidIsValid(table))
		complain_missing("table", name, catalog->schema);
	return table;
}

/* Find one of our types. */
static Oid
find_type(const Catalog *catalog, const char *name)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum(name),
									   ObjectIdGetDatum(catalog->schema_oid));

	if (!OidIsValid(type))
		complain_missing("type", name, catalog->schema);
	return type;
}

/* Find the labels of one of our enums. */
static void
find_labels(const Catalog *catalog, Oid type, const char *const *names,
			int count, Oid *labels)
{
	for (int i = 0; i < count; i++)
	{
		labels[i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
									ObjectIdGetDatum(type),
									CStringGetDatum(names[i]));
		if (!OidIsValid(labels[i]))
			complain_missing("enum label", names[i], catalog->schema);
	}
}

/* Find everything; the schema's name is allocated in the current context. */
static void
find_objects(Catalog *catalog)
{
	char	   *schema;

	catalog->schema_oid = find_schema();
	schema = get_namespace_name(catalog->schema_oid);
	if (schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("the schema of extension vali_blob is gone"),
				 errhint("Create the schema and its objects again from a backup.")));
	catalog->schema = unconstify(char *, quote_identifier(schema));

	catalog->session_table = found_session_table =
		find_table(catalog, "upload_session");
	catalog->reclaim_table = found_reclaim_table =
		find_table(catalog, "upload_reclaim");
	catalog->chunk_result_type = find_type(catalog, "chunk_result");
	catalog->status_type = find_type(catalog, "upload_status");
	find_labels(catalog, catalog->status_type, status_names, STATUS_COUNT,
				catalog->status_labels);
	find_labels(catalog, find_type(catalog, "chunk_outcome"), outcome_names,
				OUTCOME_COUNT, catalog->outcome_labels);
}

/* Tell whether two findings are the same. */
static bool
same_objects(const Catalog *a, const Catalog *b)
{
	return a->schema != NULL && b->schema != NULL &&
		strcmp(a->schema, b->schema) == 0 &&
		a->session_table == b->session_table &&
		a->reclaim_table == b->reclaim_table &&
		a->chunk_result_type == b->chunk_result_type &&
		a->status_type == b->status_type;
}

/* Find everything, and remember it; false if it is what we knew. */
static bool
look(void)
{
	Catalog		found = {0};
	char	   *schema;

	find_objects(&found);
	if (same_objects(&found, &current))
		return false;

	schema = MemoryContextStrdup(TopMemoryContext, found.schema);
	if (current.schema != NULL)
		pfree(current.schema);
	found.schema = schema;
	found.generation = current.generation + 1;
	current = found;
	return true;
}

/*
 * Get what is known, finding it first where needed.  If an invalidation arrives
 * while we look, we look again, until nothing new is found.
 */
const Catalog *
catalog_get(void)
{
	bool		is_new = true;

	while (current_as_of != invalidations && is_new)
	{
		uint64		as_of = invalidations;

		register_callbacks();
		is_new = look();
		current_as_of = as_of;
		CHECK_FOR_INTERRUPTS();
	}
	return &current;
}

/* Forget what is known. */
void
catalog_forget(void)
{
	invalidations++;
}

/* A number that differs whenever our tables, or what they use, may have changed. */
uint64
catalog_version(void)
{
	return invalidations;
}

/* A status as a value of the enum. */
Datum
status_to_datum(SessionStatus status)
{
	Assert(status < STATUS_COUNT);
	return ObjectIdGetDatum(catalog_get()->status_labels[status]);
}

/* A value of the enum as a status. */
SessionStatus
status_from_datum(Datum label)
{
	const Catalog *catalog = catalog_get();

	for (int i = 0; i < STATUS_COUNT; i++)
	{
		if (catalog->status_labels[i] == DatumGetObjectId(label))
			return (SessionStatus) i;
	}
	return STATUS_OTHER;
}
