# SPDX-License-Identifier: BSD-2-Clause-Patent

OUR_C = $(shell git ls-files '*.c' '*.h')
OUR_SCRIPTS := baton bios/relocations bench/run bench/net bench/int13 bench/xen tests/run

.PHONY: deps-test
deps-test:
	@lab/install lab/packages tests/packages

.PHONY: test check-format check-types format

# A recursive make inside, because what deps installs may be what make looked for when it started.
test: deps-test
	@tests/run $(TEST)

check-format:
	clang-format --dry-run -Werror $(OUR_C)

format:
	clang-format -i $(OUR_C)

# Each script is the main module to mypy, so they are checked one by one.
check-types:
	/usr/bin/mypy --strict --cache-dir $(BUILD)/mypy lab
	cd tests/lab && MYPYPATH=../..:. /usr/bin/mypy --strict --cache-dir ../../$(BUILD)/mypy *.py
	cd tests/vm && MYPYPATH=../..:. /usr/bin/mypy --strict --cache-dir ../../$(BUILD)/mypy *.py
	cd tests/audit && MYPYPATH=../..:. /usr/bin/mypy --strict --cache-dir ../../$(BUILD)/mypy *.py
	cd tests/xen && MYPYPATH=../..:.:../vm /usr/bin/mypy --strict --cache-dir ../../$(BUILD)/mypy *.py
	@for script in $(OUR_SCRIPTS); do \
		MYPYPATH=tests/vm:tests/xen /usr/bin/mypy --strict --cache-dir $(BUILD)/mypy $$script || exit 1; \
	done
