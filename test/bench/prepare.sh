#!/usr/bin/env bash
# Installs what `npm run bench` compares with: nginx, HAProxy, Squid, wrk and h2load from Debian, Caddy from the Go module proxy (else
# Debian's), mitmproxy from PyPI. The bench itself installs nothing and leaves out, with a word, what is not there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PATH:/usr/sbin:/usr/local/go/bin"
tools="${OUTRIDER_BENCH_TOOLS:-$PWD/.outrider/bench}"
mkdir -p "$tools/bin"

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

missing=()
command -v nginx >/dev/null || missing+=(nginx-light)
command -v haproxy >/dev/null || missing+=(haproxy)
# The plain squid package is built with GnuTLS and cannot intercept.
squid -v 2>/dev/null | grep -q -- --with-openssl || missing+=(squid-openssl)
command -v wrk >/dev/null || missing+=(wrk)
command -v h2load >/dev/null || missing+=(nghttp2-client)
command -v taskset >/dev/null || missing+=(util-linux)
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)

caddy_version=v2.11.9
if [ ! -x "$tools/bin/caddy" ] && command -v go >/dev/null; then
  GOBIN="$tools/bin" GOFLAGS=-mod=mod go install "github.com/caddyserver/caddy/v2/cmd/caddy@$caddy_version" || true
fi
[ -x "$tools/bin/caddy" ] || command -v caddy >/dev/null || missing+=(caddy)

if [ "${#missing[@]}" -gt 0 ]; then
  as_root apt-get update -qq
  # policy-rc.d would be the way to keep services from starting; in a container there is nothing that starts them.
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The newest release that this Python can run; pip chooses it.
if [ ! -x "$tools/mitmproxy/bin/mitmdump" ]; then
  python3 -m venv "$tools/mitmproxy"
  "$tools/mitmproxy/bin/pip" install --quiet --disable-pip-version-check mitmproxy
fi

for program in nginx haproxy squid wrk h2load "$tools/bin/caddy" "$tools/mitmproxy/bin/mitmdump"; do
  command -v "$program" >/dev/null && echo "there: ${program##*/}" || echo "not there: ${program##*/}"
done
