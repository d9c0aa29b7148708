# Everything a developer does. CI runs `make test`, nothing else.
BIN = .venv/bin
COMPILE = UV_SYSTEM_CERTS=1 $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)
LOCKED = pyproject.toml --extra embedded --extra ui --extra stripe --group build

# Hundreds of Pythons start in a test run, and each would compile all that it imports where this is set.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup run test suite lint types fetch fmt hooks services migrate bench bench-quick torture soak fuzz-api proto openapi contract lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' Makefile | awk -F'#' '{ printf "%-20s%s\n", $$1, $$2 }'

setup:  ## make .venv from the locked requirements; other commands do it by themselves
	@scripts/setup.sh dev

run:  ## serve with embedded PostgreSQL and Valkey and with demo data; ORDERWIRE_SERVER__PORT=9000 make run
	@scripts/setup.sh run
	@exec $(BIN)/orderwire serve --demo

test: setup  ## lint, types and all tests against real servers; ARGS="-k relay" for some, ARGS="-n 0" one by one
	@$(MAKE) --no-print-directory --jobs 4 lint types fetch suite

suite: setup  ## the tests alone
	@$(BIN)/pytest --numprocesses 4 --no-loadscope-reorder $(ARGS)

lint: setup  ## ruff, formatting, direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports --no-logo

types: setup  ## mypy, strict, tests included
	@$(BIN)/mypy

fetch: setup  ## what the tests need and the machine has not: servers from Debian, packages for Node.js
	@$(BIN)/python -m tests.services fetch

fmt: setup  ## format, and fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

hooks: setup  ## run lint on every commit (pre-commit)
	@$(BIN)/pre-commit install

services: setup  ## PostgreSQL, Redis and RabbitMQ in the foreground; prints the environment that points at them
	@exec $(BIN)/python -m tests.services postgres redis rabbitmq

migrate: setup  ## bring the configured database up to date
	@$(BIN)/orderwire migrate

bench: setup  ## measure on real servers and beside others, and write docs/benchmarks.md (half an hour); ARGS=storm for a part
	@$(BIN)/python -m bench $(ARGS)

bench-quick: setup  ## the main figures in under 2 minutes; nothing is written
	@$(BIN)/python -m bench --quick latency fan-out

torture: setup  ## kill every part at random moments and prove that nothing is lost; KILLS=20 SEED=n
	@$(BIN)/python -m tests.torture --kills $(or $(KILLS),20) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: setup  ## hours of clients that come and go, and nothing may grow; MINUTES=120 SEED=n
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),120) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz-api: setup  ## requests that nobody thought of, as each role: every answer has to be a documented one; MINUTES=10 SEED=n
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

proto: setup  ## generate the Protobuf codec's messages from realtime/protocol/client.proto
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. realtime/protocol/client.proto

openapi: setup  ## write docs/schemas/openapi.json: the REST API, from its endpoints and models
	@$(BIN)/python -m server.openapi docs/schemas/openapi.json

contract: setup  ## write docs/schemas: JSON Schemas and TypeScript types of the events, the life of an order, from the code
	@$(BIN)/python -m server.contract docs/schemas

lock: setup  ## write requirements/*.txt anew; UPGRADE=--upgrade for newer versions
	@$(COMPILE) --group bootstrap --output-file requirements/bootstrap.txt
	@$(COMPILE) $(LOCKED) --output-file requirements/run.txt
	@$(COMPILE) --group peers --output-file requirements/peers.txt
	@$(COMPILE) $(LOCKED) --group test --group lint --group bench --constraints requirements/run.txt --output-file requirements/dev.txt

clean:  ## remove what was made here: .venv, caches, node_modules (not the data in .orderwire)
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis tests/node_modules
