/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		The extension's own objects.
 *
 * All of them are found from the extension: its schema, and in that the objects
 * by name.  The search_path plays no part, and a schema that merely looks like
 * the extension's is never used.
 *
 * This library may be installed before the extension is updated in each of its
 * databases.  What an earlier version does not have is optional: InvalidOid.
 *
 * A backend caches what it has found until an invalidation of our tables, of
 * any schema or of any function (DROP EXTENSION, ALTER SCHEMA ... RENAME,
 * REVOKE ... ON FUNCTION), or of any role, membership or owner of a database,
 * which the privileges on our tables depend on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "settings.h"

static const char *const table_names[] = {
	[TABLE_SESSION] = "upload_session",
	[TABLE_RECLAIM] = "upload_reclaim",
	[TABLE_PART] = "upload_part",
	[TABLE_QUOTA] = "upload_quota",
	[TABLE_LIVE] = "upload_live",
};

static const char *const status_names[] = {
	[STATUS_PENDING] = "pending",
	[STATUS_IN_PROGRESS] = "in_progress",
	[STATUS_COMPLETE] = "complete",
	[STATUS_ABORTED] = "aborted",
	[STATUS_EXPIRED] = "expired",
};

static const char *const outcome_names[] = {
	[OUTCOME_ADVANCED] = "advanced",
	[OUTCOME_REPLAYED] = "replayed",
	[OUTCOME_CONFLICT] = "conflict",
	[OUTCOME_TOO_LARGE] = "too_large",
	[OUTCOME_INCOMPLETE] = "incomplete",
	[OUTCOME_ENDED] = "ended",
	[OUTCOME_EXPIRED] = "expired",
	[OUTCOME_NOT_FOUND] = "not_found",
	[OUTCOME_LOCKED] = "locked",
	[OUTCOME_REPLACED] = "replaced",
	[OUTCOME_FENCED] = "fenced",
};

StaticAssertDecl(lengthof(table_names) == TABLE_COUNT, "every table has a name");
StaticAssertDecl(lengthof(status_names) == STATUS_COUNT, "every status has a name");
StaticAssertDecl(lengthof(outcome_names) == OUTCOME_COUNT, "every outcome has a name");

/* The first table, and the first outcome, that 1.0 does not have */
#define FIRST_OPTIONAL_TABLE TABLE_PART
#define FIRST_OPTIONAL_OUTCOME OUTCOME_REPLACED

static Catalog cache;

/* The tables found last, even if the rest has not been found yet. */
static Oid	watched_tables[TABLE_COUNT];

/* Counts invalidations.  The cache is valid for one value of it. */
static uint64 invalidations = 1;
static uint64 cache_valid_for = 0;

/* Relation cache callback: one of our tables has changed, or any relation. */
static void
relation_callback(Datum arg pg_attribute_unused(), Oid relid)
{
	for (int i = 0; i < TABLE_COUNT; i++)
	{
		if (relid == InvalidOid || relid == watched_tables[i])
		{
			invalidations++;
			return;
		}
	}
}

/* System cache callback: a schema, a function or a role has changed. */
static void
syscache_callback(Datum arg pg_attribute_unused(),
				  int cache_id pg_attribute_unused(),
				  uint32 hash pg_attribute_unused())
{
	invalidations++;
}

/* Register the callbacks, once in a backend's life. */
static void
register_callbacks(void)
{
	static const int syscaches[] = {
		NAMESPACEOID, PROCOID, AUTHOID, AUTHMEMROLEMEM, DATABASEOID
	};
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterRelcacheCallback(relation_callback, (Datum) 0);
	for (int i = 0; i < (int) lengthof(syscaches); i++)
		CacheRegisterSyscacheCallback(syscaches[i], syscache_callback, (Datum) 0);
	registered = true;
}

/* Return the schema that the extension was created in. */
static Oid
find_schema(void)
{
	Oid			schema;
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	/* by name, as the extension may have another OID now than in a cache */
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(EXTENSION_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" does not exist", EXTENSION_NAME),
				 errhint("It was dropped since the function was called.")));
	schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/* Report that an object is not where the installation script has put it. */
