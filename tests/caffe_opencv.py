"""Runs a Caffe network, or lists its arrays, with OpenCV 4's own importer.

    python tests/caffe_opencv.py NETWORK.prototxt WEIGHTS.caffemodel RESULT.npz [INPUT.npy]

OpenCV 5 has no importer for Caffe any more, so this runs with another Python: that of
`.venv-caffe`, see tests/README.md. It must need nothing but NumPy and OpenCV.
"""

import sys

import cv2
import numpy as np


def arrays_of(network):
    result = {}
    for name in network.getLayerNames():
        layer = network.getLayerId(name)
        for number in range(len(network.getLayer(layer).blobs)):
            result[f"{name}/{number}"] = network.getParam(layer, number)
    return result


def main(prototxt, caffemodel, result, image=None):
    network = cv2.dnn.readNetFromCaffe(prototxt, caffemodel)
    network.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    # Off, or layers are merged, and their arrays with them.
    network.enableFusion(False)
    if image is None:
        np.savez(result, **arrays_of(network))
        return
    network.setInput(np.load(image))
    wanted = ["mbox_loc", "mbox_conf_softmax", "mbox_priorbox", "detection_out"]
    np.savez(result, **dict(zip(wanted, network.forward(wanted), strict=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
