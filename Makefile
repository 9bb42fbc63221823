# One command per habit. Everything lives in .venv; nothing outside this folder is touched.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: run test test-gpu bench-previews check docs train-shapes train-lora eval-shapes lock soak fuzz audit image-test setup

run: setup  ## draw test_input.json with the local test of the RunPod SDK
	@$(BIN)/python handler.py

test: setup  ## every test that needs no GPU and no root
	$(BIN)/python -m pytest -n auto --dist loadfile

test-gpu: setup  ## every test that needs a GPU
	$(BIN)/python -m pytest tests/gpu

bench-previews: setup  ## what previews cost, as a share of a job's time
	$(BIN)/python -m benchmarks.previews

check: setup  ## lint, format, types, and whether the generated documentation is current
	$(BIN)/hadolint Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m tools.reference --check

docs: setup  ## write the generated parts of the documentation again
	$(BIN)/python -m tools.reference

train-shapes: setup  ## the embedded model again, from nothing, on one GPU; run again, it goes on where it stopped
	$(BIN)/python -m training.train

train-lora: setup  ## the embedded model's neon LoRA, for the model as it is now; half an hour without a GPU
	$(BIN)/python -m training.lora

eval-shapes: setup  ## the embedded model's table of figures, on a small sample; all with FULL=1
	$(BIN)/python -m training.evaluate $(if $(FULL),--full)

lock: setup  ## requirements.lock, for the image
	$(BIN)/uv pip compile --no-config --quiet --generate-hashes --only-binary :all: --python-version 3.11 \
		--python-platform x86_64-unknown-linux-gnu --custom-compile-command "make lock" \
		requirements.txt -o requirements.lock

soak: setup  ## 2,000 mixed jobs, one in five hostile, through the real worker; takes about an hour
	$(BIN)/python -m benchmarks.soak

fuzz: setup  ## the tests that make up their own input, for much longer than in `make test`
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n auto --dist loadfile -m fuzz

audit: setup  ## known vulnerabilities of what the image is made of; needs the internet
	$(BIN)/uv tool run pip-audit --require-hashes --no-deps -r requirements.lock

image-test: setup  ## build the image with buildah and have it serve jobs; Debian 12, root, buildah, debootstrap
	$(BIN)/python -m tests.image.test_image

setup: $(READY)

$(READY): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
