"""Write a trained detector for other runtimes: ONNX, LiteRT (TensorFlow Lite), SavedModel.

    python examples/export.py --model out/voc300/model.keras --output ssd.onnx

The format is that of the name: .onnx, .tflite, or a folder for a SavedModel. The file takes images
and gives boxes (`misc_utils.export` says how), and has the class names inside.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from misc_utils.command_line import (
    add_detector_options,
    add_threshold_options,
    at_least,
    errors_in_one_line,
    open_detector,
    with_decoding,
)
from misc_utils.export import export_model
from ssd_encoder_decoder.model_settings import read_model_settings

PRESETS = Path(__file__).resolve().parent / "presets"
FORMATS = {".onnx": "onnx", ".tflite": "litert", "": "tf_saved_model"}


def parse_arguments(
    arguments: list[str] | None = None,
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_detector_options(parser, PRESETS)
    add_threshold_options(parser, confidence=0.01)
    add = parser.add_argument
    # fmt: off
    add("--output", required=True, type=Path, help="the file (.onnx, .tflite) or folder to make")
    add("--mode", choices=("inference", "inference_fast", "training"), default="inference",
        help="how the file decodes; 'training': not at all [inference]. The thresholds above are "
             "those of the decoding")
    add("--batch-size", type=at_least(1), metavar="INT",
        help="images at a time; by default any number")
    add("--uint8", action="store_true", help="take the bytes of a camera instead of floats")
    # fmt: on
    return parser, parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the whole job."""
    parser, options = parse_arguments(arguments)
    with errors_in_one_line(parser):
        if options.output.suffix not in FORMATS:
            raise ValueError(
                f"No format is known for '{options.output}': expected a name that ends with .onnx "
                "or .tflite, or the name of a folder."
            )
        detector = open_detector(options, PRESETS)
        model, mode = detector.model, options.mode
        if read_model_settings(model).mode == "training" and mode != "training":
            model = with_decoding(model, mode, options.confidence, options.iou, options.top_k)
        if read_model_settings(model).mode != mode:
            raise ValueError(
                f"The model is in mode '{read_model_settings(model).mode}' and decodes already; "
                f"it cannot be exported in mode '{mode}'."
            )
        export_model(
            model,
            options.output,
            FORMATS[options.output.suffix],
            batch_size=options.batch_size,
            input_dtype="uint8" if options.uint8 else "float32",
            class_names=detector.class_names,
        )
    print(f"the model is in {options.output}")


if __name__ == "__main__":
    main()
