"""Writes Caffe networks: descriptions (.prototxt) of SSD300 and SSD512, and files of weights.

The layers are listed here once more, from the original's description of them, and not taken from
the models that are tested with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from misc_utils.caffe_schema import (
    BlobProto,
    BlobShape,
    LayerParameter,
    NetParameter,
    PriorBoxParameter,
    V1LayerParameter,
)

# (name, filters, kernel, pad, stride, dilation) or (name, kernel, pad, stride) of a pool.
VGG16 = (
    *(("conv1_1", 64), ("conv1_2", 64), ("pool1", 2, 0, 2)),
    *(("conv2_1", 128), ("conv2_2", 128), ("pool2", 2, 0, 2)),
    *(("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256), ("pool3", 2, 0, 2)),
    *(("conv4_1", 512), ("conv4_2", 512), ("conv4_3", 512), ("pool4", 2, 0, 2)),
    *(("conv5_1", 512), ("conv5_2", 512), ("conv5_3", 512), ("pool5", 3, 1, 1)),
    *(("fc6", 1024, 3, 6, 1, 6), ("fc7", 1024, 1, 0)),
)
EXTRA_300 = (
    *(("conv6_1", 256, 1, 0), ("conv6_2", 512, 3, 1, 2)),
    *(("conv7_1", 128, 1, 0), ("conv7_2", 256, 3, 1, 2)),
    *(("conv8_1", 128, 1, 0), ("conv8_2", 256, 3, 0, 1)),
    *(("conv9_1", 128, 1, 0), ("conv9_2", 256, 3, 0, 1)),
)
EXTRA_512 = (
    *EXTRA_300[:4],
    *(("conv8_1", 128, 1, 0), ("conv8_2", 256, 3, 1, 2)),
    *(("conv9_1", 128, 1, 0), ("conv9_2", 256, 3, 1, 2)),
    *(("conv10_1", 128, 1, 0), ("conv10_2", 256, 4, 1, 1)),
)
PREPROCESSED_MEAN = (104, 117, 123)  # BGR


@dataclass
class CaffeNetwork:
    """A network being written.

    Attributes:
        size: Side of the input in pixels.
        n_scores: Classes, with background.
        text: The prototxt so far, one entry a layer.
        weights: {layer: arrays in Caffe's layout}.
        priors: {PriorBox layer: its parameters}.
    """

    size: int
    n_scores: int
    text: list[str] = field(default_factory=list)
    weights: dict[str, list[np.ndarray]] = field(default_factory=dict)
    priors: dict[str, PriorBoxParameter] = field(default_factory=dict)

    def add(self, name: str, kind: str, bottoms: Sequence[str], parameters: str = "") -> str:
        inputs = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text.append(
            f'layer {{ name: "{name}" type: "{kind}" {inputs} top: "{name}" {parameters} }}'
        )
        return name


def random_ssd(size: int, n_classes: int, scales: Sequence[float], seed: int) -> CaffeNetwork:
    """Write SSD300 or SSD512 with random weights whose activations neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    network = CaffeNetwork(size, n_classes + 1)
    network.text.append(f'input: "data" input_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}')
    channels, tops = {"data": 3}, {}
    x = "data"
    for name, *numbers in (*VGG16, *(EXTRA_300 if size == 300 else EXTRA_512)):
        if name.startswith("pool"):
            kernel, pad, stride = numbers
            channels[name] = channels[x]
            x = network.add(
                name,
                "Pooling",
                [x],
                f"pooling_param {{ pool: MAX kernel_size: {kernel} stride: {stride} pad: {pad} }}",
            )
            continue
        channels[name] = numbers[0]
        x = _convolution(network, name, x, channels, numbers, rng)
        network.text.append(f'layer {{ name: "{x}_relu" type: "ReLU" bottom: "{x}" top: "{x}" }}')
        tops[name] = x
    _normalize(network, rng)
    channels["conv4_3_norm"] = 512
    last = 10 if size == 512 else 9
    sources = ["conv4_3_norm", "fc7", *(f"conv{number}_2" for number in range(6, last + 1))]
    steps = (8, 16, 32, 64, 100, 300) if size == 300 else (8, 16, 32, 64, 128, 256, 512)
    parts = {"mbox_loc": [], "mbox_conf": [], "mbox_priorbox": []}
    for layer, source in enumerate(sources):
        ratios = (2, 3) if 0 < layer < len(sources) - 2 else (2,)
        n_boxes = 2 + 2 * len(ratios)
        for kind, n in (("mbox_loc", 4), ("mbox_conf", n_classes + 1)):
            name = f"{source}_{kind}"
            _convolution(network, name, source, channels, (n_boxes * n, 3, 1), rng, head=True)
            network.add(
                f"{name}_perm",
                "Permute",
                [name],
                "permute_param { order: 0 order: 2 order: 3 order: 1 }",
            )
            parts[kind].append(
                network.add(
                    f"{name}_flat", "Flatten", [f"{name}_perm"], "flatten_param { axis: 1 }"
                )
            )
        prior = prior_parameters(
            scales[layer] * size, scales[layer + 1] * size, ratios, steps[layer]
        )
        network.priors[f"{source}_mbox_priorbox"] = prior
        parts["mbox_priorbox"].append(
            network.add(
                f"{source}_mbox_priorbox",
                "PriorBox",
                [source, "data"],
                f"prior_box_param {{ {_as_text(prior)} }}",
            )
        )
    _detections(network, parts)
    return network


def prior_parameters(smallest: float, largest: float, ratios: Sequence[float], step: float):
    return PriorBoxParameter(
        min_size=[smallest],
        max_size=[largest],
        aspect_ratio=ratios,
        flip=True,
        clip=False,
        variance=[0.1, 0.1, 0.2, 0.2],
        step=step,
        offset=0.5,
    )


def _as_text(prior) -> str:
    entries = []
    for name in ("min_size", "max_size", "aspect_ratio", "variance"):
        entries += [f"{name}: {value:.8g}" for value in getattr(prior, name)]
    return " ".join([*entries, f"flip: true clip: false step: {prior.step:g} offset: 0.5"])


def _convolution(network, name, bottom, channels, numbers, rng, head=False) -> str:
    filters, kernel, pad, stride, dilation = (*numbers, *(None, 3, 1, 1, 1)[len(numbers) :])
    n_inputs = channels[bottom]
    # He et al.: keeps the size of activations from layer to layer.
    deviation = np.sqrt(2 / (n_inputs * kernel**2))
    if head:  # offsets of about 1, from activations of about 0.5 and 50
        deviation *= 2 if bottom == "conv4_3_norm" else 0.02
    weights = rng.normal(0, deviation, (filters, n_inputs, kernel, kernel))
    bias = rng.normal(0, 0.1, filters)
    if name.endswith("_mbox_conf"):
        bias[:: network.n_scores] += 6  # most boxes are background, as they should be
    network.weights[name] = [weights.astype(np.float32), bias.astype(np.float32)]
    return network.add(
        name,
        "Convolution",
        [bottom],
        f"convolution_param {{ num_output: {filters} kernel_size: {kernel} pad: {pad} "
        f"stride: {stride} dilation: {dilation} }}",
    )


def _normalize(network: CaffeNetwork, rng: np.random.Generator) -> None:
    network.weights["conv4_3_norm"] = [rng.uniform(5, 25, 512).astype(np.float32)]
    network.add(
        "conv4_3_norm",
        "Normalize",
        ["conv4_3"],
        'norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } '
        "channel_shared: false }",
    )


def _detections(network: CaffeNetwork, parts: Mapping[str, Sequence[str]]) -> None:
    for name, bottoms in parts.items():
        axis = 2 if name == "mbox_priorbox" else 1
        network.add(name, "Concat", bottoms, f"concat_param {{ axis: {axis} }}")
    network.add(
        "mbox_conf_reshape",
        "Reshape",
        ["mbox_conf"],
        f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {network.n_scores} }} }}",
    )
    network.add("mbox_conf_softmax", "Softmax", ["mbox_conf_reshape"], "softmax_param { axis: 2 }")
    network.add("mbox_conf_flatten", "Flatten", ["mbox_conf_softmax"], "flatten_param { axis: 1 }")
    network.add(
        "detection_out",
        "DetectionOutput",
        ["mbox_loc", "mbox_conf_flatten", "mbox_priorbox"],
        f"detection_output_param {{ num_classes: {network.n_scores} share_location: true "
        "background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 400 } "
        "code_type: CENTER_SIZE keep_top_k: 200 confidence_threshold: 0.01 }",
    )


