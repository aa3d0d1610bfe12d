"""The acceptance test: a detector that cannot learn four images by heart cannot learn anything."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from data_generator.object_detection_2d_geometric_ops import Resize
from eval_utils.average_precision_evaluator import Evaluator
from keras_loss_function.keras_ssd_loss import SSDLoss
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.blood_cells import few_images

HEIGHT, WIDTH = 144, 192
# Batch normalisation remembers 0.99 of its statistics at each step; 0.99^700 is below a thousandth.
STEPS = 700


@pytest.mark.slow
def test_ssd7_learns_four_real_images_by_heart(real_data):
    keras.utils.set_random_seed(0)
    cells = few_images(real_data, 4)
    model = build_model(
        (HEIGHT, WIDTH, 3),
        n_classes=3,
        scales=[0.08, 0.2, 0.35, 0.5, 0.7],
        normalize_coords=True,
        subtract_mean=127.5,
        divide_by_stddev=127.5,
    )
    # Without neutral boxes: nothing would ever tell these that they are not the object.
    encoder = SSDInputEncoder.from_model(model, neg_iou_limit=0.5)
    images, targets = next(
        cells.generate(
            4, shuffle=False, transformations=[Resize(HEIGHT, WIDTH)], label_encoder=encoder
        )
    )
    # The rate falls, so that the moving statistics catch up with the weights.
    rate = keras.optimizers.schedules.CosineDecay(3e-3, STEPS)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=10.0), SSDLoss())
    losses = [float(model.train_on_batch(images, targets)) for _ in range(STEPS)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.05 * losses[0]

    evaluator = Evaluator(model, 3, cells, model_mode="training")
    mean_average_precision = evaluator(
        HEIGHT, WIDTH, batch_size=4, average_precision_mode="integrate", verbose=False
    )
    assert mean_average_precision > 0.95
