/*-------------------------------------------------------------------------
 *
 * grants.c
 *		Grants all that a client role needs, and revokes it.
 *
 * The commands run with the caller's privileges.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "arguments.h"
#include "catalog.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_grant_upload_access);
PG_FUNCTION_INFO_V1(vali_blob_revoke_upload_access);
PG_FUNCTION_INFO_V1(vali_blob_grant_schema_usage);
PG_FUNCTION_INFO_V1(vali_blob_copy_owner);
PG_FUNCTION_INFO_V1(vali_blob_copy_privileges);
PG_FUNCTION_INFO_V1(vali_blob_copy_row_security);

/*
 * A list of the functions for clients.  What is not named here is for
 * administrators or for monitoring.
 */
static Statement list_client_functions = {
	.text = "SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I(%s)', "
	"n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), ', ') "
	"FROM pg_catalog.pg_extension AS e "
	"JOIN pg_catalog.pg_depend AS d "
	"ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass "
	"AND d.refobjid OPERATOR(pg_catalog.=) e.oid "
	"AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass "
	"AND d.deptype OPERATOR(pg_catalog.=) 'e' "
	"JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) d.objid "
	"JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace "
	"WHERE e.extname OPERATOR(pg_catalog.=) 'vali_blob' "
	"AND p.proname OPERATOR(pg_catalog.=) ANY ('{"
	"start_upload,advance_upload,try_advance_upload,advance_uploads,"
	"declare_upload_size,merge_upload_data,complete_upload,abort_upload,"
	"get_upload,get_uploads,list_uploads,delete_upload,sweep_uploads,"
	"claim_reclaims,finish_reclaim,fail_reclaim,"
	"list_parts,missing_ranges,"
	"acquire_upload_lease,renew_upload_lease,release_upload_lease,upload_usage,"
	"concatenate_uploads}'::pg_catalog.name[])",
};

/* Grant or revoke all that a client role needs. */
static void
change_access(FunctionCallInfo fcinfo, const char *verb, const char *preposition)
{
	const char *role;
	StringInfoData tables;
	const char *functions;

	check_unknown_arguments(fcinfo, 1);
	require_not_null(fcinfo, 0, "role", "Pass the name of a role.");
	/* GRANT would take the name "public" for everybody */
	(void) get_role_oid(NameStr(*PG_GETARG_NAME(0)), false);
	role = quote_identifier(NameStr(*PG_GETARG_NAME(0)));
	initStringInfo(&tables);
	for (int i = 0; i < CLIENT_TABLE_COUNT; i++)
	{
		if (has_table(i))
			appendStringInfo(&tables, "%s%s.%s", i > 0 ? ", " : "",
							 catalog_get()->schema, table_name(i));
	}

	spi_open();
	spi_utility(psprintf("%s USAGE ON SCHEMA %s %s %s", verb,
						 catalog_get()->schema, preposition, role));
	spi_utility(psprintf("%s SELECT, INSERT, UPDATE, DELETE ON TABLE %s %s %s",
						 verb, tables.data, preposition, role));
	statement_run(&list_client_functions, NULL, NULL, false);
	functions = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	spi_utility(psprintf("%s EXECUTE ON FUNCTION %s %s %s", verb, functions,
						 preposition, role));
	spi_close();
}

/* grant_upload_access(role) */
Datum
vali_blob_grant_upload_access(PG_FUNCTION_ARGS)
{
	change_access(fcinfo, "GRANT", "TO");
	PG_RETURN_VOID();
}

/* revoke_upload_access(role) */
Datum
vali_blob_revoke_upload_access(PG_FUNCTION_ARGS)
{
	change_access(fcinfo, "REVOKE", "FROM");
	PG_RETURN_VOID();
}

/* Called by the installation script: let pg_monitor use the schema. */
Datum
vali_blob_grant_schema_usage(FunctionCallInfo fcinfo pg_attribute_unused())
{
	spi_open();
	spi_utility(psprintf("GRANT USAGE ON SCHEMA %s TO pg_monitor",
						 catalog_get()->schema));
	spi_close();
	PG_RETURN_VOID();
}

/* An object's owner and privileges */
typedef struct Access
{
	Oid			owner;
	Acl		   *acl;			/* NULL: null, the default */
} Access;

/* Return the owner and the privileges of an object. */
static Access
get_access(const ObjectAddress *object)
{
	int			cache = get_object_catcache_oid(object->classId);
	HeapTuple	tuple = SearchSysCacheCopy1(cache, ObjectIdGetDatum(object->objectId));
	Access		access = {0};
	Datum		acl;
	bool		is_null;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for object %u", object->objectId);
	access.owner =
		DatumGetObjectId(SysCacheGetAttr(cache, tuple,
										 get_object_attnum_owner(object->classId),
										 &is_null));
	acl = SysCacheGetAttr(cache, tuple, get_object_attnum_acl(object->classId),
						  &is_null);
	if (!is_null)
		access.acl = DatumGetAclPCopy(acl);
	return access;
}

/*
 * Give an object these privileges.  GRANT would record them as what the extension
 * grants by itself, which pg_dump leaves out.
 */
static void
set_acl(const ObjectAddress *object, const Access *old, const Access *new)
{
	Relation	rel = table_open(object->classId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(get_object_catcache_oid(object->classId),
											ObjectIdGetDatum(object->objectId));
	int			attnum = get_object_attnum_acl(object->classId);
	Datum		value = PointerGetDatum(new->acl);
	bool		is_null = new->acl == NULL;
	Oid		   *old_members;
	Oid		   *new_members;
	int			old_count = aclmembers(old->acl, &old_members);
	int			new_count = aclmembers(new->acl, &new_members);

	tuple = heap_modify_tuple_by_cols(tuple, RelationGetDescr(rel), 1, &attnum,
									  &value, &is_null);
	CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	InvokeObjectPostAlterHook(object->classId, object->objectId, 0);
	updateAclDependencies(object->classId, object->objectId, 0, new->owner,
						  old_count, old_members, new_count, new_members);
	table_close(rel, RowExclusiveLock);
}

/* Give an object an owner. */
static void
set_owner(const ObjectAddress *object, Oid owner)
{
	spi_open();
	spi_utility(psprintf("ALTER %s %s OWNER TO %s",
						 getObjectTypeDescription(object, false),
						 getObjectIdentity(object, false),
						 quote_identifier(GetUserNameFromId(owner, false))));
	spi_close();
}

/*
 * copy_owner(catalog, source, target), called by update scripts: give an object the
 * owner of another one.
 */
Datum
vali_blob_copy_owner(PG_FUNCTION_ARGS)
{
	ObjectAddress source;
	ObjectAddress target;

	ObjectAddressSet(source, PG_GETARG_OID(0), PG_GETARG_OID(1));
	ObjectAddressSet(target, PG_GETARG_OID(0), PG_GETARG_OID(2));
	set_owner(&target, get_access(&source).owner);
	PG_RETURN_VOID();
}

/*
 * copy_privileges(catalog, source, target), called by update scripts: give an
 * object the owner of another one, and the privileges that it has.
 */
Datum
vali_blob_copy_privileges(PG_FUNCTION_ARGS)
{
	ObjectAddress source;
	ObjectAddress target;
	Access		wanted;
	Access		present;

	ObjectAddressSet(source, PG_GETARG_OID(0), PG_GETARG_OID(1));
	ObjectAddressSet(target, PG_GETARG_OID(0), PG_GETARG_OID(2));
	wanted = get_access(&source);
	set_owner(&target, wanted.owner);
	present = get_access(&target);
	set_acl(&target, &present, &wanted);
	/* another command may change the same object */
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/*
 * A role sees the parts of the sessions that it sees, and writes those of the
 * sessions that it may change: FOR UPDATE applies the policies for that.
 */
#define SESSION_OF_PART(lock) \
	"(EXISTS (SELECT FROM @.upload_session AS s " \
	"WHERE s.upload_id OPERATOR(pg_catalog.=) upload_part.upload_id" lock "))"

static const char *const part_policies[] = {
	"CREATE POLICY upload_part_select ON @.upload_part FOR SELECT USING "
	SESSION_OF_PART(""),
	"CREATE POLICY upload_part_insert ON @.upload_part FOR INSERT WITH CHECK "
	SESSION_OF_PART(" FOR UPDATE"),
	"CREATE POLICY upload_part_update ON @.upload_part FOR UPDATE USING "
	SESSION_OF_PART(" FOR UPDATE"),
	"CREATE POLICY upload_part_delete ON @.upload_part FOR DELETE USING "
	SESSION_OF_PART(" FOR UPDATE"),
};

/*
 * copy_row_security(), called by an update script: if policies restrict which
 * sessions a role sees or changes, restrict their parts alike.
 */
Datum
vali_blob_copy_row_security(FunctionCallInfo fcinfo pg_attribute_unused())
{
	Relation	sessions = open_extension_table(TABLE_SESSION, AccessShareLock);
	bool		is_enabled = sessions->rd_rel->relrowsecurity;
	bool		is_forced = sessions->rd_rel->relforcerowsecurity;
	const char *schema = catalog_get()->schema;

	table_close(sessions, NoLock);
	if (!is_enabled)
		PG_RETURN_VOID();
	spi_open();
	spi_utility(expand_schema("ALTER TABLE @.upload_part ENABLE ROW LEVEL SECURITY",
							  schema));
	if (is_forced)
		spi_utility(expand_schema("ALTER TABLE @.upload_part FORCE ROW LEVEL SECURITY",
								  schema));
	for (int i = 0; i < (int) lengthof(part_policies); i++)
		spi_utility(expand_schema(part_policies[i], schema));
	spi_close();
	PG_RETURN_VOID();
}
