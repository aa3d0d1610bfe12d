"""Time the encoder beside a plain loop over images, and beside copying the template.

    python -m benchmarks.encoding

Batches of 32 images with the settings of SSD300 for Pascal VOC: 8,732 anchors, 20 classes, with
about 2.5 objects an image as on VOC, and with about 15. Every target starts as a copy of the
template, so no encoder that returns new arrays is faster than that copy.
"""

from __future__ import annotations

from statistics import median

import numpy as np

from benchmarks.timing import seconds
from bounding_box_utils.bounding_box_utils import convert_coordinates, iou
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

BATCH, SIDE, N_CLASSES, SEED = 32, 300, 20, 1
THREE, FIVE = [1.0, 2.0, 0.5], [1.0, 2.0, 0.5, 3.0, 1 / 3]


def ssd300_encoder() -> SSDInputEncoder:
    """Make the encoder of SSD300 for Pascal VOC."""
    return SSDInputEncoder(
        SIDE,
        SIDE,
        N_CLASSES,
        predictor_sizes=[(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)],
        scales=[0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
        aspect_ratios_per_layer=[THREE, FIVE, FIVE, FIVE, THREE, THREE],
        steps=[8, 16, 32, 64, 100, 300],
    )


def random_batch(rng: np.random.Generator, mean_objects: float) -> list[np.ndarray]:
    """Draw the labels of a batch: at least one object an image, a tenth to all of its sides."""
    batch = []
    for _ in range(BATCH):
        n = 1 + rng.poisson(mean_objects - 1)
        size = SIDE * rng.uniform(0.1, 1, (n, 2))
        corner = rng.uniform(0, 1, (n, 2)) * (SIDE - size)
        classes = rng.integers(1, N_CLASSES + 1, (n, 1))
        batch.append(np.concatenate([classes, corner, corner + size], axis=1))
    return batch


def plain_loop(encoder: SSDInputEncoder, batch: list[np.ndarray]) -> np.ndarray:
    """Encode image by image in float64, one whole-array step after the other, as on paper."""
    anchors = np.concatenate([boxes.reshape(-1, 4) for boxes in encoder.boxes_list])
    template = np.zeros((len(anchors), encoder.n_classes + 12))
    template[:, 0] = 1
    template[:, -12:-8] = template[:, -8:-4] = anchors
    template[:, -4:] = encoder.variances
    y_encoded = np.tile(template, (len(batch), 1, 1))
    for target, labels in zip(y_encoded, batch, strict=True):
        boxes = convert_coordinates(labels[:, 1:] / SIDE, 0, "corners2centroids")
        overlaps = iou(boxes, anchors, "centroids")
        rows = np.concatenate([np.eye(encoder.n_classes)[labels[:, 0].astype(int)], boxes], axis=1)
        left = overlaps.copy()
        for _ in labels:
            k, i = np.unravel_index(np.argmax(left), left.shape)
            if left[k, i] > 0:
                target[i, :-8] = rows[k]
                left[k], left[:, i], overlaps[:, i] = 0, 0, 0
        best, similarity = overlaps.argmax(axis=0), overlaps.max(axis=0)
        more = np.flatnonzero(similarity >= encoder.pos_iou_threshold)
        target[more, :-8] = rows[best[more]]
        similarity[more] = 0
        target[similarity >= encoder.neg_iou_limit, 0] = 0
    offsets = y_encoded[..., -12:-8]
    offsets[..., :2] -= y_encoded[..., -8:-6]
    offsets[..., :2] /= y_encoded[..., -6:-4] * y_encoded[..., -4:-2]
    offsets[..., 2:] /= y_encoded[..., -6:-4]
    offsets[..., 2:] = np.log(offsets[..., 2:]) / y_encoded[..., -2:]
    return y_encoded


def check_that_both_agree(encoder: SSDInputEncoder, batch: list[np.ndarray]) -> None:
    """Compare the targets, but for ties, which float32 and float64 may decide differently."""
    differences = np.abs(encoder(batch) - plain_loop(encoder, batch)).max(axis=-1)
    n_different = (differences > 1e-4).sum(axis=1)
    if n_different.max() > 4 or n_different.sum() > 0.01 * sum(map(len, batch)):
        raise RuntimeError(f"The two ways disagree; rows that differ, by image: {n_different}.")


def main() -> None:
    """Check that both ways agree, then time them."""
    rng, encoder = np.random.default_rng(SEED), ssd300_encoder()
    template = encoder.generate_encoding_template(1)[0]
    print(f"{'images/s (median)':24s}{'copy':>10s}{'encoder':>10s}{'plain loop':>12s}")
    for mean_objects in (2.5, 15):
        batch = random_batch(rng, mean_objects)
        check_that_both_agree(encoder, batch)
        copying = median(seconds(lambda: np.repeat(template[np.newaxis], BATCH, axis=0), 15))
        ours = median(seconds(lambda batch=batch: encoder(batch), 15))
        loop = median(seconds(lambda batch=batch: plain_loop(encoder, batch), 3))
        rates = [BATCH / seconds for seconds in (copying, ours, loop)]
        n = sum(map(len, batch)) / BATCH
        print(
            f"{f'{n:.1f} objects an image':24s}{rates[0]:10,.0f}{rates[1]:10,.0f}{rates[2]:12,.0f}"
        )
        print(
            f"{'':24s}the encoder is {loop / ours:.1f} times as fast as the plain loop and takes "
            f"{ours / copying:.1f} times as long as the copy"
        )


if __name__ == "__main__":
    main()
