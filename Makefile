# Two commands are all the set-up there is: `make run` and `make test`.

CARGO ?= cargo
DATA ?= ./.cresset

.PHONY: run test test-quick setup setup-test build clean

# With job control Ctrl-C reaches cresset alone: make, which would exit with 130, sees it drain and exit with 0.
run: setup build
	@bash $$(test -t 0 && echo -m) -c './target/release/cresset up --demo --data $(DATA) --policies examples/policies; exit $$?'

build:
	$(CARGO) build --release

test: setup-test
	$(CARGO) xtask test

# The part that needs no root, no virtual machine and no server: for use while editing.
test-quick: setup
	$(CARGO) xtask test --quick

# What the build needs, installed by name where this is root, else told in one list.
setup:
	@./xtask/setup.sh build

setup-test:
	@./xtask/setup.sh build test

clean:
	$(CARGO) clean
	rm -rf $(DATA)
