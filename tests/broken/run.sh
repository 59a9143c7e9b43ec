#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Each patch here breaks one rule of the contract in a copy of core/, and names the suite and the test
# that have to notice. A check that cannot fail is not a check.
#
#   run.sh UNIT WORK     UNIT: where the unit tests were built; WORK: where to put the broken builds
#   CC, CFLAGS, SANITIZE and CORE_SRC come from the makefile.
set -eu

unit=$1
work=$2
here=tests/broken
count=0
failed=0

field() { # the field $1 of patch $2
    sed -n "s/^$1: *//p" "$2" | head -n 1
}

complain() {
    echo "not ok: $name: $1" >&2
    failed=$((failed + 1))
}

# What the suites say about an unbroken core.
good_log() {
    log=$work/good-$1.log
    [ -f "$log" ] || ASAN_OPTIONS=detect_leaks=0 "$unit/test_$1" >"$log" 2>&1 || true
    echo "$log"
}

rm -rf "$work"
mkdir -p "$work"

for patch in "$here"/*.patch; do
    [ -f "$patch" ] || continue
    name=$(basename "$patch" .patch)
    suite=$(field Suite "$patch")
    test=$(field Fails "$patch")
    tree=$work/$name
    count=$((count + 1))

    mkdir -p "$tree"
    cp -R core "$tree/core"
    if ! patch -p1 --fuzz=0 --batch --silent -d "$tree" <"$patch" >"$tree/patch.log" 2>&1; then
        cat "$tree/patch.log" >&2
        complain "the patch does not apply"
        continue
    fi
    if ! grep -q "  OK \] $test\$" "$(good_log "$suite")"; then
        complain "$test does not pass on an unbroken core"
        continue
    fi

    objects=
    for source in $CORE_SRC; do
        object=$tree/$(basename "$source" .c).o
        # A copy that a patch left alone is there already, compiled.
        if cmp -s "$source" "$tree/$source"; then
            object=$unit/${source%.c}.o
        elif ! $CC $CFLAGS -I"$tree" -I. -c -o "$object" "$tree/$source" 2>"$tree/cc.log"; then
            cat "$tree/cc.log" >&2
            complain "the broken core does not compile"
            continue 2
        fi
        objects="$objects $object"
    done
    # shellcheck disable=SC2086
    $CC $SANITIZE -o "$tree/test" $objects "$unit/tests/model/dma.o" \
        "$unit/tests/model/virtio_device.o" "$unit/tests/unit/harness.o" \
        "$unit/tests/unit/test_$suite.o" -lcmocka

    status=0
    ASAN_OPTIONS=detect_leaks=0 timeout 60 "$tree/test" >"$tree/log" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        complain "test_$suite passes on it"
    elif ! grep -q "RUN      \] $test\$" "$tree/log"; then
        complain "test_$suite ends before $test"
    elif grep -q "  OK \] $test\$" "$tree/log"; then
        complain "$test passes on it"
    else
        echo "ok: $name: caught by $test"
    fi
done

if [ "$count" -eq 0 ]; then
    echo "no broken builds" >&2
    exit 1
fi
if [ "$failed" -ne 0 ]; then
    echo "$failed of $count broken builds are not caught" >&2
    exit 1
fi
echo "$count broken builds, all caught"
