#!/bin/sh
# Fetches what the examples and the documents' snippets need into target/examples: Python and Node clients and, if there
# is apt-get, nginx, the Prometheus exporter and a Go client, unpacked but not installed.
set -eu
here=$PWD/target/examples
mkdir -p "$here/packages"

python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$here/python" --upgrade -r tests/clients/requirements.txt limits==5.8.0
sed "s|file:../..|file:$PWD|" examples/express/package.json >"$here/package.json"
npm install --silent --no-fund --no-audit --prefix "$here" >/dev/null

wanted="nginx libnginx-mod-http-ndk libnginx-mod-http-lua prometheus-redis-exporter golang-github-gomodule-redigo-dev"
[ "$(cat "$here/debian/wanted" 2>/dev/null)" != "$wanted" ] || exit 0
rm -rf "$here/debian" "$here/debian.new"
download() (
    cd "$here/packages"
    # Their dependencies that this machine lacks.
    # shellcheck disable=SC2086 # lists of words
    missing=$(apt-get install --simulate --no-install-recommends $wanted | sed -n 's/^Inst \([^ ]*\).*/\1/p') &&
        apt-get download $wanted $missing lua-nginx-redis
)
if command -v apt-get >/dev/null && { download || { apt-get update && download; }; } >"$here/apt.log" 2>&1; then
    for package in "$here"/packages/*.deb; do dpkg-deb -x "$package" "$here/debian.new"; done
    echo "$wanted" >"$here/debian.new/wanted"
    mv "$here/debian.new" "$here/debian"
else
    echo "examples: nginx, the exporter and the Go client could not be fetched with apt-get; their tests are skipped"
fi
