# The only commands the README needs. Every target sets the machine up first; set-up is idempotent and needs no root.

CARGO ?= cargo
BIN := $(or $(CARGO_TARGET_DIR),target)/release

# make demo MODEL=scvi DATA=file.h5ad BATCH=key LABELS=key QUERY=a,b,c SEED=n
MODEL ?=
DATA ?=
BATCH ?=
LABELS ?=
QUERY ?=
SEED ?= 0
SITES ?= 3
OUT ?= demo-out

# make quality DATA=file.h5ad UPSTREAM=dir (what benches/peers/surgery_quality.py wrote) pairs with scvi-tools on its references; AFFINE=conditions
# imports these with a decoder's batch norm of conditions, EPOCHS=n is for surgery.
# make quality DATA=file.h5ad SEEDS=0,1,2 PEER=figures.json; without obs column `split` also REFERENCE=a,b QUERY=c,d. EPOCHS=n is for the
# reference and for surgery; VARIANT=half or VARIANT=unseen UNSEEN=type is for scPoli.
REFERENCE ?=
PEER ?=
EPOCHS ?=
VARIANT ?=
UNSEEN ?=
UPSTREAM ?=
AFFINE ?=

# make simulate SEEDS=2000 FIRST_SEED=0, or MUTATIONS=1
FIRST_SEED ?= 0
MUTATIONS ?=

# Seeds of `quality` are a list, of `simulate` a number.
SEEDS ?=
THREE_SEEDS := 0,1,2

# make campaign KILLS=100 SEED=1
KILLS ?= 100

.PHONY: help setup build demo quality peers peers-day tutorials privacy test simulate campaign monitoring page release containers installed chart bench lint

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Get libtorch and CMake into the user's cache and point cargo at them
	@bash deploy/setup.sh

build: setup ## Build all programs
	$(CARGO) build --release --locked --workspace --bins

ifneq ($(DATA),)
ifneq ($(and $(BATCH),$(LABELS),$(QUERY)),)
DEMO_CELLS = --data "$(DATA)" --batch-key "$(BATCH)" --labels-key "$(LABELS)" --query "$(QUERY)"
else
DEMO_CELLS = $(error DATA needs BATCH (obs column), LABELS (obs column) and QUERY (batches that become sites, a,b,c))
endif
else
DEMO_CELLS = --sites $(SITES)
endif

demo: build ## Run the main job as real processes: three coordinators, one site per query batch (MODEL= DATA= BATCH= LABELS= QUERY= SEED=)
	$(BIN)/archipelago-demo --out "$(OUT)" --seed $(SEED) $(if $(MODEL),--model $(MODEL)) $(if $(SETS),--gene-sets "$(SETS)") $(DEMO_CELLS)

quality: build ## Map with scVI and scANVI, or with another model, over several seeds and judge the result (MODEL=trvae|scpoli|scgen|perturbation|expimap|treearches|multigrate|sagenet|mvtcr DATA= SEEDS= PEER= REFERENCE= QUERY= BATCH= LABELS= COARSE= SETS= QUERY_DATA= PARTS= EPOCHS= VARIANT= UNSEEN= OUT=)
	$(BIN)/archipelago-quality --out "$(if $(filter-out demo-out,$(OUT)),$(OUT),quality-out)" --data "$(DATA)" --seeds "$(or $(SEEDS),$(THREE_SEEDS))" \
		$(if $(MODEL),--model $(MODEL)) $(if $(QUERY),--reference "$(REFERENCE)" --query "$(QUERY)") $(if $(PEER),--peer "$(PEER)") \
		$(if $(BATCH),--batch-key "$(BATCH)") $(if $(LABELS),--labels-key "$(LABELS)") $(if $(COARSE),--coarse-key "$(COARSE)") \
		$(if $(SETS),--gene-sets "$(SETS)") $(if $(QUERY_DATA),--query-data "$(QUERY_DATA)") $(if $(PARTS),--partition-keys "$(PARTS)") \
		$(if $(UPSTREAM),--upstream "$(UPSTREAM)") $(if $(AFFINE),--batch-norm-affine $(AFFINE)) \
		$(if $(EPOCHS),--reference-epochs $(EPOCHS) --surgery-epochs $(EPOCHS)) $(if $(VARIANT),--variant $(VARIANT)) $(if $(UNSEEN),--unseen "$(UNSEEN)")

# ARCHIPELAGO_PEERS=dir names a virtual environment with scvi-tools; without it, one is made in .venv-peers. ARCHIPELAGO_SCARCHES=dir names one
# with scArches 0.6.1; without it, one is made in the user's cache, by a Python 3.11. ARCHIPELAGO_MULTIGRATE is the same of Multigrate 1.0.1,
# by a Python 3.12.
peers: build ## Compare with scvi-tools, scArches, mvTCR and Multigrate: saved models there and back
	peer=$$(benches/peers/install.sh) && "$$peer" benches/peers/roundtrip.py --worker $(BIN)/archipelago-worker
	peer=$$(benches/peers/install_scarches.sh) && { test -z "$$peer" || \
		"$$peer" benches/peers/roundtrip_scarches.py --worker $(BIN)/archipelago-worker && \
		"$$peer" benches/peers/roundtrip_sagenet.py --worker $(BIN)/archipelago-worker && \
		"$$peer" benches/peers/roundtrip_mvtcr.py --worker $(BIN)/archipelago-worker; }
	peer=$$(benches/peers/install_multigrate.sh) && { test -z "$$peer" || \
		"$$peer" benches/peers/roundtrip_multigrate.py --worker $(BIN)/archipelago-worker; }