pg_noreturn static void
report_missing(const char *kind, const char *name, Oid schema)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" of extension \"%s\" does not exist in schema \"%s\"",
					kind, name, EXTENSION_NAME, get_namespace_name(schema)),
			 errhint("If it was renamed or moved, undo that.  Dropping the extension and creating it again would drop all sessions.")));
}

static Oid
find_table(Oid schema, ExtensionTable table)
{
	Oid			relid = get_relname_relid(table_names[table], schema);

	if (!OidIsValid(relid) && table < FIRST_OPTIONAL_TABLE)
		report_missing("table", table_names[table], schema);
	return relid;
}

static Oid
find_type(Oid schema, const char *name)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum(name),
									   ObjectIdGetDatum(schema));

	if (!OidIsValid(type))
		report_missing("type", name, schema);
	return type;
}

/*
 * Find the labels of an enum, of which the first ones must be there.  It may have
 * others, of a later version.
 */
static void
find_labels(Oid schema, Oid type, const char *const *names, int count,
			int required, Oid *labels)
{
	for (int i = 0; i < count; i++)
	{
		labels[i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
									ObjectIdGetDatum(type),
									CStringGetDatum(names[i]));
		if (!OidIsValid(labels[i]) && i < required)
			report_missing("enum label", names[i], schema);
	}
}

/*
 * Is the installed version of the extension 1.1 or later?  If not, a table or a
 * column that merely has the name of one of its objects is somebody else's.
 */
static bool
is_1_1(const Catalog *catalog)
{
	return OidIsValid(catalog->outcome_labels[OUTCOME_REPLACED]);
}

/* Find everything; the schema's name is allocated in the current context. */
static void
find_objects(Catalog *catalog)
{
	Oid			schema = find_schema();
	char	   *schema_name = get_namespace_name(schema);

	if (schema_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema of extension \"%s\" does not exist", EXTENSION_NAME),
				 errhint("Restore the schema and its objects from a backup.")));
	catalog->schema = quote_identifier(schema_name);

	catalog->chunk_result_type = find_type(schema, "chunk_result");
	catalog->status_type = find_type(schema, "upload_status");
	find_labels(schema, catalog->status_type, status_names, STATUS_COUNT,
				STATUS_COUNT, catalog->status_labels);
	find_labels(schema, find_type(schema, "chunk_outcome"), outcome_names,
				OUTCOME_COUNT, FIRST_OPTIONAL_OUTCOME,
				catalog->outcome_labels);
	if (is_1_1(catalog))
		catalog->lease_type = find_type(schema, "upload_lease");
	for (int i = 0; i < TABLE_COUNT; i++)
	{
		if (i < FIRST_OPTIONAL_TABLE || is_1_1(catalog))
			catalog->tables[i] = find_table(schema, i);
		/* one that was renamed may come back */
		if (OidIsValid(catalog->tables[i]))
			watched_tables[i] = catalog->tables[i];
	}
}

/* Are these the same objects?  If upload_status is, so are its labels. */
static bool
same_objects(const Catalog *a, const Catalog *b)
{
	return a->schema != NULL && b->schema != NULL &&
		strcmp(a->schema, b->schema) == 0 &&
		memcmp(a->tables, b->tables, sizeof(a->tables)) == 0 &&
		a->chunk_result_type == b->chunk_result_type &&
		a->lease_type == b->lease_type &&
		a->status_type == b->status_type &&
		memcmp(a->outcome_labels, b->outcome_labels,
			   sizeof(a->outcome_labels)) == 0;
}

/* Look the objects up, and cache them; false if nothing has changed. */
static bool
refresh_cache(void)
{
	Catalog		found = {0};

	find_objects(&found);
	if (same_objects(&found, &cache))
		return false;

	found.schema = MemoryContextStrdup(TopMemoryContext, found.schema);
	if (cache.schema != NULL)
		pfree(unconstify(char *, cache.schema));
	found.generation = cache.generation + 1;
	cache = found;
	return true;
}

/*
 * Return the extension's objects.  That is valid until the next call, which may
 * look them up again.
 */