def blob(array: np.ndarray, legacy_shape: bool = False, chunks: int = 1) -> bytes:
    """Write an array, with a shape of today's or (num, channels, height, width) of 2014."""
    message = BlobProto()
    if legacy_shape:
        shape = (1,) * (4 - array.ndim) + array.shape
        message.num, message.channels, message.height, message.width = shape
    else:
        message.shape = BlobShape(dim=array.shape).SerializeToString()
    numbers = message.double_data if array.dtype == np.float64 else message.data
    numbers.extend(part.tobytes() for part in np.array_split(array.reshape(-1), chunks))
    return message.SerializeToString()


def write_caffemodel(
    path: Path,
    weights: Mapping[str, Sequence[np.ndarray]],
    priors: Mapping[str, PriorBoxParameter] | None = None,
    v1: bool = False,
) -> Path:
    """Write a file of weights, with the layer messages of today or those of 2014 (V1)."""
    network = NetParameter()
    for name, arrays in weights.items():
        blobs = [blob(array, legacy_shape=v1) for array in arrays]
        if v1:
            layer = V1LayerParameter(name=name.encode(), blobs=blobs)
            network.layers.append(layer.SerializeToString())
        else:
            layer = LayerParameter(name=name.encode(), type=b"Convolution", blobs=blobs)
            network.layer.append(layer.SerializeToString())
    for name, prior in (priors or {}).items():
        layer = LayerParameter(
            name=name.encode(), type=b"PriorBox", prior_box_param=prior.SerializeToString()
        )
        network.layer.append(layer.SerializeToString())
    path.write_bytes(network.SerializeToString())
    return path
