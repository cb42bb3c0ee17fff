# server.sh: a private throw-away server, for the scripts beside it (source it).
#
#   server_find            sets pg_config, bindir, version, run_as
#   as_user COMMAND ...    runs it as the unprivileged user that servers and tests run as
#   server_start DIR [preload [SETTING]]   initdb and start in DIR (Unix socket in DIR, no TCP)
#   server_stop DIR
#   server_private DIR     builds the extension and installs it beside a copy of the server's programs in DIR;
#                          sets bindir to those: nothing of the machine's PostgreSQL is changed
#
# As root everything of a server runs as the user "postgres", which the server's package has made.

server_find() {
	pg_config=${PG_CONFIG:-$(ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -t/ -k5n | tail -1)}
	pg_config=${pg_config:-$(command -v pg_config || true)}
	[ -n "$pg_config" ] && [ -x "$pg_config" ] || { echo "no pg_config found; set PG_CONFIG" >&2; exit 1; }
	bindir=$("$pg_config" --bindir)
	version=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	if [ "$(id -u)" = 0 ]; then run_as=postgres; else run_as=$(id -un); fi
	[ "$version" -ge 15 ] || { echo "distsys needs PostgreSQL 15 or later, $pg_config is $version" >&2; exit 1; }
}

as_user() {
	if [ "$(id -un)" = "$run_as" ]; then "$@"; else runuser -u "$run_as" -- "$@"; fi
}

server_start() (
	dir=$1 preload=${2:-}
	cd "$dir"			# the user may not enter the folder that we are in
	as_user "$bindir/initdb" -D "$dir/data" -A trust -U postgres --no-sync --no-instructions >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; return 1; }
	as_user tee -a "$dir/data/postgresql.conf" >/dev/null <<-EOT
		listen_addresses = ''
		unix_socket_directories = '$dir'
		port = 5432
		max_connections = 64
		max_prepared_transactions = 10
		fsync = ${SERVER_FSYNC:-on}
		${preload:+shared_preload_libraries = 'distsys'}
		${3:-}
	EOT
	as_user "$bindir/pg_ctl" -D "$dir/data" -w -l "$dir/server.log" start >/dev/null || { tail -20 "$dir/server.log" >&2; return 1; }
)

server_stop() {
	(cd "$1" && as_user "$bindir/pg_ctl" -D "$1/data" -m immediate -w stop) >/dev/null 2>&1 || true
}

# The server finds its files relative to its program, so a copy of the programs beside links to the rest is a server of
# its own, and what is installed there does not touch the machine's.
server_private() {
	local dir=$1 share folder target
	share=$("$pg_config" --sharedir)
	mkdir -p "$dir/pg$bindir" "$dir/build"
	cp -L "$bindir"/{postgres,initdb,pg_ctl} "$dir/pg$bindir/"
	ln -s "$bindir"/pg_basebackup "$dir/pg$bindir/"
	for folder in "$("$pg_config" --pkglibdir)" "$share" "$share/extension"; do
		rm -f "$dir/pg$folder"
		mkdir -p "$dir/pg$folder"
		ln -s "$folder"/* "$dir/pg$folder/"
		rm -f "$dir/pg$folder"/distsys* "$dir/pg$folder/bitcode"
	done
	cp -R Makefile distsys.control sql src "$dir/build"
	find "$dir/build" -name '*.o' -delete
	for target in all install; do
		make -C "$dir/build" -s -j2 PG_CONFIG="$pg_config" with_llvm=no DESTDIR="$dir/pg" "$target" >"$dir/build.log" 2>&1 || { tail -30 "$dir/build.log" >&2; return 1; }
	done
	bindir=$dir/pg$bindir
}
