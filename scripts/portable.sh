#!/bin/sh
# Builds the module for old systems into target/portable/libratelimit.so: glibc 2.17 and later, and no libgcc.
#
# zig is the compiler and linker, because it links against any glibc. The same sources give the same bytes in any folder.
# Options are passed on to cargo.
set -eu
glibc=2.17
tools=$PWD/target/tools/portable

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
*-linux-gnu) ;;
*)
    echo "portable: $target is not Linux with glibc" >&2
    exit 1
    ;;
esac
# No path of this machine goes into the module.
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037' "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    "--remap-path-prefix=$(rustc --print sysroot)=/rust" "--remap-path-prefix=$PWD=/redis-ratelimit")
export CARGO_ENCODED_RUSTFLAGS="${CARGO_ENCODED_RUSTFLAGS%?}"
# In another folder, because zig names its headers relative to a folder that they are in, and bindgen runs elsewhere.
here=$PWD/target/portable
(
    cd scripts
    PATH=$tools/bin:$PATH PYTHONPATH=$tools CARGO_ZIGBUILD_CACHE_DIR=$here/cache ZIG_GLOBAL_CACHE_DIR=$here/cache \
        CARGO_PROFILE_RELEASE_STRIP=symbols cargo zigbuild --release --locked --manifest-path ../Cargo.toml \
        --package redis-ratelimit --target "$target.$glibc" --target-dir "$here" "$@"
)
module=target/portable/libratelimit.so
cp "target/portable/$target/release/libratelimit.so" $module

needed=$(objdump -T $module | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1)
echo "portable: the newest symbol that $module uses is of glibc $needed"
[ "$(printf '%s\n' "$needed" $glibc | sort -V | tail -n 1)" = $glibc ] || {
    echo "portable: it must not need more than glibc $glibc" >&2
    exit 1
}
others=$(objdump -p $module | sed -n 's/^ *NEEDED *//p' | grep -Ev '^(libc|libpthread|libdl|ld-linux-.*)\.so\.[0-9]+$' || true)
[ -z "$others" ] || {
    echo "portable: it must not need $others" >&2
    exit 1
}
