#!/bin/bash
# Certificates of the local mesh: a CA that exists for the length of this script, and one SPIFFE identity per workload.
# Runs once, before the Envoys (docker-compose.yml, service `certs`). In production this is SPIRE's or Istio's work.
set -euo pipefail
umask 077
OUT=${1:-/certs}
DOMAIN=mesh.local

if [[ -s $OUT/edge/tls.pem && -s $OUT/orders/tls.pem && -s $OUT/inventory/tls.pem ]] &&
  openssl x509 -checkend 86400 -noout -in "$OUT/edge/tls.pem" >/dev/null; then
  echo "certificates are there and good for a day: kept"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/O=Countersign local mesh" \
  -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
  -keyout "$work/ca-key.pem" -out "$work/ca.pem" 2>/dev/null

for workload in edge:edge orders:shop inventory:shop; do
  name=${workload%%:*} namespace=${workload##*:}
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/" -keyout "$work/key.pem" -out "$work/csr.pem" 2>/dev/null
  printf '%s\n' "subjectAltName=critical,URI:spiffe://$DOMAIN/ns/$namespace/sa/$name,DNS:$name" \
    "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" "extendedKeyUsage=serverAuth,clientAuth" >"$work/ext"
  openssl x509 -req -in "$work/csr.pem" -CA "$work/ca.pem" -CAkey "$work/ca-key.pem" -CAcreateserial -days 30 \
    -extfile "$work/ext" -out "$work/tls.pem" 2>/dev/null
  # The key of each goes to its own folder, which only its own Envoy sees; tls.pem last, as the sign that all is there.
  cp "$work/ca.pem" "$OUT/$name/ca.pem"
  cp "$work/key.pem" "$OUT/$name/key.pem"
  cp "$work/tls.pem" "$OUT/$name/tls.pem"
  echo "$name: spiffe://$DOMAIN/ns/$namespace/sa/$name"
done
