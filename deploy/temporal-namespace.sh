#!/bin/sh
# Makes the namespace, with 30 days to look at closed migrations. Waits for a server that has only just come up.
set -eu

TEMPORAL_API_KEY="$(cat "$TEMPORAL_API_KEY_FILE")"
export TEMPORAL_API_KEY
tries=0
until temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; do
  temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention 720h --description "VM migrations" || true
  tries=$((tries + 1))
  if [ "$tries" -ge 60 ]; then
    echo "namespace $TEMPORAL_NAMESPACE could not be made at $TEMPORAL_ADDRESS in $tries tries" >&2
    exit 1
  fi
  sleep 2
done
echo "namespace $TEMPORAL_NAMESPACE is there"
