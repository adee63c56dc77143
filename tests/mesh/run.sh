#!/usr/bin/env bash
# Brings the local mesh up with the very docker-compose.yml of this repository, sends requests through it, prints who
# reached whom with which verdict, and takes it down again.
#
#   tests/mesh/run.sh                    last line: N passed, M failed
#   KEEP=1 tests/mesh/run.sh             leaves the mesh running afterwards
#
# Needs a Docker engine and docker compose (or docker-compose 1.29), root for the base system, and a built binary
# (COUNTERSIGN_BINARY, target/release or target/debug). Base images: the public ones where they are, else stand-ins
# (tests/mesh/images.sh). Its own project name and free ports: a mesh that somebody runs by hand is left alone.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
PROJECT=countersign-mesh-test
PASSED=0
FAILED=0
ROWS=()

if docker compose version >/dev/null 2>&1; then COMPOSE=(docker compose -p "$PROJECT"); else COMPOSE=(docker-compose -p "$PROJECT"); fi
docker info >/dev/null 2>&1 || { echo "mesh: no Docker engine answers" >&2; exit 1; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
MESH_PORT=$(free_port)
MESH_ISSUER_PORT=$(free_port)
export MESH_PORT MESH_ISSUER_PORT
EDGE=http://127.0.0.1:$MESH_PORT
ISSUER=http://127.0.0.1:$MESH_ISSUER_PORT
CORE=(certs redis issuer countersign-1 countersign-2 edge orders-envoy orders inventory-envoy inventory)

compose() { "${COMPOSE[@]}" "$@" 2>&1 </dev/null; }
down() {
  if [[ -n ${KEEP:-} ]]; then echo "mesh: left running on port $MESH_PORT, issuer on $MESH_ISSUER_PORT (${COMPOSE[*]} down -v ends it)"; return; fi
  compose down -v --remove-orphans >/dev/null || true
}
container() { docker ps -q --filter "label=com.docker.compose.project=$PROJECT" --filter "label=com.docker.compose.service=$1"; }
health() { docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' "$(container "$1")" 2>/dev/null || echo missing; }

# ---- up -------------------------------------------------------------------------------------------------------------
echo "mesh: images"
mkdir -p .tools/mesh
status=0
tests/mesh/images.sh >.tools/mesh/images.log 2>&1 </dev/null || status=$?
grep '^mesh:' .tools/mesh/images.log || true
# 2: the public images are here, and are used. Anything else: stop, rather than try yesterday's binary.
((status == 0 || status == 2)) || exit 1
# As on a machine that never saw it: what is built must be built by `up` itself.
trap down EXIT
docker image rm -f countersign:local countersign-certs:local >/dev/null 2>&1 || true
echo "mesh: up (builds: minutes on a slow storage driver, once)"
compose up -d "${CORE[@]}" >"$ROOT/.tools/mesh/up.log" || { tail -n 5 "$ROOT/.tools/mesh/up.log"; echo "mesh: it does not come up" >&2; }
for _ in $(seq 90); do
  waiting=()
  for service in "${CORE[@]}"; do
    if [[ $service != certs && $(health "$service") != healthy ]]; then waiting+=("$service"); fi
  done
  if ((${#waiting[@]} == 0)); then break; fi
  sleep 1
done

# ---- asking ----------------------------------------------------------------------------------------------------------
# One row: from, to, what, what is expected, what came.
row() {
  local verdict=ok
  if [[ $4 == "$5" ]]; then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); verdict=FAILED; fi
  ROWS+=("$(printf '%-13s %-13s %-58s %-24s %s' "$1" "$2" "$3" "$5" "$verdict$([[ $4 == "$5" ]] || echo ", expected $4")")")
}
# Status, then the reason of a refusal or the name of the service that answered.
said() {
  local answer status
  answer=$(cat)
  status=$(head -n 1 <<<"$answer" | cut -d' ' -f2)
  printf '%s %s' "${status:-none}" "$(sed -n -e 's/^ *"name": "\([a-z]*\)".*/\1/p' -e 's/.*"reason":"\([a-z_]*\)".*/\1/p' -e 's/^RBAC: access denied$/rbac/p' <<<"$answer" | head -n 1)"
}
# Of a warm mesh: the very first questions find cold caches and a busy machine.
get() { curl -s -i --max-time 5 --path-as-is "$@" | tr -d '\r' | said; }
# From within the network of a service, by a container that has what it takes: the public Envoy image has no curl.
inside() {
  local who=$1; shift
  docker run -i --rm --network "container:$(container "$who")" --user 65532:65532 -v "${PROJECT}_certs-inventory:/certs:ro" \
    --entrypoint /bin/bash countersign-certs:local -s -- "$@" <tests/mesh/ask.sh 2>/dev/null | tr -d '\r' | said
}
token() {
  curl -s --max-time 5 -X POST "$ISSUER/token" -H 'content-type: application/json' -d "{\"claims\":$1}" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'
}
redis() { docker exec "$(container redis)" redis-cli --no-auth-warning --user countersign --pass local-mesh-only "$@"; }
bearer() { printf 'authorization: Bearer %s' "$1"; }

row "" "" "every core service becomes healthy" "" "${waiting[*]}"
clerk=$(token '{"roles":["clerk"]}')
nobody=$(token '{"sub":"mallory","roles":[]}')
for _ in $(seq 20); do [[ $(get "$EDGE/orders" -H "$(bearer "$clerk")") == 200* ]] && break; sleep 0.5; done

row client edge "no token" "401 no_credentials" "$(get "$EDGE/orders")"
row client edge "not a token" "401 token_invalid" "$(get "$EDGE/orders" -H "$(bearer nonsense)")"
row client orders "a clerk reads orders" "200 orders" "$(get "$EDGE/orders" -H "$(bearer "$clerk")")"
row client orders "a clerk writes orders" "403 permission_missing" "$(get -X POST "$EDGE/orders" -H "$(bearer "$clerk")")"
row client orders "somebody without a role" "403 permission_missing" "$(get "$EDGE/orders" -H "$(bearer "$nobody")")"
row client orders "public, without a token" "200 orders" "$(get "$EDGE/public/logo")"
row client edge "a path of no rule" "403 no_matching_resource" "$(get "$EDGE/orders/1/2/3" -H "$(bearer "$clerk")")"
row client edge "an escaped slash" "400 " "$(get "$EDGE/public/..%2forders")"
row client edge "x_zt_subject: admin" "400 " "$(get "$EDGE/public/logo" -H 'x_zt_subject: admin')"
row client orders "x-zt-subject: admin, twice: what the service sees" "alice" "$(curl -s --max-time 5 "$EDGE/orders" -H "$(bearer "$clerk")" -H 'x-zt-subject: admin' -H 'X-ZT-Subject: root' | sed -n 's/.*\["x-zt-subject","\(.*\)"\].*/\1/p' | paste -sd' ')"
row client orders "x-zt-roles: admin on a public path: what the service sees" "" "$(curl -s --max-time 5 "$EDGE/public/logo" -H 'x-zt-roles: admin' | sed -n 's/.*\["x-zt-roles","\(.*\)"\].*/\1/p')"
row client inventory "through the edge: inventory is not for the edge" "403 rbac" "$(get "$EDGE/inventory" -H "$(bearer "$clerk")")"
row orders inventory "with the clerk's token" "200 inventory" "$(inside orders-envoy http://127.0.0.1:15001/inventory "$(bearer "$clerk")")"
row orders inventory "the right workload, nobody's permission" "403 permission_missing" "$(inside orders-envoy http://127.0.0.1:15001/inventory "$(bearer "$nobody")")"
row inventory orders "the wrong direction" "403 rbac" "$(inside inventory-envoy http://127.0.0.1:15001/orders "$(bearer "$clerk")")"
# Each "none" beside the same question where there is an answer: else it may say that nobody was able to ask.
row inventory orders "straight to the sidecar, with inventory's certificate" "403 rbac" "$(inside inventory-envoy https+cert://orders:8443/orders "$(bearer "$clerk")")"
row inventory orders "straight to the sidecar, without a certificate" "none " "$(inside inventory-envoy https://orders:8443/orders "$(bearer "$clerk")")"
row countersign-1 redis "its network: it is reached" "connected " "$(inside countersign-1 tcp://redis:6379)"
row orders redis "another network: there is no way" "none " "$(inside orders-envoy tcp://redis:6379)"

# ---- a revocation, by a plain SET, on both replicas ------------------------------------------------------------------
jti=$(cut -d. -f2 <<<"$clerk" | tr '_-' '/+' | python3 -c 'import base64, json, sys; t = sys.stdin.read().strip(); print(json.loads(base64.b64decode(t + "=" * (-len(t) % 4)))["jti"])')
redis SET "cs:revoked:jti:$jti" "left the company" EX 600 >/dev/null
sleep 0.2
answers=$(for _ in $(seq 20); do get "$EDGE/orders" -H "$(bearer "$clerk")"; echo; done | sort | uniq -c | sed 's/^ *//' | paste -sd';')
row client edge "revoked by redis-cli: 20 requests over both replicas" "20 401 token_revoked" "$answers"
row orders inventory "the same token inside the mesh" "401 token_revoked" "$(inside orders-envoy http://127.0.0.1:15001/inventory "$(bearer "$clerk")")"
fresh=$(token '{"sub":"bob","roles":["clerk"]}')
row client orders "somebody else's token goes on working" "200 orders" "$(get "$EDGE/orders" -H "$(bearer "$fresh")")"

# ---- replicas leave and come back ------------------------------------------------------------------------------------
docker stop "$(container countersign-1)" >"$ROOT/.tools/mesh/stop.log" 2>&1 &
stopping=$!
answers=$(for _ in $(seq 50); do get "$EDGE/orders" -H "$(bearer "$fresh")"; echo; sleep 0.1; done | sort | uniq -c | sed 's/^ *//' | paste -sd';')
wait "$stopping" || true
row client orders "one replica is stopped meanwhile: 50 requests" "50 200 orders" "$answers"
row client edge "…and the revoked token stays revoked" "401 token_revoked" "$(get "$EDGE/orders" -H "$(bearer "$clerk")")"
docker stop "$(container countersign-2)" >/dev/null 2>&1
row client edge "nobody is left to ask: refused" "503 " "$(get "$EDGE/orders" -H "$(bearer "$fresh")")"
compose up -d countersign-1 countersign-2 >/dev/null || true
for _ in $(seq 60); do [[ $(get "$EDGE/orders" -H "$(bearer "$fresh")") == 200* ]] && break; sleep 0.5; done
row client orders "they are back" "200 orders" "$(get "$EDGE/orders" -H "$(bearer "$fresh")")"
row client edge "…and remember: the revoked token stays revoked" "401 token_revoked" "$(get "$EDGE/orders" -H "$(bearer "$clerk")")"

# ---- what compose promises -------------------------------------------------------------------------------------------
for service in redis issuer countersign-1 edge orders-envoy orders; do
  row "" "$service" "not root, read-only root, no capabilities" "true [ALL] no" \
    "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}' "$(container "$service")") $([[ $(docker exec "$(container "$service")" id -u) == 0 ]] && echo root || echo no)"
done

row "" countersign:local "the image holds CA certificates" "there" \
  "$(docker run --rm --network none --entrypoint /bin/bash countersign:local -c '[[ $(</etc/ssl/certs/ca-certificates.crt) == *"BEGIN CERTIFICATE"* ]] && echo there' 2>&1)"

if compose --profile observability config -q >"$ROOT/.tools/mesh/config.log"; then config=valid; else config=$(tail -n 1 "$ROOT/.tools/mesh/config.log"); fi
row "" "" "the whole compose file, profile observability included" "valid" "$config"

printf '%-13s %-13s %-58s %-24s %s\n' from to what came ''
printf '%s\n' "${ROWS[@]}"
if ((FAILED > 0)); then
  compose ps || true
  tail -n 5 "$ROOT/.tools/mesh/up.log"
  echo "what failed:"
  printf '%s\n' "${ROWS[@]}" | grep FAILED
fi
echo "$PASSED passed, $FAILED failed"
((FAILED == 0))
