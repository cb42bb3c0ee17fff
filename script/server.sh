# server.sh: a private throw-away server, for the scripts beside it (source it).
#
#   server_find            sets pg_config, bindir, version, run_as
#   as_user COMMAND ...    runs it as the unprivileged user that servers and tests run as
#   server_start DIR [preload [SETTING]]   initdb and start in DIR (Unix socket in DIR, no TCP)
#   server_stop DIR
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
