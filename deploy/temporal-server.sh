#!/bin/sh
# The Temporal server with its database password from a file; all else is the environment of docker-compose.yml.
set -eu

POSTGRES_PWD="$(cat "$POSTGRES_PASSWORD_FILE")"
: "${BIND_ON_IP:=$(getent hosts "$(hostname)" | awk '{print $1; exit}')}"
export POSTGRES_PWD BIND_ON_IP
exec temporal-server start
