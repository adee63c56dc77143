# The commands of this project. `make help` lists them; what a target needs that is not here, it fetches into .tools/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TOOLS := .tools
ENVOYS := envoy-1.40.0 envoy-1.36.4
CARGO := cargo

# One line for each thing that may be missing, before and after what cargo itself has to say.
define BUILD_DEMO
command -v $(CARGO) >/dev/null || { echo "demo: $(CARGO) is missing: install Rust 1.95 or newer (https://rustup.rs)" >&2; exit 1; }; \
command -v curl >/dev/null || { echo "demo: curl is missing: the printed lines need it" >&2; exit 1; }; \
tests/tools.sh envoy-1.40.0 grpcurl; \
$(CARGO) build --bin countersign || { echo "demo: the build failed (the first one fetches crates: is there a network?)" >&2; exit 1; }
endef

.PHONY: help
help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

.PHONY: demo
demo: ## Envoy, Countersign, an issuer and an upstream on this machine, with curl lines to paste (Ctrl-C stops all of it)
	@$(BUILD_DEMO)
	@exec target/debug/countersign demo --tools $(TOOLS)

.PHONY: demo-check
demo-check: ## Starts the demo, runs its own printed lines, compares, stops
	@$(BUILD_DEMO)
	@exec target/debug/countersign demo --tools $(TOOLS) --check

.PHONY: tools
tools: ## Fetches what the tests need into .tools/
	@tests/tools.sh $(ENVOYS) grpcurl redis

.PHONY: browser
browser:
	@tests/tools.sh chromium

.PHONY: test
test: tools browser ## Every test; real Envoys and a real Redis are required
	@tests/run

.PHONY: test-deploy
test-deploy: tools ## The samples under envoy/ by Envoy itself, those under deploy/ against real schemas (installs validators into .tools/ once)
	@tests/envoy-samples.sh
	@tests/deploy/validate.sh

.PHONY: test-mesh
test-mesh: tools ## The mesh of docker-compose.yml, brought up and asked (needs a Docker engine)
	@$(CARGO) build --bin countersign
	@tests/mesh/run.sh

.PHONY: fuzz
fuzz: ## Coverage-guided fuzzing, FUZZ_SECONDS (60) for each target; FUZZ_TARGETS="token path" for some of them
	@fuzz/run "$${FUZZ_SECONDS:-60}" $${FUZZ_TARGETS:-}

.PHONY: hostile
hostile: ## A million hostile variants of good tokens, ten million random paths against a slow reference (optimised: minutes)
	HOSTILE_TOKENS=$${HOSTILE_TOKENS:-1000000} $(CARGO) test --release --test hostile_tokens t2_ -- --nocapture
	DIFFERENTIAL=$${DIFFERENTIAL:-10000000} $(CARGO) test --release --test fuzz_targets t4_ -- --nocapture

.PHONY: mutants
mutants: ## Small changes of verification, paths and caches, a seeded sample: fails when the tests notice fewer than 90 %
	@tests/mutants

.PHONY: lint
lint: ## Formatting, clippy with warnings as errors, bans, licences and sources of dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --lib --bins --quiet -- -D warnings
	$(CARGO) clippy --all-targets --quiet -- -D warnings -A clippy::unwrap_used -A clippy::expect_used -A clippy::panic -A unreachable_pub -A dead_code
	@tests/deny bans licenses sources

.PHONY: advisories
advisories: ## Known vulnerabilities of dependencies (fetches the advisory database)
	@tests/deny advisories

.PHONY: fmt
fmt: ## Formats the code
	$(CARGO) fmt

.PHONY: ci
ci: ## What CI runs
	@.ci/run

.PHONY: bench
bench: ## What a check costs beside a server that allows everything, in one run; ENVOY=1: through Envoys as well
	@tests/tools.sh redis grpcurl
	$(CARGO) bench --bench checks -- compare
	$(if $(ENVOY),@tests/tools.sh envoy-1.40.0 h2load)
	$(if $(ENVOY),$(CARGO) bench --bench checks -- envoy --out target/checks-envoy.md)

.PHONY: bench-memory
bench-memory: ## A million good tokens, then ten million of garbage: what they do to memory
	@tests/tools.sh redis grpcurl
	$(CARGO) bench --bench checks -- memory --out target/checks-memory.md

.PHONY: bench-devices
bench-devices: ## A million devices imported into Redis: time, memory, and checks beside ten and beside all of them
	@tests/tools.sh redis grpcurl
	$(CARGO) bench --bench checks -- devices --no-proof --out target/checks-devices.md

.PHONY: bench-flood
bench-flood: ## What bad signatures and tokens never seen do to the latency of good traffic
	@tests/tools.sh redis grpcurl
	$(CARGO) bench --bench checks -- flood --out target/checks-flood.md

.PHONY: bench-parts
bench-parts: ## The pure parts by themselves (criterion), and how fast a revocation is seen
	$(CARGO) bench --bench decision --bench risk --bench revocation_lag

.PHONY: revocation-lag
revocation-lag: tools ## How long after a revocation three warm replicas refuse: 1,000 of them, then with the feed cut
	$(CARGO) bench --bench revocation_lag

.PHONY: risk-eval
risk-eval: ## How good the risk model is, beside two anchors; COUNTERSIGN_SIMULATOR=FILE measures an outside simulator too
	$(CARGO) test --quiet --test risk_eval -- --nocapture --test-threads 1 $(if $(COUNTERSIGN_SIMULATOR),--include-ignored)

.PHONY: oracle
oracle: ## The decision against a second implementation, on a million random inputs (COUNTERSIGN_ORACLE_INPUTS for more)
	COUNTERSIGN_ORACLE_INPUTS=$${COUNTERSIGN_ORACLE_INPUTS:-1000000} $(CARGO) test --release --test decision_oracle -- --nocapture

.PHONY: signal-lag
signal-lag: tools ## From a security event's 202 to the refusal at three replicas behind real Envoys: p50, p90, p99
	$(CARGO) test --quiet --test e2e signals::lag -- --nocapture

.PHONY: docs
docs: ## The pages under docs/ that are made from the code: configuration, JSON Schema, reasons
	$(CARGO) run --quiet -- docs --out docs
