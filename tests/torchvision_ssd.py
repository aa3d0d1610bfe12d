"""Runs torchvision's SSD300 with random weights and writes down everything.

    python tests/torchvision_ssd.py IMAGE.npy RESULT.npz

It runs with another Python, that of `.venv-torch` (see tests/README.md), and must need nothing but
NumPy, PyTorch and torchvision.
"""

import sys

import numpy as np
import torch
from torchvision.models.detection import ssd300_vgg16

N_CLASSES = 4  # with background


def main(image_path, result):
    torch.manual_seed(0)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=N_CLASSES).eval()
    with torch.no_grad():
        model.backbone.scale_weight.uniform_(5, 25)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
        for head in model.head.regression_head.module_list:
            head.bias.normal_(0, 1)
        for head in model.head.classification_head.module_list:
            head.bias[::N_CLASSES] += 4  # most boxes are background, as they should be
    image = torch.from_numpy(np.load(image_path)).permute(2, 0, 1) / 255
    raw = {}
    model.head.register_forward_hook(lambda module, inputs, output: raw.update(output))
    anchors = []
    model.anchor_generator.register_forward_hook(
        lambda module, inputs, output: anchors.extend(output)
    )
    with torch.no_grad():
        (detections,) = model([image])
        boxes = model.box_coder.decode_single(raw["bbox_regression"][0], anchors[0])
    np.savez(
        result,
        scores=raw["cls_logits"][0].softmax(-1).numpy(),
        boxes=boxes.numpy(),
        detected_boxes=detections["boxes"].numpy(),
        detected_scores=detections["scores"].numpy(),
        **{f"state/{name}": tensor.numpy() for name, tensor in model.state_dict().items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
