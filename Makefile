# Each target does its own set-up. `make help` lists them.
#
#   KAFKA=embedded | apache | host:port   which Kafka (demo and up: embedded; test: apache)
#   BROKERS=1 | 3                         brokers of KAFKA=apache (demo and up: 1; chaos: 3)
#   STAY=1                                make demo leaves its stack running
#   ROUNDS=n SEED=s                       make chaos: how many rounds, and what their plans are made from

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint chaos foreign up down

# Given on the command line or in the environment, they reach the programs as variables.
export KAFKA BROKERS STAY ROUNDS SEED
ifeq ($(KAFKA),)
unexport KAFKA
endif
ifeq ($(BROKERS),)
unexport BROKERS
endif
ifeq ($(STAY),)
unexport STAY
endif
ifeq ($(ROUNDS),)
unexport ROUNDS
endif
ifeq ($(SEED),)
unexport SEED
endif

# Only an Apache Kafka of our own needs Java.
KAFKA_NEEDS := $(if $(filter apache,$(KAFKA)),kafka)

help: ## This list
	@sed -n 's/^\([a-z]*\):.* ## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16
	@echo '  KAFKA=embedded|apache|host:port chooses the Kafka, BROKERS=1|3 its brokers; STAY=1 keeps the demo running'

demo: ## Real data through the whole pipeline, with a worker killed half-way
	@scripts/setup.sh build postgres $(KAFKA_NEEDS)
	cargo build --workspace --bins
	target/debug/devstack demo

test: ## Everything, with Apache Kafka and Postgres
	@scripts/setup.sh build postgres kafka observe
	@scripts/test.sh

bench: ## The measured claims; writes target/bench/report.json
	@scripts/setup.sh build postgres kafka
	cargo build --release --workspace --bins
	target/release/bench

lint: ## Format, clippy, licences, rustdoc
	@scripts/setup.sh build
	@scripts/lint.sh

chaos: ## The laws under fire: kills, freezes, cuts; ROUNDS=30 SEED=7, then front doors for DOORS=120 seconds
	@scripts/setup.sh build postgres kafka
	cargo build --workspace --bins
	target/debug/chaos
	target/debug/chaos --front-doors $(or $(DOORS),120)

foreign: ## The front door asked by clients that are not ours: grpcio, websockets, httpx-sse, Schemathesis
	@scripts/setup.sh build postgres foreign
	cargo build --workspace --bins
	target/debug/devstack run --kafka embedded -- scripts/foreign.sh

up: ## A stack in the background; then: . .millrace/env
	@scripts/setup.sh build postgres $(KAFKA_NEEDS)
	cargo build --workspace --bins
	target/debug/devstack up

down: ## End the stack in the background
	@if [ -x target/debug/devstack ]; then target/debug/devstack down; \
	elif [ -e .millrace/stack.json ]; then cargo run -q -p millrace-devstack -- down; \
	else echo 'Nothing is running.'; fi
