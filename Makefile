# make demo: install, train a Sokoban agent with Skill-SD, show what it learned.   make test: the test suite.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.PHONY: install demo test lint clean

install: .venv/.installed

# On Linux without an NVIDIA driver the CPU build of torch saves gigabytes; its index is used where it answers.
.venv/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	@index=""; \
	if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	   curl -sfI --max-time 5 https://download.pytorch.org/whl/cpu/torch/ >/dev/null 2>&1; then \
	   index="--index-url https://download.pytorch.org/whl/cpu"; fi; \
	$(BIN)/pip install --quiet --disable-pip-version-check $$index "$$(grep -i '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	@rm -rf $(OUT)
	$(BIN)/skillsd train sokoban-demo --out $(OUT)

test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
