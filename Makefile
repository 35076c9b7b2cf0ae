# vali_blob: a session store for resumable uploads

EXTENSION = vali_blob
srcdir = $(or $(VPATH),.)
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/vali_blob.control)
DISTVERSION = $(shell sed -n '/"version"/ { s/.*: "\(.*\)".*/\1/p; q }' $(srcdir)/META.json)

MODULE_big = vali_blob
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c)))
# What is run by hand is installed with the documentation, or beside the extension's scripts.
DOCS = doc/vali_blob.md doc/administration.md \
	$(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/monitoring/* $(srcdir)/contrib/*.sh))
PGFILEDESC = "vali_blob - session store for resumable uploads"
PG_CPPFLAGS = -DVALI_BLOB_VERSION='"$(EXTVERSION)"'

# The script of a released version never changes; a later version is an update of it.
# contrib has scripts that are run by hand, in databases that need them.
DATA = $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/*.sql $(srcdir)/contrib/*.sql))
EXTRA_CLEAN = results regression.diffs regression.out \
	output_iso tmp_check tmp_check_iso log bench/__pycache__ demo/__pycache__

# What installcheck runs; each can be set to some of them, or to nothing.
REGRESS = $(sort $(patsubst $(srcdir)/test/sql/%.sql,%,$(wildcard $(srcdir)/test/sql/*.sql)))
ISOLATION = $(sort $(patsubst $(srcdir)/test/specs/%.spec,%,$(wildcard $(srcdir)/test/specs/*.spec)))
PGTAP_TESTS = $(sort $(wildcard $(srcdir)/test/pgtap/*.sql))
TAP_TESTS = $(sort $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/test/t/*.pl)))
NO_INSTALLCHECK = 1 # we have our own

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

ifneq (,$(filter 9.% 10 11 12 13 14, $(MAJORVERSION)))
$(error vali_blob needs PostgreSQL 15 or later, and $(PG_CONFIG) is of $(MAJORVERSION). Name another: \
	make PG_CONFIG=/usr/lib/postgresql/N/bin/pg_config)
endif

# Keep our names out of the way of other libraries', and theirs out of ours.
ifeq ($(PORTNAME), linux)
SHLIB_LINK += -Wl,--version-script=$(srcdir)/src/vali_blob.exports
endif

$(OBJS): $(wildcard $(srcdir)/src/*.h)

# PGXS installs documentation without its folder, but would remove it with it.
uninstall: uninstall-docs
uninstall-docs:
	rm -f $(addprefix '$(DESTDIR)$(docdir)/$(docmoduledir)'/, $(notdir $(DOCS)))

# The tests, against the server that is running.  Their databases are UTF8 and C,
# whatever is the server's default.  What they leave is removed if they pass.
PG_PROVE ?= pg_prove
PROVE ?= prove
test_opts = --inputdir=$(srcdir)/test --outputdir=. --load-extension=$(EXTENSION) \
	--encoding=UTF8 --no-locale
test_dbs = contrib_regression isolation_regression pgtap_regression

installcheck:
	$(if $(TAP_TESTS),@$(refuse_root))
	$(if $(REGRESS),$(pg_regress_installcheck) $(test_opts) --dbname=contrib_regression \
		$(REGRESS_OPTS) $(REGRESS))
	$(if $(ISOLATION),$(pg_isolation_regress_installcheck) $(test_opts) --dbname=isolation_regression \
		$(ISOLATION_OPTS) $(ISOLATION))
	$(if $(PGTAP_TESTS),$(pgtap_installcheck))
	$(if $(TAP_TESTS),$(tap_installcheck))
	$(foreach db,$(if $(REGRESS)$(ISOLATION)$(PGTAP_TESTS),$(test_dbs)),'$(bindir)/dropdb' --if-exists $(db) 2>/dev/null;)
	rm -rf results regression.diffs regression.out output_iso tmp_check log

define pgtap_installcheck
'$(bindir)/dropdb' --if-exists pgtap_regression 2>/dev/null && \
'$(bindir)/createdb' --template=template0 --encoding=UTF8 --locale=C pgtap_regression && \
$(PG_PROVE) --psql-bin='$(bindir)/psql' --dbname pgtap_regression $(PROVE_FLAGS) $(PGTAP_TESTS)
endef

# The TAP tests start servers of their own.
define refuse_root
test "$$(id -u)" -ne 0 || { echo 'The TAP tests cannot run as root.' \
	'Run "make installcheck" as another user, or with "TAP_TESTS=".' >&2; exit 1; }
endef

define tap_installcheck
rm -rf tmp_check && \
cd $(srcdir) && \
TESTDIR='$(CURDIR)' TESTLOGDIR='$(CURDIR)/tmp_check/log' TESTDATADIR='$(CURDIR)/tmp_check' \
	PATH="$(bindir):$$PATH" PGPORT='6$(DEF_PGPORT)' \
	PG_REGRESS='$(top_builddir)/src/test/regress/pg_regress' \
	$(PROVE) $(PG_PROVE_FLAGS) $(PROVE_FLAGS) $(TAP_TESTS)
endef

# A build in a folder of its own (VPATH).  Names with a folder in front are not
# searched for among the sources.
ifneq ($(realpath $(srcdir)), $(CURDIR))
ifneq (,$(wildcard $(srcdir)/src/*.o))
$(error $(srcdir) has been built in; run "make clean" there first)
endif

$(OBJS) $(OBJS:.o=.bc): | $(CURDIR)/src
$(CURDIR)/src:
	mkdir $@

installcheck: $(CURDIR)/expected
$(CURDIR)/expected:
	ln -s $(realpath $(srcdir))/expected $@

clean: clean-vpath
clean-vpath:
	rm -f expected
endif

# The source distribution for PGXN.  The control file has the version of the SQL
# objects; a release may add a number to it.
dist:
	$(if $(filter $(EXTVERSION) $(EXTVERSION).%, $(DISTVERSION)),, $(error \
		META.json has version $(DISTVERSION), vali_blob.control $(EXTVERSION)))
	mkdir -p dist
	git -C $(srcdir) archive --format zip --prefix=$(EXTENSION)-$(DISTVERSION)/ \
		--output $(CURDIR)/dist/$(EXTENSION)-$(DISTVERSION).zip HEAD

distclean: distclean-dist
distclean-dist:
	rm -rf dist

.PHONY: installcheck uninstall-docs clean-vpath dist distclean-dist
