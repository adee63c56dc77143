#!/usr/bin/env bash
# Every sample in envoy/ must be a configuration that Envoy itself accepts, on each pinned version, and the edge must
# refuse when Countersign is not there.
#
#   tests/envoy-samples.sh               last line: N passed, M failed
#
# Needs .tools/envoy-*/bin/envoy (tests/tools.sh). A sample for newer versions only says so in a line
# `# envoy-samples: VERSION only`. The samples name certificates under /etc/envoy/certs; they are made here for the run.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VERSIONS=(1.40.0 1.36.4)
WORK=$(mktemp -d)
ENVOY_PID=
PASSED=0
FAILED=0
stop() { if [[ -n $ENVOY_PID ]]; then kill "$ENVOY_PID" 2>/dev/null || true; wait "$ENVOY_PID" 2>/dev/null || true; ENVOY_PID=; fi; }
SERVICE_PID=
trap 'stop; [[ -z $SERVICE_PID ]] || kill "$SERVICE_PID" 2>/dev/null; rm -rf "$WORK"' EXIT

pass() { PASSED=$((PASSED + 1)); printf 'ok      %s\n' "$1"; }
fail() { FAILED=$((FAILED + 1)); printf 'FAILED  %s\n' "$1"; printf '        %s\n' "${2//$'\n'/$'\n'        }"; }

for version in "${VERSIONS[@]}"; do
  [[ -x $ROOT/.tools/envoy-$version/bin/envoy ]] || {
    echo "envoy $version is not in .tools/: tests/tools.sh envoy-$version" >&2
    exit 1
  }
done

mkdir "$WORK/certs"
for name in server client-ca envoy mesh-ca; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "/CN=$name" \
    -keyout "$WORK/certs/$name-key.pem" -out "$WORK/certs/$name.pem" 2>/dev/null
done

# The sample as it is, but for the folder of the certificates.
prepared() { sed "s#/etc/envoy/certs#$WORK/certs#" "$1" >"$WORK/sample.yaml"; }
wanted() { local only; only=$(sed -n 's/^# envoy-samples: \(.*\) only$/\1/p' "$1"); [[ -z $only || " $only " == *" $2 "* ]]; }
validate() { "$ROOT/.tools/envoy-$2/bin/envoy" --mode validate -l error -c "$1" 2>&1; }

# ---- no try is cut short ------------------------------------------------------------------------------------------
# Envoy gives one try of a gRPC service `max_interval` of its back-off, whatever `timeout` says: the two must be one.
for sample in "$ROOT"/envoy/*.yaml "$ROOT"/deploy/compose/envoy/*.yaml; do
  grep -q max_interval "$sample" || continue
  whole=$(sed -n '/grpc_service:/,/max_interval/s/^ *timeout: //p' "$sample" | head -n 1)
  try=$(sed -n 's/.*max_interval: \([0-9.]*s\).*/\1/p' "$sample")
  what="${sample#"$ROOT"/} gives a try as long as a question"
  if [[ $whole == "$try" ]]; then pass "$what"; else fail "$what" "timeout: $whole, max_interval: $try"; fi
done

