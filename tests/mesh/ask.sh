#!/bin/bash
# One GET, and its answer as it came: with what our own image of certificates has (bash, openssl). Run by run.sh inside the
# network of a service.
#
#   ask.sh http://HOST:PORT/PATH [HEADER…]   https://… without a certificate   https+cert://… with that of /certs
#   ask.sh tcp://HOST:PORT                   "- connected" where somebody accepts
set -uo pipefail
scheme=${1%%://*} rest=${1#*://}
authority=${rest%%/*} path=/${rest#"${rest%%/*}"/}
shift
# The token's owner uses curl: another program would be another client, and be asked for a second factor.
request() {
  printf 'GET %s HTTP/1.1\r\nhost: %s\r\nuser-agent: curl/8.5.0\r\nconnection: close\r\n' "$path" "$authority"
  if (($# > 0)); then printf '%s\r\n' "$@"; fi
  printf '\r\n'
}
dial() { exec 3<>"/dev/tcp/${authority%:*}/${authority##*:}"; }
case $scheme in
  tcp) dial && echo "- connected" ;;
  http) dial && request "$@" >&3 && timeout 5 cat <&3 ;;
  # The pause: openssl hangs up when its input ends.
  https) { request "$@"; sleep 2; } | timeout 5 openssl s_client -quiet -connect "$authority" ;;
  https+cert) { request "$@"; sleep 2; } | timeout 5 openssl s_client -quiet -connect "$authority" -cert /certs/tls.pem -key /certs/key.pem ;;
esac
