#!/bin/sh
# Makes what docker-compose.yml takes from files: the database password, and a certificate authority with one certificate
# an agent. What exists is kept, so it may run again after an agent has been added.
#
#   sudo deploy/make-secrets.sh [agent ...]      default: agent-a agent-b
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
# Each file is its reader's alone: uid 1000 are Temporal's images, 10001 is DWCP's (Dockerfile); PostgreSQL's reads as root. Certificates are public.
chmod 700 .
chmod 600 postgres_password ./*.key ./*.pem
if [ "$(id -u)" -eq 0 ]; then
  chown 1000 postgres_password
  chown 10001 agents-ca.pem
  for agent in "$@"; do chown 10001 "$agent.key" "$agent.pem"; done
else
  echo "run this again as root: it gives each file to the user of the container that reads it" >&2
  exit 1
fi
echo "secrets are in $(pwd); keep agents-ca.key off the hosts"
