"""Time whole networks: forward, forward with decoding, training step, beside torchvision's SSD300.

    python -m benchmarks.networks
    python -m benchmarks.networks --models ssd300 ssd512 ssd7 --batches 1 8 32 --rounds 5

Every contender runs in a process of its own, with the Python of its own virtual environment, and
the contenders take turns for several rounds, so that whatever else the machine does hits all of
them. Printed are medians over all repetitions of all rounds, in milliseconds an image, and the
ratio to torchvision's network (in its faster memory layout, channels last) at the same precision.

Keras on TensorFlow runs with this Python; on JAX and PyTorch with `.venv-jax` and `.venv-torch`,
which `make test-jax` and `make test-torch` make; torchvision with the latter, too. A contender
whose environment is missing is left out, with a word.

The weights are random, but the bias of the background class is set so that about 3,500 scores of
an image exceed the confidence threshold of 0.01, as they do in a trained SSD300: how long decoding
takes depends on that number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.timing import seconds

REPOSITORY = Path(__file__).resolve().parent.parent
# Which Python a contender needs, besides the one that runs this.
ENVIRONMENTS = {"tensorflow": None, "jax": "jax", "torch": "torch", "torchvision": "torch"}
WORKS = ("forward", "inference", "inference_fast", "training")
SIZES = {"ssd300": (300, 300, 3), "ssd512": (512, 512, 3), "ssd7": (300, 480, 3)}
N_CLASSES, N_CANDIDATES, CONFIDENCE = 20, 3500, 0.01
SCALES = {
    "ssd300": (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
    "ssd512": (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
}


def images_of(model: str, batch: int) -> np.ndarray:
    """Return uint8 images `(batch, height, width, 3)`: noise with some structure."""
    height, width, channels = SIZES[model]
    coarse = np.random.default_rng(0).integers(0, 256, (batch, height // 20, width // 20, channels))
    rows, columns = np.arange(height) // 21, np.arange(width) // 21
    return coarse[:, rows][:, :, columns].astype(np.uint8)


def background_bias(probabilities: np.ndarray) -> float:
    """Find what to add to the background's logit for `N_CANDIDATES` candidates an image.

    Arguments:
        probabilities: `(batch, n_boxes, n_classes + 1)`, background first.
    """
    # p -> p exp(bias) / (1 + p0 (exp(bias) - 1)) keeps the ratios of all other classes.
    low, high = -30.0, 30.0
    for _ in range(60):
        bias = (low + high) / 2
        scale = 1 + probabilities[..., :1].astype(np.float64) * np.expm1(bias)
        candidates = np.count_nonzero(probabilities[..., 1:] / scale > CONFIDENCE)
        low, high = (low, bias) if candidates < N_CANDIDATES * len(probabilities) else (bias, high)
    return low


def measure_keras(
    model_name: str, precision: str, works: list, batches: list, repetitions: int
) -> dict:
    """Return {"work batch": [seconds]} of one of this library's models on Keras' backend."""
    import keras

    from keras_loss_function.keras_ssd_loss import SSDLoss
    from models.keras_ssd7 import build_model
    from models.keras_ssd300 import ssd_300
    from models.keras_ssd512 import ssd_512
    from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

    if precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    builder = {"ssd300": ssd_300, "ssd512": ssd_512, "ssd7": build_model}[model_name]
    settings = {"scales": SCALES[model_name]} if model_name in SCALES else {}

    def built(mode: str) -> keras.Model:
        model = builder(SIZES[model_name], N_CLASSES, mode=mode, **settings)
        if mode != "training":
            model.set_weights(raw.get_weights())
        return model

    raw = built("training")
    predictions = raw.predict_on_batch(images_of(model_name, 1))
    bias = background_bias(predictions[..., : N_CLASSES + 1])
    for layer in raw.layers:
        if layer.name.endswith("_mbox_conf") or layer.name in {f"classes{i}" for i in (4, 5, 6, 7)}:
            kernel, values = layer.get_weights()
            values[:: N_CLASSES + 1] += bias
            layer.set_weights([kernel, values])

    times = {}
    for work in works:
        model = raw if work in ("forward", "training") else built(work)
        for batch in batches:
            images = images_of(model_name, batch)
            if work == "training":
                model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), SSDLoss())
                labels = [np.array([[1, 20, 20, 90, 90], [2, 100, 30, 160, 200]])] * batch
                targets = SSDInputEncoder.from_model(model)(labels)
                times[f"{work} {batch}"] = seconds(
                    lambda m=model, x=images, y=targets: m.train_on_batch(x, y), repetitions
                )
            else:
                times[f"{work} {batch}"] = seconds(
                    lambda m=model, x=images: m.predict_on_batch(x), repetitions
                )
    return times


def measure_torchvision(precision: str, works: list, batches: list, repetitions: int) -> dict:
    """Return {"work batch": [seconds]} of torchvision's `ssd300_vgg16`."""
    import torch
    from torchvision.models.detection import ssd300_vgg16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=N_CLASSES + 1,
        score_thresh=CONFIDENCE,
        nms_thresh=0.45,
        detections_per_img=200,
        topk_candidates=400,
    ).to(device, memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def tensors(batch: int) -> torch.Tensor:
        images = torch.from_numpy(images_of("ssd300", batch)).to(device)
        return (images.permute(0, 3, 1, 2).float() / 255).contiguous(
            memory_format=torch.channels_last
        )

    def raw(x: torch.Tensor) -> dict:
        return model.head(list(model.backbone(x).values()))

    def forward(x: torch.Tensor) -> np.ndarray:
        return raw(x)["bbox_regression"].float().cpu().numpy()

    def detections(x: torch.Tensor) -> list:
        return [image["boxes"].float().cpu().numpy() for image in model(list(x))]

    model.eval()
    times = {}
    with torch.inference_mode(), autocast:
        logits = raw(tensors(1))["cls_logits"].float()
        bias = background_bias(torch.softmax(logits, -1).cpu().numpy())
        for layer in model.head.classification_head.module_list:
            layer.bias[:: N_CLASSES + 1] += bias
        for batch in batches:
            x = tensors(batch)
            if "forward" in works:
                times[f"forward {batch}"] = seconds(lambda x=x: forward(x), repetitions)
            if "inference" in works:
                times[f"inference {batch}"] = seconds(lambda x=x: detections(x), repetitions)
    if "training" in works:
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
        target = {
            "boxes": torch.tensor([[20.0, 20, 90, 90], [100, 30, 160, 200]], device=device),
            "labels": torch.tensor([1, 2], device=device),
        }

        def step(x: torch.Tensor) -> float:
            optimizer.zero_grad()
            with autocast:
                loss = sum(model(list(x), [target] * len(x)).values())
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        for batch in batches:
            x = tensors(batch)
            times[f"training {batch}"] = seconds(lambda x=x: step(x), repetitions)
    return times


def run(contender: str, python: Path, arguments: argparse.Namespace, model: str, precision: str):
    """Measure a contender in a process of its own; return what it measured, or None."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    if contender != "torchvision":
        environment["KERAS_BACKEND"] = contender
    process = subprocess.run(
        [
            *(python, "-m", "benchmarks.networks", "--child", contender),
            *("--models", model, "--precisions", precision),
            *("--works", *arguments.works),
            *("--batches", *map(str, arguments.batches)),
            *("--repetitions", str(arguments.repetitions)),
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{contender}, {model}, {precision}: failed: {reason}", file=sys.stderr)
        return None
    return json.loads(process.stdout.strip().splitlines()[-1])


def child(arguments: argparse.Namespace) -> None:
    """Measure one contender at one precision and print the times as JSON."""
    (precision,), (model,) = arguments.precisions, arguments.models
    settings = (precision, arguments.works, arguments.batches, arguments.repetitions)
    if arguments.child == "torchvision":
        times = measure_torchvision(*settings)
    else:
        times = measure_keras(model, *settings)
    print(json.dumps(times))


def main() -> None:
    """Let the contenders take turns, and print a table for each model and precision."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["ssd300"])
    parser.add_argument("--contenders", nargs="+", choices=ENVIRONMENTS, default=[*ENVIRONMENTS])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=[*WORKS])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repetitions", type=int, default=3, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return

    pythons = {}
    for contender in arguments.contenders:
        name = ENVIRONMENTS[contender]
        python = Path(sys.executable) if name is None else REPOSITORY / f".venv-{name}/bin/python"
        if python.exists():
            pythons[contender] = python
        else:
            print(f"{contender}: left out, since there is no {python.parent.parent.name}")
    for model in arguments.models:
        for precision in arguments.precisions:
            times = defaultdict(lambda: defaultdict(list))
            for _ in range(arguments.rounds):
                for contender, python in pythons.items():
                    if contender == "torchvision" and model != "ssd300":
                        continue
                    measured = run(contender, python, arguments, model, precision) or {}
                    for work, values in measured.items():
                        times[work][contender] += values
            print_table(model, precision, times)


def print_table(model: str, precision: str, times: dict) -> None:
    """Print a line for each work and batch size: milliseconds an image, ratio to torchvision."""
    print(f"\n{model} {SIZES[model]}, {precision}: median ms an image (ratio to torchvision)")
    for work, contenders in times.items():
        batch = int(work.split()[1])
        medians = {name: 1e3 * statistics.median(all_) / batch for name, all_ in contenders.items()}
        peer = medians.get("torchvision")
        cells = [
            f"{name} {value:.1f}"
            + (f" ({value / peer:.2f})" if peer and name != "torchvision" else "")
            for name, value in medians.items()
        ]
        print(f"  {work.split()[0]:15} batch {batch}:  " + "   ".join(cells))


if __name__ == "__main__":
    main()