const Catalog *
catalog_get(void)
{
	bool		has_changed = true;

	/* an invalidation may arrive while we look, so loop until it is stable */
	while (cache_valid_for != invalidations && has_changed)
	{
		uint64		valid_for = invalidations;

		register_callbacks();
		has_changed = refresh_cache();
		cache_valid_for = valid_for;
		CHECK_FOR_INTERRUPTS();
	}
	return &cache;
}

/* Is the installed version of the extension 1.1 or later? */
bool
has_objects_of_1_1(void)
{
	return is_1_1(catalog_get());
}

/* Does the installed version of the extension have a table? */
bool
has_table(ExtensionTable table)
{
	return OidIsValid(catalog_get()->tables[table]);
}

/* Return the name of a table; none of them needs quotes. */
const char *
table_name(ExtensionTable table)
{
	return table_names[table];
}

/*
 * Open the table that has a name once it is locked: while we wait for the lock,
 * it may be dropped, or replaced by another one.
 */
Relation
open_extension_table(ExtensionTable table, LOCKMODE lockmode)
{
	for (;;)
	{
		Oid			relid = catalog_get()->tables[table];

		if (!OidIsValid(relid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"%s\" of extension \"%s\" does not exist",
							table_names[table], EXTENSION_NAME),
					 errhint("If it was renamed, undo that.")));

		/*
		 * Once we have the lock, we know of all that was done to the table
		 * before, its being dropped included.
		 */
		LockRelationOid(relid, lockmode);
		if (catalog_get()->tables[table] == relid)
			return table_open(relid, NoLock);
		UnlockRelationOid(relid, lockmode);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Make an id of a sequence's value; false if it is too large. */
bool
id_of_value(int64 value, int64 *id)
{
	*id = value;
	return node_setting == 0 ||
		(!pg_mul_s64_overflow(value, NODE_COUNT, id) &&
		 !pg_add_s64_overflow(*id, node_setting, id));
}

/*
 * Return an id for a new row that no server with another vali_blob.node gives, or 0
 * where the default of the column is one.  As with the default, the caller needs no
 * privilege on the sequence.
 */
int64
new_row_id(ExtensionTable table)
{
	Relation	rel;
	AttrNumber	attnum;
	Oid			sequence;
	int64		id;

	if (node_setting == 0)
		return 0;

	rel = open_extension_table(table, RowExclusiveLock);
	attnum = get_attnum(RelationGetRelid(rel), "id");
	if (attnum == InvalidAttrNumber ||
		TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attidentity != ATTRIBUTE_IDENTITY_BY_DEFAULT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("vali_blob.node is %d, but column \"id\" of table \"%s\" is not GENERATED BY DEFAULT AS IDENTITY",
						node_setting, table_names[table]),
				 errhint("Use ALTER TABLE %s ALTER COLUMN id, with ADD or SET GENERATED BY DEFAULT.",
						 table_names[table])));
	sequence = identity_sequence(rel, attnum);
	table_close(rel, NoLock);

	if (!id_of_value(nextval_internal(sequence, false), &id))
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("sequence \"%s\" has passed the last value that can be multiplied by %d",
						get_rel_name(sequence), NODE_COUNT),
				 errhint("Use ALTER SEQUENCE %s RESTART.", get_rel_name(sequence))));
	return id;
}

/* What depends on our tables, and on what they use, is valid for this number. */
uint64
catalog_invalidations(void)
{
	return invalidations;
}

/* Return the label of a status. */
const char *
status_name(SessionStatus status)
{
	Assert(status < STATUS_COUNT);
	return status_names[status];
}

/* Return a status as a value of the enum. */
Datum
status_to_datum(SessionStatus status)
{
	Assert(status < STATUS_COUNT);
	return ObjectIdGetDatum(catalog_get()->status_labels[status]);
}

/* Return a value of the enum as a status. */
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

/* Return the outcome of a chunk as a value of the enum. */
Datum
outcome_to_datum(Outcome outcome)
{
	Assert(outcome < OUTCOME_COUNT);
	return ObjectIdGetDatum(catalog_get()->outcome_labels[outcome]);
}
