#!/usr/bin/env bash
# Runs tests/signals/transmitter.py; makes .tools/signals-venv for it at the first call (needs python3 and, that once, the
# network) and keeps it.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
VENV=$ROOT/.tools/signals-venv
mkdir -p "$ROOT/.tools"
exec 9>"$ROOT/.tools/.signals-lock"
flock 9
want=$(sha256sum "$HERE/requirements.txt" | cut -d' ' -f1)
if [[ $(cat "$VENV/.made-from" 2>/dev/null) != "$want" ]]; then
  rm -rf "$VENV"
  { python3 -m venv "$VENV" && "$VENV/bin/pip" install -q --disable-pip-version-check --no-input --no-deps -r "$HERE/requirements.txt"; } </dev/null >&2 ||
    { echo "transmitter: PyJWT could not be installed (python3-venv missing, or no network?)" >&2; exit 1; }
  echo "$want" >"$VENV/.made-from"
fi
flock -u 9
exec 9>&-
exec "$VENV/bin/python" "$HERE/transmitter.py" "$@"
