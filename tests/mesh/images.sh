#!/usr/bin/env bash
# Stand-ins for the public images that docker-compose.yml names, made of Debian packages and the Envoy wheel: for
# machines that reach package registries but no image registry. The compose file and the Dockerfile stay as they are.
#
#   tests/mesh/images.sh                 rust, debian, redis and envoy, under their ordinary names, each labelled
#
# An image of such a name that is not one of ours is never replaced: exit code 2, and nothing was made. Remove ours:
#   docker image rm $(docker image ls -q --filter label=countersign.stand-in)
# The stand-in for rust does not compile: its `cargo build` hands out COUNTERSIGN_BINARY (default: what this checkout's
# target/ has), since compiling again inside a container would cost half an hour and prove nothing about the mesh.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=$ROOT/.tools/mesh
# Of another version of this script: made anew.
VERSION=2
BASE=$CACHE/base-$VERSION.tar
AUTHORITIES=$CACHE/ca-certificates-$VERSION.crt
ENVOY=$ROOT/.tools/envoy-1.40.0/bin/envoy
RUST=rust:1.95-bookworm DEBIAN=debian:bookworm-slim REDIS=redis:7.4-bookworm PROXY=envoyproxy/envoy:v1.40.0
LABEL=countersign.stand-in

say() { printf 'mesh: %s\n' "$*"; }
die() { printf 'mesh: %s\n' "$*" >&2; exit 1; }

docker info >/dev/null 2>&1 || die "no Docker engine answers"
BINARY=${COUNTERSIGN_BINARY:-}
for candidate in "$ROOT/target/release/countersign" "$ROOT/target/debug/countersign"; do
  if [[ -z $BINARY && -x $candidate ]]; then BINARY=$candidate; fi
done
[[ -x $BINARY ]] || die "no countersign binary: cargo build --bin countersign, or set COUNTERSIGN_BINARY"
[[ -x $ENVOY ]] || die "no Envoy: tests/tools.sh envoy-1.40.0"

label() { docker image inspect -f "{{ with index .Config.Labels \"$LABEL\" }}{{ . }}{{ end }}" "$1" 2>/dev/null || true; }
for image in "$RUST" "$DEBIAN" "$REDIS" "$PROXY"; do
  if docker image inspect "$image" >/dev/null 2>&1 && [[ -z $(label "$image") ]]; then
    say "$image is here and is not a stand-in: the public images are used"
    exit 2
  fi
done

mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
ours() { [[ $(label "$1") == "$VERSION" ]]; }
if [[ ! -s $BASE || ! -s $AUTHORITIES ]]; then
  [[ $(id -u) == 0 ]] || die "the base system needs root for debootstrap (once)"
  "$ROOT/tests/tools.sh" debootstrap
  say "base system from Debian's packages (about three minutes, once)"
  # As little as the public images have: no curl, no CA certificates.
  debootstrap --variant=minbase --include=bash,openssl bookworm "$work/root" >"$CACHE/debootstrap.log" 2>&1 </dev/null ||
    die "debootstrap failed: $(tail -n 1 "$CACHE/debootstrap.log")"
  # Redis by apt, not in debootstrap: its start script must not run, and its user must be made.
  printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d"
  chmod 0755 "$work/root/usr/sbin/policy-rc.d"
  chroot "$work/root" apt-get install -y -q --no-install-recommends redis-server redis-tools >>"$CACHE/debootstrap.log" 2>&1 </dev/null ||
    die "redis could not be installed: $(tail -n 1 "$CACHE/debootstrap.log")"
  # The ordinary image's user and folder, so that a new volume has the same owner.
  install -d -o 999 -g 999 "$work/root/data"
  [[ ! -e $work/root/etc/ssl/certs/ca-certificates.crt ]] || die "the base system has CA certificates: it hides that the image needs its own"
  tar -C "$work/root" --exclude=./var/cache/apt/archives --exclude=./var/lib/apt/lists --exclude=./usr/share/doc --exclude=./usr/share/man -cf "$BASE.new" .
  # The public rust image has them.
  chroot "$work/root" apt-get install -y -q --no-install-recommends ca-certificates >>"$CACHE/debootstrap.log" 2>&1 </dev/null ||
    die "CA certificates could not be installed: $(tail -n 1 "$CACHE/debootstrap.log")"
  cp "$work/root/etc/ssl/certs/ca-certificates.crt" "$AUTHORITIES"
  mv "$BASE.new" "$BASE"
fi
if ! ours "$DEBIAN"; then
  say "$DEBIAN, $REDIS"
  docker import --change "LABEL $LABEL=$VERSION" --change 'CMD ["/bin/bash"]' "$BASE" "$DEBIAN" >/dev/null
fi
docker tag "$DEBIAN" "$REDIS"

say "$PROXY"
mkdir "$work/envoy" "$work/rust"
cp "$ENVOY" "$work/envoy/envoy"
printf 'FROM %s\nCOPY envoy /usr/local/bin/envoy\n' "$DEBIAN" | tee "$work/envoy/Dockerfile" >/dev/null
docker build -q -t "$PROXY" "$work/envoy" >/dev/null

say "$RUST (its cargo hands out $(basename "$(dirname "$BINARY")")/countersign)"
objcopy --strip-debug "$BINARY" "$work/rust/countersign" 2>/dev/null || cp "$BINARY" "$work/rust/countersign"
cat >"$work/rust/cargo" <<'CARGO'
#!/bin/sh
[ "$1" = build ] || { echo "the stand-in's cargo can only build" >&2; exit 1; }
mkdir -p target/release && cp /opt/countersign target/release/countersign
CARGO
cp "$AUTHORITIES" "$work/rust/ca-certificates.crt"
chmod 0755 "$work/rust/cargo"
printf 'FROM %s\nCOPY countersign /opt/countersign\nCOPY cargo /usr/local/bin/cargo\nCOPY ca-certificates.crt /etc/ssl/certs/\n' "$DEBIAN" >"$work/rust/Dockerfile"
docker build -q -t "$RUST" "$work/rust" >/dev/null
