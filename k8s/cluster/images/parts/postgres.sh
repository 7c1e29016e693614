# What the official image of Postgres does at its start, as far as the chart's `trial` uses it:
# PGDATA is made once, by POSTGRES_PASSWORD and the scripts of /docker-entrypoint-initdb.d.
set -eu
programs=/opt/parts/postgres
if [ ! -s "$PGDATA/made" ]; then
    rm -rf "$PGDATA"
    echo "$POSTGRES_PASSWORD" > /tmp/password
    "$programs/initdb" -D "$PGDATA" -U postgres --pwfile=/tmp/password --encoding=UTF8 --locale=C \
        --auth-host=scram-sha-256 --auth-local=trust
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    # -j: a command ends with a semicolon and an empty line
    for script in /docker-entrypoint-initdb.d/*.sql; do
        "$programs/postgres" --single -j -D "$PGDATA" postgres < "$script"
    done
    echo yes > "$PGDATA/made"
fi
exec "$programs/postgres" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