# ---- every sample, every version ----------------------------------------------------------------------------------
for sample in "$ROOT"/envoy/*.yaml; do
  for version in "${VERSIONS[@]}"; do
    what="envoy/$(basename "$sample") on Envoy $version"
    prepared "$sample"
    if ! wanted "$sample" "$version"; then
      # The note must be true: a version that is said not to take it does not.
      if output=$(validate "$WORK/sample.yaml" "$version"); then
        fail "$what" "passes, though the file says that this version does not know its fields"
      else
        pass "$what: not for it, as the file says"
      fi
    elif output=$(validate "$WORK/sample.yaml" "$version"); then
      pass "$what"
    else
      fail "$what" "$output"
    fi
  done
done

# ---- the checks bite: a misspelt field is refused -------------------------------------------------------------------
for version in "${VERSIONS[@]}"; do
  sed 's/failure_mode_allow:/failure_mode_alow:/' "$ROOT/envoy/edge-http.yaml" >"$WORK/misspelt.yaml"
  if validate "$WORK/misspelt.yaml" "$version" >/dev/null; then
    fail "a misspelt field is refused by Envoy $version" "it was accepted"
  else
    pass "a misspelt field is refused by Envoy $version"
  fi
done

# ---- what every sample must say, whatever Envoy thinks of it ----------------------------------------------------------
for sample in "$ROOT"/envoy/*.yaml; do
  what="envoy/$(basename "$sample") fails closed, names an authority and asks for the certificate"
  missing=
  for line in 'failure_mode_allow: false' 'authority: countersign' 'include_peer_certificate: true' 'timeout: 0.2s'; do
    grep -q -- "$line" "$sample" || missing+="$line is not in it; "
  done
  if grep -q 'http.ext_authz.v3.ExtAuthz$' "$sample"; then
    for line in 'status_on_error: { code: ServiceUnavailable }' 'validate_mutations: true' 'clear_route_cache: false' \
      'runtime_key: countersign.deny_at_disable' 'default_value: true' \
      'normalize_path: true' 'merge_slashes: true' 'path_with_escaped_slashes_action: REJECT_REQUEST' \
      'headers_with_underscores_action: REJECT_REQUEST' 'use_remote_address: true' 'forward_client_cert_details: SANITIZE' \
      'strip_any_host_port: true' 'strip_trailing_host_dot: true' \
      'request_headers_to_remove: [x-forwarded-host, forwarded]'; do
      grep -qF -- "$line" "$sample" || missing+="$line is not in it; "
    done
  fi
  if [[ -z $missing ]]; then pass "$what"; else fail "$what" "$missing"; fi
done

# A setting that any fingerprint or any TLS meets must not be named as one that asks for a certificate.
what="envoy/edge-mtls.yaml names what asks for a certificate, and nothing else"
missing=
grep -qF 'device_requirements: [{ proof: key }]' "$ROOT/envoy/edge-mtls.yaml" || missing+='proof: key is not in it; '
for line in 'device: always' 'encrypt_in_transit' '`trusted`'; do
  if grep -qF -- "$line" "$ROOT/envoy/edge-mtls.yaml"; then missing+="$line is in it; "; fi
done
if [[ -z $missing ]]; then pass "$what"; else fail "$what" "$missing"; fi

# ---- the edge, run, with nobody to ask ---------------------------------------------------------------------------------
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
expect() {
  local what=$1 status=$2 got
  shift 2
  got=$(curl -s -o /dev/null -w '%{http_code}' --max-time 5 --path-as-is "$@" || true)
  if [[ $got == "$status" ]]; then pass "$what"; else fail "$what" "expected $status, got $got"; fi
}
# Behind the edge is a service that answers everybody: whatever is let through is 200.
service=$(free_port)
python3 - "$service" <<'PYTHON' &
import http.server, sys
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    do_OPTIONS = do_GET
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
PYTHON
SERVICE_PID=$!
# The edge before that service, on ports of its own: $1, with its admin on $2, Countersign on $3. More is for sed.
edge() {
  sed -e "s/0\.0\.0\.0, port_value: 10000/127.0.0.1, port_value: $1/" -e "s/port_value: 9901/port_value: $2/" \
    -e "s/port_value: 9191/port_value: $3/" -e "s/port_value: 8080/port_value: $service/" "${@:4}" "$ROOT/envoy/edge-http.yaml"
}
# `filter_enabled` with what would switch the filter off at run time, beside what else the sample says.
OFF='filter_enabled: { runtime_key: countersign.enabled, default_value: { numerator: 0, denominator: HUNDRED } }'
for version in "${VERSIONS[@]}"; do
  for guard in 'deny_at_disable: 503' 'without it: 200'; do
    port=$(free_port) admin=$(free_port)
    change=(-e "s/^\( *\)deny_at_disable:/\1$OFF\n&/")
    [[ $guard == without* ]] && change+=(-e 's/default_value: true/default_value: false/')
    edge "$port" "$admin" 1 "${change[@]}" >"$WORK/edge.yaml"
    "$ROOT/.tools/envoy-$version/bin/envoy" -c "$WORK/edge.yaml" --disable-hot-restart --concurrency 1 -l error >"$WORK/envoy.log" 2>&1 &
    ENVOY_PID=$!
    for _ in $(seq 100); do curl -sf -o /dev/null "http://127.0.0.1:$admin/ready" && break; sleep 0.1; done
    expect "Envoy $version: the filter switched off, $guard" "${guard##* }" -H 'host: shop.example' "http://127.0.0.1:$port/orders"
    stop
  done
done
for version in "${VERSIONS[@]}"; do
  port=$(free_port) admin=$(free_port) nobody=$(free_port)
  edge "$port" "$admin" "$nobody" >"$WORK/edge.yaml"
  "$ROOT/.tools/envoy-$version/bin/envoy" -c "$WORK/edge.yaml" --disable-hot-restart --concurrency 1 -l error >"$WORK/envoy.log" 2>&1 &
  ENVOY_PID=$!
  for _ in $(seq 100); do curl -sf -o /dev/null "http://127.0.0.1:$admin/ready" && break; sleep 0.1; done
  base=http://127.0.0.1:$port
  expect "Envoy $version: Countersign is away: 503" 503 "$base/orders"
  expect "Envoy $version: Countersign is away, a host nobody serves: still asked, 503" 503 -H 'host: unknown.example' "$base/"
  expect "Envoy $version: Countersign is away, OPTIONS that is no preflight: 503" 503 -X OPTIONS "$base/orders"
  expect "Envoy $version: a preflight from an allowed origin is answered by the cors filter" 200 -X OPTIONS \
    -H 'host: shop.example' -H 'origin: https://app.shop.example' -H 'access-control-request-method: GET' "$base/orders"
  expect "Envoy $version: a preflight from elsewhere is judged like any request: 503" 503 -X OPTIONS \
    -H 'host: shop.example' -H 'origin: https://evil.example' -H 'access-control-request-method: GET' "$base/orders"
  expect "Envoy $version: an escaped slash: 400" 400 "$base/public/..%2fadmin"
  expect "Envoy $version: a header with an underscore: 400" 400 -H 'x_zt_subject: admin' "$base/orders"
  stop
done

# ---- routes read hosts and paths as Countersign does: run with the question taken out --------------------------------
# Where Countersign would be asked, everybody is let through; the service is away, so that a route to it is 503.
without_question() {
  python3 - "$1" "$2" "$3" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
text = text.replace("0.0.0.0, port_value: 10000", f"127.0.0.1, port_value: {sys.argv[2]}").replace("port_value: 9901", f"port_value: {sys.argv[3]}")
text = re.sub(r" *- name: envoy\.filters\.http\.ext_authz\n.*?(?= *- name: envoy\.filters\.http\.router)", "", text, flags=re.S)
text = re.sub(r" *typed_per_filter_config:\n *envoy\.filters\.http\.ext_authz:\n.*?(?=\n *(?:- match|# [A-Z]|routes:))", "", text, flags=re.S)
print(text)
PYTHON
}
for version in "${VERSIONS[@]}"; do
  for sample in per-route edge-http; do
    port=$(free_port) admin=$(free_port)
    without_question "$ROOT/envoy/$sample.yaml" "$port" "$admin" >"$WORK/$sample.yaml"
    "$ROOT/.tools/envoy-$version/bin/envoy" -c "$WORK/$sample.yaml" --disable-hot-restart --concurrency 1 -l error >"$WORK/envoy.log" 2>&1 &
    ENVOY_PID=$!
    for _ in $(seq 100); do curl -sf -o /dev/null "http://127.0.0.1:$admin/ready" && break; sleep 0.1; done
    base=http://127.0.0.1:$port
    if [[ $sample == per-route ]]; then
      expect "Envoy $version: a path with parameters: 400" 400 "$base/refunds;v=1/1"
      expect "Envoy $version: a path with an escaped parameter: 400" 400 "$base/refunds%3Bv=1/1"
      expect "Envoy $version: a semicolon in the query is no parameter" 503 "$base/refunds?a=1;b=2"
    else
      expect "Envoy $version: a host with another port and a trailing dot has the routes of the host" 503 -H 'host: shop.example.:8443' "$base/orders"
      expect "Envoy $version: another host leads nowhere" 404 -H 'host: shop.example.org' "$base/orders"
    fi
    stop
  done
done

echo "$PASSED passed, $FAILED failed"
((FAILED == 0))
