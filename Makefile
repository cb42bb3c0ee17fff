# distsys: PGXS build. The version lives in distsys.control and nowhere else.
EXTENSION = distsys
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" distsys.control)

MODULE_big = distsys
FLOORS = core store algo lock idempotency ratelimit outbox worker
OBJS = src/distsys.o $(patsubst %.c,%.o,$(sort $(foreach d,$(FLOORS),$(wildcard src/$(d)/*.c))))

# The SQL face, one file per domain, in the order in which one may refer to the other.
SQL_PARTS = $(wildcard $(patsubst %,sql/%.sql,header core lock idempotency ratelimit outbox worker access))
DATA_built = distsys--$(EXTVERSION).sql
DATA = $(wildcard sql/upgrade/distsys--*--*.sql)

PG_CPPFLAGS = -I$(srcdir)/src -DDISTSYS_VERSION='"$(EXTVERSION)"'
# Only entry points are exported. 15 has no definition of PGDLLEXPORT for ELF; later servers have this one.
PG_CPPFLAGS += '-DPGDLLEXPORT=__attribute__((visibility("default")))'
PG_CFLAGS = -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
# 15 finds expected/ below the output directory; later servers below the current one.
REGRESS_OPTS = --inputdir=test --outputdir=. --load-extension=distsys
ISOLATION = $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=distsys

EXTRA_CLEAN = distsys--$(EXTVERSION).sql META.json $(patsubst %.c,%,$(wildcard test/unit/*_test.c)) output_iso tmp_check build

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

distsys--$(EXTVERSION).sql: $(SQL_PARTS) distsys.control
	cat $(SQL_PARTS) > $@

META.json: META.json.in distsys.control
	sed 's/@VERSION@/$(EXTVERSION)/g' $< > $@

# Every object depends on every header: the house is small enough for a full rebuild.
$(OBJS): $(wildcard src/*.h src/*/*.h)

.PHONY: lint
lint: all
	PG_CONFIG=$(PG_CONFIG) script/lint

# build/postgresql-NN-distsys_VERSION_ARCH.deb
.PHONY: deb
deb: all
	PG_CONFIG=$(PG_CONFIG) script/deb
