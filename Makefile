# vali_blob: a session store for resumable uploads

EXTENSION = vali_blob
srcdir = $(or $(VPATH),.)
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/vali_blob.control)

MODULE_big = vali_blob
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c)))
DOCS = doc/vali_blob.md
PGFILEDESC = "vali_blob - session store for resumable uploads"
PG_CPPFLAGS = -DVALI_BLOB_VERSION='"$(EXTVERSION)"'

DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA = $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/*--*--*.sql))
EXTRA_CLEAN = $(DATA_built) results regression.diffs regression.out \
	output_iso tmp_check tmp_check_iso log

REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --load-extension=$(EXTENSION) \
	--temp-instance=tmp_check --encoding=UTF8 --no-locale
ISOLATION = $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --load-extension=$(EXTENSION) \
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

# The source distribution for PGXN
dist:
	mkdir -p dist
	git archive --format zip --prefix=$(EXTENSION)-$(EXTVERSION)/ \
		--output dist/$(EXTENSION)-$(EXTVERSION).zip HEAD

.PHONY: dist
