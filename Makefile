# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A CUDA machine gets the GPU build of FAISS, every other one the CPU build.
EXTRA ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
STAMP := $(VENV)/.installed-$(EXTRA)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test lint typecheck imports unit clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv and install everything from constraints.txt.

# uv installs several times faster than pip; where it cannot be had, pip does the same work.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip install --quiet uv; then \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode $${PIP_FIND_LINKS:+--find-links "$$PIP_FIND_LINKS"} \
			--constraints constraints.txt --editable '.[$(EXTRA),dev]'; \
	else \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt 'torch' && \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRA),dev]'; \
	fi
	@touch $@

demo: $(STAMP) ## Run the whole pipeline on the demo world and show what came out.
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/dvc repro
	@$(BIN)/cprd-pipeline inspect data/reports/evaluate.json
	@echo "Report: $(abspath data/reports/report.html)"

test: lint typecheck imports unit ## Everything that must pass before a change lands.

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

# One thread a process: the tests are small, and more threads than cores only wait for each other.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

clean: ## Remove what the stages wrote, the score store included.
	find data -mindepth 1 -maxdepth 1 ! -name README.md ! -name demo_report.png -exec rm -rf {} +
