#!/bin/sh
# Makes what docker-compose.yml takes from files: passwords, certificates and tokens. What exists is kept, so it may run again
# after an agent has been added; certificates and tokens with less than two months left are made anew, so run it now and then.
#
#   sudo deploy/make-secrets.sh [agent ...]      default: agent-a agent-b; an agent's name is its host id
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

certificate_days=825
token_days=365
renew_ahead_days=60

random() { [ -s "$1" ] || openssl rand -hex "$2" >"$1"; }

authority() { # file, name
  [ ! -s "$1.key" ] || return 0
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$2" -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

certificate() { # file, authority, name, extensions as openssl.cnf has them
  if [ -s "$1.pem" ] && openssl x509 -noout -checkend $((renew_ahead_days * 86400)) -in "$1.pem" >/dev/null; then return 0; fi
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  printf '%b\n' "$4" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days "$certificate_days" -extfile "$1.ext" -out "$1.pem" 2>/dev/null
  rm "$1.csr" "$1.ext"
}

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# What the server checks tokens with. The last bytes of the public key are its modulus (384 bytes) and exponent (65537).
signing_key() {
  [ -s jwt.key ] || openssl genrsa -out jwt.key 3072 2>/dev/null
  modulus="$(openssl rsa -in jwt.key -pubout -outform DER 2>/dev/null | tail -c 389 | head -c 384 | base64url)"
  kid="$(printf %s "$modulus" | openssl dgst -sha256 -r | cut -c1-16)"
  key="{\"kty\":\"RSA\",\"alg\":\"RS256\",\"use\":\"sig\",\"kid\":\"$kid\",\"n\":\"$modulus\",\"e\":\"AQAB\"}"
  printf '{"keys":[%s]}\n' "$key" >jwks.json
}

# A token tells Temporal's default authorizer who somebody is, and what in which namespace that one may.
token() { # name, permissions as JSON
  if [ -s "token-$1" ] && [ "token-$1" -nt jwt.key ] && [ -z "$(find "token-$1" -mtime +$((token_days - renew_ahead_days)))" ]; then return 0; fi
  now="$(date +%s)"
  head="$(printf '{"alg":"RS256","typ":"JWT","kid":"%s"}' "$kid" | base64url)"
  body="$(printf '{"sub":"%s","permissions":%s,"iat":%s,"exp":%s}' "$1" "$2" "$now" $((now + token_days * 86400)) | base64url)"
  printf '%s.%s.%s\n' "$head" "$body" "$(printf %s "$head.$body" | openssl dgst -sha256 -sign jwt.key -binary | base64url)" >"token-$1"
}

# By what hosts know the control plane, and it its operators (docs/security.md). Agents get the public half alone.
trust() {
  mkdir -p trust/hosts trust/revoked trust/operators trust-of-agents/hosts trust-of-agents/revoked
  for name in control operator; do
    [ -s "trust/$name.key" ] || openssl genpkey -algorithm ed25519 -out "trust/$name.key"
  done
  openssl pkey -in trust/control.key -pubout -out trust/control.pub
  openssl pkey -in trust/operator.key -pubout -out trust/operators/local.pub
  cp trust/control.pub trust-of-agents/control.pub
}

[ $# -gt 0 ] || set -- agent-a agent-b
trust
random postgres_password 24
random payload_keys 32
random codec_token 24
random ui_password 12
authority agents-ca "DWCP agents"
# Of the server's own parts one authority, of its clients another: a client's certificate opens none of the server's inner ports.
authority temporal-ca "DWCP Temporal"
authority clients-ca "DWCP Temporal clients"
certificate temporal temporal-ca temporal 'subjectAltName=DNS:temporal,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth'
signing_key
for client in setup control operator "$@"; do
  certificate "client-$client" clients-ca "$client" 'extendedKeyUsage=clientAuth'
done
for agent in "$@"; do certificate "$agent" agents-ca "$agent" "subjectAltName=DNS:$agent,URI:spiffe://dwcp/host/$agent\nextendedKeyUsage=serverAuth,clientAuth"; done
token setup '["dwcp:admin"]'
token control '["dwcp:admin"]'
token operator '["dwcp:write","temporal-system:read"]'
for agent in "$@"; do token "$agent" '["dwcp:write"]'; done
# The authority of the server, for readers of either user.
cp temporal-ca.pem temporal-ca-of-dwcp.pem

# Each file is its reader's alone: uid 1000 are Temporal's images, 10001 is DWCP's (Dockerfile); PostgreSQL's reads as root.
find . -type d -exec chmod 700 {} +
find . -type f -exec chmod 600 {} +
if [ "$(id -u)" -eq 0 ]; then
  chown 1000 postgres_password temporal.pem temporal.key temporal-ca.pem clients-ca.pem
  chown 1000 client-setup.pem client-setup.key token-setup client-operator.pem client-operator.key
  chown -R 10001 trust trust-of-agents
  chown 10001 agents-ca.pem temporal-ca-of-dwcp.pem jwks.json payload_keys codec_token ui_password
  chown 10001 client-control.pem client-control.key token-control token-operator
  for agent in "$@"; do chown 10001 "$agent.key" "$agent.pem" "client-$agent.key" "client-$agent.pem" "token-$agent"; done
else
  echo "run this again as root: it gives each file to the user of the container that reads it" >&2
  exit 1
fi
echo "secrets are in $(pwd); keep agents-ca.key, temporal-ca.key, clients-ca.key, jwt.key and trust/ off the hosts"
