# vali_blob: a session store for resumable uploads

EXTENSION = vali_blob
srcdir = $(or $(VPATH),.)
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/vali_blob.control)
DISTVERSION = $(shell sed -n '/"version"/ { s/.*: "\(.*\)".*/\1/p; q }' $(srcdir)/META.json)

MODULE_big = vali_blob
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c)))
DOCS = doc/vali_blob.md
PGFILEDESC = "vali_blob - session store for resumable uploads"
PG_CPPFLAGS = -DVALI_BLOB_VERSION='"$(EXTVERSION)"'

DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA = $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/*--*--*.sql))
EXTRA_CLEAN = $(DATA_built) results regression.diffs regression.out \
	output_iso tmp_check tmp_check_iso log bench/__pycache__ demo/__pycache__

REGRESS = $(sort $(patsubst $(srcdir)/test/sql/%.sql,%,$(wildcard $(srcdir)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir)/test --load-extension=$(EXTENSION) \
	--temp-instance=tmp_check --encoding=UTF8 --no-locale
ISOLATION = $(sort $(patsubst $(srcdir)/test/specs/%.spec,%,$(wildcard $(srcdir)/test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test --load-extension=$(EXTENSION) \
	--outputdir=. --temp-instance=tmp_check_iso --encoding=UTF8 --no-locale

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Keep our names out of the way of other libraries', and theirs out of ours.
ifeq ($(PORTNAME), linux)
SHLIB_LINK += -Wl,--version-script=$(srcdir)/src/vali_blob.exports
endif

$(OBJS): $(wildcard $(srcdir)/src/*.h)

sql/$(EXTENSION)--$(EXTVERSION).sql: sql/$(EXTENSION).sql
	@mkdir -p sql
	cp $< $@

# PGXS installs documentation without its folder, but would remove it with it.
uninstall: uninstall-docs
uninstall-docs:
	rm -f $(addprefix '$(DESTDIR)$(docdir)/$(docmoduledir)'/, $(notdir $(DOCS)))

# The servers that the tests start for themselves do not run as root.
installcheck: ordinary-user
ordinary-user:
ifneq (,$(findstring --temp-instance, $(REGRESS_OPTS) $(ISOLATION_OPTS)))
	@test "$$(id -u)" -ne 0 || { \
		echo '"make installcheck" starts a server, so it cannot run as root.' \
			'Run it as another user, or run "test/run".' >&2; \
		exit 1; }
endif

# A build in a folder of its own (VPATH).  Names with a folder in front are not
# searched for among the sources.
ifneq ($(realpath $(srcdir)), $(CURDIR))
ifneq (,$(wildcard $(srcdir)/src/*.o $(srcdir)/$(DATA_built)))
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

.PHONY: uninstall-docs ordinary-user clean-vpath dist distclean-dist
