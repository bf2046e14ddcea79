#!/bin/sh
# Brings both databases of the Temporal server to the schema of this release. Runs before the server, every time: what
# is there already is left as it is.
set -eu

export SQL_PLUGIN="$DB" SQL_HOST="$POSTGRES_SEEDS" SQL_PORT="$DB_PORT" SQL_USER="$POSTGRES_USER"
SQL_PASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
export SQL_PASSWORD

prepare() {
  database="$1" schema="postgresql/v12/$2"
  temporal-sql-tool --plugin "$SQL_PLUGIN" --db "$database" create-database --defaultdb postgres
  # Fails where versioning has been set up before, which is what a second start finds.
  if ! temporal-sql-tool --plugin "$SQL_PLUGIN" --db "$database" update-schema --schema-name "$schema" 2>/dev/null; then
    temporal-sql-tool --plugin "$SQL_PLUGIN" --db "$database" setup-schema --version 0.0
    temporal-sql-tool --plugin "$SQL_PLUGIN" --db "$database" update-schema --schema-name "$schema"
  fi
  echo "$database is at the schema of this release"
}

prepare "${DBNAME:-temporal}" temporal
prepare "${VISIBILITY_DBNAME:-temporal_visibility}" visibility
