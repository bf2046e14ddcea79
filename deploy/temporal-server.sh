#!/bin/sh
# The Temporal server with its database password from a file; all else is the environment of docker-compose.yml.
set -eu

POSTGRES_PWD="$(cat "$POSTGRES_PASSWORD_FILE")"
export POSTGRES_PWD
exec temporal-server start
