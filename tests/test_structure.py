"""What the rooms of the house may know of each other, and what each of them must say of itself."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NUMPY_PACKAGES = ("bounding_box_utils", "ssd_encoder_decoder", "data_generator", "eval_utils")
KERAS_PACKAGES = ("keras_layers", "keras_loss_function", "models", "misc_utils")
PACKAGES = NUMPY_PACKAGES + KERAS_PACKAGES
FRAMEWORKS = ("keras", "tensorflow", "jax", "torch")

# Which packages a package may import. What is not listed for it, it must not know.
MAY_IMPORT = {
    "bounding_box_utils": set(),
    "ssd_encoder_decoder": {"bounding_box_utils"},
    "data_generator": {"bounding_box_utils"},
    "eval_utils": {"bounding_box_utils", "data_generator", "ssd_encoder_decoder"},
    "keras_layers": {"bounding_box_utils", "ssd_encoder_decoder"},
    "keras_loss_function": {"bounding_box_utils", "ssd_encoder_decoder"},
    "models": {"keras_layers", "keras_loss_function", "ssd_encoder_decoder"},
    "misc_utils": set(PACKAGES),
}
# The ways up. One is inside two methods: `to_pydataset` and `to_tf_dataset` make what Keras trains
# on; importing the module, as worker processes do, does not take it (see the first test). Another
# is in the module for Keras below. And `import models` is what makes all parts of a compiled model
# known to Keras, its optimizer among them.
DOORS = {
    ("models/__init__.py", "misc_utils.fine_tuning"),
    ("models/__init__.py", "misc_utils.training_schedules"),
    ("data_generator/batch_source.py", "misc_utils.training_data"),
    ("eval_utils/training_callback.py", "keras_layers.keras_layer_DecodeDetections"),
}
# Writing files in one step needs nothing but Python, so everybody may use it.
FOR_ALL = "misc_utils.files"
# The one module of a NumPy package that is there for Keras only: a callback is what Keras calls. It
# may also know the layer that decodes.
FOR_KERAS = "eval_utils.training_callback"


def modules_of(package: str) -> list[str]:
    (location,) = importlib.util.find_spec(package).submodule_search_locations
    return [package, *(m.name for m in pkgutil.walk_packages([location], f"{package}."))]


def source_files(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    assert files, folders
    return files


def imports_of(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (module, imported name) for every import statement of a file, however deep."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module or "", alias.name


def test_numpy_packages_load_no_deep_learning_framework():
    modules = [module for package in NUMPY_PACKAGES for module in modules_of(package)]
    assert len(modules) > 20
    modules.remove(FOR_KERAS)
    code = (
        f"import sys, importlib\nfor module in {modules!r}: importlib.import_module(module)\n"
        f"loaded = [name for name in {FRAMEWORKS!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", NUMPY_PACKAGES)
def test_numpy_packages_import_no_framework_lazily_either(package):
    allowed = {(f"{FOR_KERAS.replace('.', '/')}.py", "keras")}
    for path in source_files(package):
        for module, _ in imports_of(path):
            is_allowed = (path.relative_to(REPOSITORY).as_posix(), module) in allowed
            assert is_allowed or module.split(".")[0] not in FRAMEWORKS, f"{path} imports {module}"


@pytest.mark.parametrize("package", ["keras_layers", "keras_loss_function", "models"])
def test_no_backend_is_imported_with_a_module(package):
    # Inside of a function only, behind a question for the backend: no other need be installed.
    for path in source_files(package):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in FRAMEWORKS[1:], f"{path} imports {name}"


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="needs TensorFlow by choice")
def test_other_backends_load_no_tensorflow():
    modules = [module for package in KERAS_PACKAGES[:3] for module in modules_of(package)]
    code = (
        f"import sys, importlib\nfor module in {modules!r}: importlib.import_module(module)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_is_below_them(package):
    allowed = MAY_IMPORT[package] | {package}
    for path in source_files(package):
        for module, _ in imports_of(path):
            top = module.split(".")[0]
            place = path.relative_to(REPOSITORY).as_posix()
            is_door = module == FOR_ALL or (place, module) in DOORS
            assert is_door or top not in PACKAGES or top in allowed, f"{path} imports {module}"


def test_what_all_may_import_imports_nothing_but_python():
    for module, _ in imports_of(REPOSITORY / f"{FOR_ALL.replace('.', '/')}.py"):
        assert module.split(".")[0] in sys.stdlib_module_names, module


def test_private_names_stay_in_their_package():
    for path in source_files(*PACKAGES, "examples", "benchmarks", "tests"):
        own_package = path.relative_to(REPOSITORY).parts[0]
        for module, name in imports_of(path):
            top, *rest = module.split(".")
            if top not in PACKAGES or top == own_package:
                continue
            private = [part for part in (*rest, name or "") if part.startswith("_")]
            assert not private, f"{path} imports {module}.{name}"


def public_definitions(path: Path) -> Iterator[ast.AST]:
    """Yield the public functions and classes of a file, and the public methods of these."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, definitions) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, definitions) and not member.name.startswith("_"):
                        yield member


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_public_has_a_docstring(package):
    for path in source_files(package):
        if path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip():
            continue
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
        for node in public_definitions(path):
            where = f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}"
            assert ast.get_docstring(node), where


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_say_their_types(package):
    for path in source_files(package):
        for node in public_definitions(path):
            if isinstance(node, ast.ClassDef):
                continue
            where = f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [
                a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
            ]
            assert not untyped, f"{where}: {untyped}"


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_stay_readable(package):
    for path in source_files(package):
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        assert n_lines <= 500, f"{path} has {n_lines} lines: split it by subject"
