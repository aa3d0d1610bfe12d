# Two commands matter: `make demo` and `make test`. Both need Python 3.11+ and the package index only.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo

.PHONY: demo test test-slow lint format benchmark clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/digit_scenes.py --output $(DEMO_DIR)/digit_scenes --train 3000
	$(BIN)/python examples/train_ssd7.py --data $(DEMO_DIR)/digit_scenes --output $(DEMO_DIR)/ssd7 \
		--image-size 144x192 --flip none --augmentation photometric --minutes 7 --resume

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed
	for name in encoding decoding evaluation training_step; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO_DIR) build *.egg-info
