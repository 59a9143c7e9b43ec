#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Each patch here breaks one rule of the contract, or something else that a caller counts on, in a copy
# of core/ and bios/, and names the suite and the test that have to notice. A check that cannot fail is
# not a check.
#
#   run.sh UNIT WORK          UNIT: where the unit tests were built; WORK: where to put the broken builds
#   run.sh UNIT WORK PATCH    one of them, for those who have run all of them before
#   CC, CFLAGS and SANITIZE come from the makefile, and so do VIRTIO_SRC, XEN_SRC, BIOS_SRC,
#   BIOS_START_SRC and BIOS_START_XEN_SRC: what a suite of that kind (xen_..., bios_..., bios_start and
#   bios_start_xen, or none of them) is made of, beside its own source.
set -eu

unit=$1
work=$2
here=tests/broken

field() { # the field $1 of patch $2
    sed -n "s/^$1: *//p" "$2" | head -n 1
}

fail() { # a sentence
    echo "not ok: $name: $1"
    exit 1
}

try() { # a patch
    name=$(basename "$1" .patch)
    suite=$(field Suite "$1")
    test=$(field Fails "$1")
    tree=$work/$name

    rm -rf "$tree"
    mkdir -p "$tree"
    cp -R core bios "$tree"
    if ! patch -p1 --fuzz=0 --batch --silent -d "$tree" <"$1" >"$tree/patch.log" 2>&1; then
        cat "$tree/patch.log" >&2
        fail "the patch does not apply"
    fi
    # The same one of what is not broken; for most suites that is far from all.
    ONE_TEST=$test ASAN_OPTIONS=detect_leaks=0 "$unit/test_$suite" >"$tree/good.log" 2>&1 || true
    grep -q "  OK \] $test\$" "$tree/good.log" || fail "$test does not pass on what is not broken"

    case $suite in
    xen_*) sources=$XEN_SRC ;;
    bios_start_xen) sources=$BIOS_START_XEN_SRC ;;
    bios_start) sources=$BIOS_START_SRC ;;
    bios_*) sources=$BIOS_SRC ;;
    *) sources=$VIRTIO_SRC ;;
    esac
    objects=$unit/tests/unit/test_$suite.o
    for source in $sources; do
        object=$unit/${source%.c}.o
        # What a patch left alone is there already, compiled.
        if [ -e "$tree/$source" ] && ! cmp -s "$source" "$tree/$source"; then
            object=$tree/${source%.c}.o
            if ! $CC $CFLAGS -I"$tree" -I. -c -o "$object" "$tree/$source" 2>"$tree/cc.log"; then
                cat "$tree/cc.log" >&2
                fail "what is broken does not compile"
            fi
        fi
        objects="$objects $object"
    done
    # shellcheck disable=SC2086
    $CC $SANITIZE -o "$tree/test" $objects -lcmocka

    status=0
    ONE_TEST=$test ASAN_OPTIONS=detect_leaks=0 timeout 60 "$tree/test" >"$tree/log" 2>&1 || status=$?
    [ "$status" -ne 0 ] || fail "test_$suite passes on it"
    grep -q "RUN      \] $test\$" "$tree/log" || fail "test_$suite ends before $test"
    ! grep -q "  OK \] $test\$" "$tree/log" || fail "$test passes on it"
    echo "ok: $name: caught by $test"
}

if [ $# -eq 3 ]; then
    try "$3"
    exit 0
fi

rm -rf "$work"
mkdir -p "$work"

printf '%s\n' "$here"/*.patch | xargs -n 1 -P "$(nproc)" "$0" "$unit" "$work" |
    tee "$work/results" || true
count=$(printf '%s\n' "$here"/*.patch | wc -l)
caught=$(grep -c '^ok: ' "$work/results" || true)
if [ "$caught" -ne "$count" ]; then
    echo "$((count - caught)) of $count broken builds are not caught" >&2
    exit 1
fi
echo "$count broken builds, all caught"
