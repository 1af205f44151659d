#!/bin/sh
# Packs the module into target/dist, or DIST: a tar.gz for any Linux of this architecture, and a Debian package. MODULE is
# the module, what scripts/portable.sh builds by default. Packing twice gives the same bytes.
#
# The module must be executable, or Redis does not load it.
set -eu
umask 022
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
architecture=$(uname -m)
name=redis-ratelimit-$version-linux-$architecture
module=${MODULE:-target/portable/libratelimit.so}
here=${DIST:-$PWD/target/dist}
# Every file gets the time of the last commit, if there is one.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export SOURCE_DATE_EPOCH

rm -rf "$here"
mkdir -p "$here"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

# A folder to read and try: pages, examples, and a configuration with the module's path.
pages() { # folder, path of the module
    mkdir -p "$1"
    cp -R README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs examples clients "$1"
    # Leave out what examples and clients left behind.
    find "$1" \( -name node_modules -o -name .venv -o -name __pycache__ -o -name '.*_cache' -o -name dist \) -prune -exec rm -rf {} +
    sed -e "s|^loadmodule .*|loadmodule $2|" -e 's|from the repository root|from this folder|' -e 's| *(or: make run)||' \
        redis.conf >"$1/redis.conf"
    install -m 644 LICENSE "$1"
    chmod -R u=rwX,go=rX "$1"
    # The sources are not packed, so links to them become text.
    find "$1" -name '*.md' | while read -r page; do
        grep -o '](\(\.\./\)*\(src\|tests\)/[^)]*)' "$page" | sort -u | while read -r link; do
            sed -i "s|\[\([^]]*\)$link|\`\1\` of the sources|" "$page"
        done
    done
}

pages "$stage/$name" ./libratelimit.so
install -m 644 packaging/ratelimit.conf "$stage/$name"
install -m 755 "$module" "$stage/$name/libratelimit.so"
tar -C "$stage" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$name" |
    gzip -9n >"$here/$name.tar.gz"

if command -v dpkg-deb >/dev/null; then
    # The newest libc version whose symbols the module uses.
    depends="libc6 (>= $(objdump -T "$module" | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1))"
    if objdump -p "$module" | grep -q libgcc_s; then depends="$depends, libgcc-s1"; fi
    deb=$stage/deb
    install -D -m 755 "$module" "$deb/usr/lib/redis/modules/libratelimit.so"
    install -D -m 644 packaging/ratelimit.conf "$deb/etc/redis/ratelimit.conf"
    pages "$deb/usr/share/doc/redis-ratelimit" /usr/lib/redis/modules/libratelimit.so
    # Debian wants this name; the README links to the other.
    ln "$deb/usr/share/doc/redis-ratelimit/LICENSE" "$deb/usr/share/doc/redis-ratelimit/copyright"
    install -D -m 755 packaging/prerm "$deb/DEBIAN/prerm"
    echo /etc/redis/ratelimit.conf >"$deb/DEBIAN/conffiles"
    cat >"$deb/DEBIAN/control" <<CONTROL
Package: redis-ratelimit
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: the maintainers of redis-ratelimit
Section: database
Priority: optional
Depends: $depends, redis-server (>= 5:7.0~) | valkey-server
Installed-Size: $(du -sk --apparent-size "$deb" | cut -f 1)
Description: exact rate limiter as one command of Redis and Valkey
 RATELIMIT.HIT key limit window decides inside the server whether one more hit
 may happen now, by an exact sliding-window log on a plain stream.
 .
 The module is not loaded until the server's configuration includes
 /etc/redis/ratelimit.conf.
CONTROL
    dpkg-deb --root-owner-group -Zxz --build "$deb" "$here" >/dev/null
else
    echo "dist: no Debian package, because dpkg-deb is missing"
fi
ls -1 "$here"