peers-day: build ## Compare the data scientist's day with scanpy and scib-metrics, step by step
	peer=$$(benches/peers/install.sh) && \
		{ "$$peer" -c 'import scanpy, skmisc, leidenalg, scib_metrics' 2>/dev/null || \
			"$$peer" -m pip install --quiet scanpy==1.11.5 scikit-misc igraph leidenalg scib-metrics; } && \
		"$$peer" benches/peers/scanpy_day.py --worker $(BIN)/archipelago-worker --data $(or $(ARCHIPELAGO_SHARED),../shared)/data

tutorials: build ## Run the tutorials' commands on the real cells and renew their pictures
	ARCHIPELAGO_TUTORIALS=1 $(CARGO) test --release --locked -p archipelago-worker --test cli tutorials

privacy: setup ## Measure how well membership of cells and people is told from what leaves (SHADOWS=); privacy-out/privacy.md
	$(CARGO) build --release --locked -p archipelago-worker -p archipelago-bench-privacy --bins
	$(BIN)/archipelago-privacy --data "$(or $(ARCHIPELAGO_SHARED),../shared)/data" --out privacy-out $(if $(SHADOWS),--shadows $(SHADOWS))

# Property tests draw the same examples everywhere, so that a run that passes here passes there; PROPTEST_RNG_SEED= draws others.
export PROPTEST_RNG_SEED ?= 1

test: build ## Run all tests (with cargo-nextest where it is installed)
	$(CARGO) test --release --locked --workspace --doc
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --release --locked --workspace; \
	else \
		$(CARGO) test --release --locked --workspace --bins --lib --tests; \
	fi

ifneq ($(MUTATIONS),)
SIMULATE = --features mutations -- mutations
else
SIMULATE = -- seeds --n-seeds $(or $(SEEDS),2000) --first-seed $(FIRST_SEED)
endif

simulate: ## Run consortia in virtual time with everything going wrong (SEEDS= FIRST_SEED=), or show that broken rules are noticed (MUTATIONS=1)
	$(CARGO) run --release --locked -p archipelago-simulation --bin archipelago-simulate $(SIMULATE)

campaign: ## Kill, stop and cut off real processes and audit what was acknowledged (KILLS= SEED=); campaign-out/summary.json
	$(CARGO) build --release --locked -p archipelago-coordinator -p archipelago-campaign --bins
	$(BIN)/archipelago-campaign run --kills $(KILLS) --seed $(SEED) --out campaign-out --worker-death

monitoring: ## Hurt a real consortium beside a real Prometheus (Debian's package) and see alerts fire and dashboards have data
	$(CARGO) build --release --locked -p archipelago-coordinator -p archipelago-worker --bins
	python3 deploy/prometheus/prove.py --bin $(BIN)

page: ## Look at the page of a real consortium in a browser (Debian's chromium, nodejs and npm) and have axe-core judge it; page-out/
	$(CARGO) build --release --locked -p archipelago-coordinator -p archipelago-worker --bins
	python3 deploy/page/prove.py --bin $(BIN)

release: setup ## Pack both programs for other machines: archives, deb, rpm, notices, bills of materials, checksums in dist/
	$(CARGO) build --release --locked -p archipelago-coordinator -p archipelago-worker --bins
	python3 deploy/release/pack.py --bin $(BIN) --out dist

containers: release ## Build both images (podman), start three coordinators and two sites in containers, map, kill the leader's
	python3 deploy/container/prove.py --bin $(BIN) --dist dist

installed: ## Run a consortium from dist/ alone: an empty root, no network (as root)
	python3 deploy/release/installed.py --dist dist

chart: ## Lint, render and validate the Helm chart
	python3 deploy/helm/check.py

# Timings need a quiet machine: nothing else is built or run beside them.
bench: setup ## Measure training, surgery and embedding beside scvi-tools, then coordinators under load (QUICK=1: the main cases only)
	$(CARGO) build --release --locked -p archipelago-benches -p archipelago-worker -p archipelago-coordinator -p archipelago-bench-coordinator --bins
	peer=$$(benches/peers/install.sh) && $(BIN)/archipelago-bench suite --peer "$$peer" $(if $(ARCHIPELAGO_SCARCHES),--native-peer "$(ARCHIPELAGO_SCARCHES)/bin/python") $(if $(ARCHIPELAGO_MULTIGRATE),--multigrate-peer "$(ARCHIPELAGO_MULTIGRATE)/bin/python") --out bench-out $(if $(QUICK),--quick)
	$(if $(QUICK),,$(BIN)/archipelago-bench large --out bench-out)
	$(BIN)/archipelago-bench-coordinator --out bench-out

lint: setup ## Check formatting, lints and documentation, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps
