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

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "arguments.h"
#include "catalog.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_grant_upload_access);
PG_FUNCTION_INFO_V1(vali_blob_revoke_upload_access);
PG_FUNCTION_INFO_V1(vali_blob_grant_schema_usage);

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
	"claim_reclaims,finish_reclaim,fail_reclaim}'::pg_catalog.name[])",
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
	for (int i = 0; i < TABLE_COUNT; i++)
		appendStringInfo(&tables, "%s%s.%s", i > 0 ? ", " : "",
						 catalog_get()->schema, table_name(i));

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
