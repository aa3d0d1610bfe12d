"""Installation of ssd-keras: the importable packages sit at the top level of the repository."""

from pathlib import Path

from setuptools import setup

PACKAGES = [
    "bounding_box_utils",
    "data_generator",
    "eval_utils",
    "keras_layers",
    "keras_loss_function",
    "misc_utils",
    "models",
    "ssd_encoder_decoder",
]

EXTRAS = {
    # Keras' other backends: chosen with the environment variable KERAS_BACKEND.
    "jax": ["jax>=0.5"],
    "torch": ["torch>=2.6"],
    # What tests and benchmarks compare with, in the environment of PyTorch.
    "torchvision": ["torchvision>=0.21"],
    # Other runtimes' files (misc_utils.export): what writes ONNX, and what runs the files.
    "export": ["onnx>=1.23", "tf2onnx>=1.17", "onnxruntime>=1.32", "ai-edge-litert>=2.3"],
    # The training script and the digit scenes: plots, and the pictures that two packages ship.
    "examples": ["matplotlib>=3.9", "scikit-learn>=1.5", "scikit-image>=0.24"],
    # The notebooks, and executing them (notebooks/execute.py): what the examples need, COCO's
    # numbers, and Jupyter.
    "notebooks": ["ipykernel>=6.29", "matplotlib-inline>=0.1.7", "nbclient>=0.10", "nbformat>=5.9"],
    # The numbers of MS COCO (eval_utils.coco_utils.evaluate_coco).
    "coco": ["faster-coco-eval>=1.8"],
    # The pages of the documentation (docs/build.py).
    "docs": ["pdoc>=16"],
    # Logs for TensorBoard (examples/train_ssd.py --tensorboard); they need TensorFlow, too.
    "tensorboard": ["tensorboard>=2.20"],
}
EXTRAS["notebooks"] += EXTRAS["examples"] + EXTRAS["coco"]
EXTRAS["test"] = [
    *EXTRAS["notebooks"],
    *EXTRAS["export"],
    *EXTRAS["docs"],
    *EXTRAS["tensorboard"],
    "hypothesis>=6.100",
    "pycocotools>=2.0.8",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "ruff>=0.9",
]

setup(
    name="ssd-keras",
    version="0.1.0",
    description="Single Shot MultiBox Detector for Keras 3: the SSD one can understand",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=PACKAGES,
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.15",
        "numpy>=2.0",
        "opencv-python>=4.12",
        "lxml>=5.3",
        "h5py>=3.12",
        "protobuf>=5.26",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
)
