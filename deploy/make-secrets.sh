#!/bin/sh
# Makes what docker-compose.yml takes from files: the database password, and a certificate authority with one certificate
# an agent. What exists is kept, so it may run again after an agent has been added.
#
#   deploy/make-secrets.sh [agent ...]      default: agent-a agent-b
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

[ -s postgres_password ] || openssl rand -hex 24 >postgres_password
if [ ! -s agents-ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=DWCP agents" \
    -keyout agents-ca.key -out agents-ca.pem 2>/dev/null
fi
[ $# -gt 0 ] || set -- agent-a agent-b
for agent in "$@"; do
  [ ! -s "$agent.pem" ] || continue
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$agent" -keyout "$agent.key" -out "$agent.csr" 2>/dev/null
  openssl x509 -req -in "$agent.csr" -CA agents-ca.pem -CAkey agents-ca.key -CAcreateserial -days 825 -out "$agent.pem" 2>/dev/null
  rm "$agent.csr"
done
# The containers run as another user than the one who made the files; the folder keeps others out.
chmod 755 .
chmod 644 postgres_password agents-ca.pem ./*.pem
for agent in "$@"; do chmod 644 "$agent.key"; done
echo "secrets are in $(pwd); keep agents-ca.key off the hosts"
