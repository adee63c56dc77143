#!/usr/bin/env bash
# Every sample in deploy/ and envoy/istio/ against real schemas, and the proof that these checks bite.
#
#   tests/deploy/validate.sh             last line: N passed, M failed
#
# Makes .tools/deploy-venv at the first call (two minutes, half a gigabyte) and keeps it. Needs python3 and, that once,
# the network. Exit code 1 when something is wrong, with the file and the path inside it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HERE=$ROOT/tests/deploy
VENV=$ROOT/.tools/deploy-venv
AWS=$ROOT/.tools/aws-provider.json
# The AWS provider's schema, as its CDK binding carries it; read once, then thrown away.
AWS_PACKAGE="cdktf-cdktf-provider-aws==21.22.1"
AWS_SHA256="603c647c4de622ed0a2b5e0f1518d81a89b31eed84b67d23410840041e7df924"

mkdir -p "$ROOT/.tools"
exec 9>"$ROOT/.tools/.deploy-lock"
flock 9
want=$(sha256sum "$HERE/requirements.txt" | cut -d' ' -f1)
if [[ $(cat "$VENV/.made-from" 2>/dev/null) != "$want" ]]; then
  echo "deploy: installing the validators into .tools/deploy-venv (about two minutes)"
  rm -rf "$VENV"
  { python3 -m venv "$VENV" && "$VENV/bin/pip" install -q --disable-pip-version-check --no-input -r "$HERE/requirements.txt"; } </dev/null ||
    { echo "deploy: the validators could not be installed (python3-venv missing, or no network?)" >&2; exit 1; }
  echo "$want" >"$VENV/.made-from"
fi
if [[ $(head -c 200 "$AWS" 2>/dev/null | grep -o "$AWS_PACKAGE") != "$AWS_PACKAGE" ]]; then
  echo "deploy: fetching the schema of Terraform's AWS provider ($AWS_PACKAGE)"
  work=$(mktemp -d "$ROOT/.tools/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  echo "$AWS_PACKAGE --hash=sha256:$AWS_SHA256" >"$work/wanted.txt"
  "$VENV/bin/pip" download -q --disable-pip-version-check --no-input --no-deps --require-hashes -d "$work" -r "$work/wanted.txt" </dev/null ||
    { echo "deploy: $AWS_PACKAGE could not be fetched (no network?)" >&2; exit 1; }
  "$VENV/bin/python" "$HERE/aws_schema.py" "$AWS_PACKAGE" "$work"/*.whl "$AWS"
fi
flock -u 9
"$ROOT/tests/tools.sh" promtool </dev/null

cd "$ROOT"
exec "$VENV/bin/python" "$HERE/validate.py" "$@"
