"""The examples in docstrings do what they say, each in a fresh namespace and an empty folder.

So whoever copies one into a Python prompt gets what the docstring shows.
"""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_structure import PACKAGES, REPOSITORY, source_files

# What most people meet first has to have an example.
DOORS = {
    "bounding_box_utils/bounding_box_utils.py:convert_coordinates",
    "bounding_box_utils/bounding_box_utils.py:iou",
    "data_generator/data_augmentation_chain_original_ssd.py:SSDDataAugmentation",
    "data_generator/object_detection_2d_data_generator.py:DataGenerator.parse_csv",
    "data_generator/object_detection_2d_data_generator.py:DataGenerator.parse_json",
    "data_generator/object_detection_2d_data_generator.py:DataGenerator.parse_xml",
    "data_generator/object_detection_2d_data_generator.py:DataGenerator.parse_yolo",
    "data_generator/object_detection_2d_geometric_ops.py:Flip",
    "data_generator/transformation.py:TransformationChain",
    "eval_utils/average_precision.py:average_precision",
    "eval_utils/report.py:write_report",
    "eval_utils/scoring.py:score_detections",
    "keras_layers/keras_layer_AnchorBoxes.py:AnchorBoxes",
    "keras_layers/keras_layer_DecodeDetections.py:DecodeDetections",
    "keras_loss_function/keras_ssd_loss.py:SSDLoss",
    "misc_utils/anchor_design.py:suggest_anchors",
    "misc_utils/detection.py:detect",
    "misc_utils/diagnose.py:diagnose",
    "misc_utils/drawing.py:draw_detections",
    "misc_utils/fine_tuning.py:freeze",
    "misc_utils/tensor_sampling_utils.py:sample_tensors",
    "models/keras_ssd300.py:ssd_300",
    "models/keras_ssd7.py:build_model",
    "ssd_encoder_decoder/anchors.py:anchor_boxes",
    "ssd_encoder_decoder/matching_utils.py:match_bipartite_greedy",
    "ssd_encoder_decoder/matching_utils.py:match_multi",
    "ssd_encoder_decoder/ssd_input_encoder.py:SSDInputEncoder",
    "ssd_encoder_decoder/ssd_output_decoder.py:decode_detections",
    "ssd_encoder_decoder/ssd_output_decoder.py:greedy_nms",
}


def documented(node: ast.AST, name: str = "") -> Iterator[tuple[str, int, str]]:
    """Yield (qualified name, line, docstring) for a module and all it defines."""
    docstring = ast.get_docstring(node)
    if docstring:
        yield name, node.body[0].lineno, docstring
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            yield from documented(inner, f"{name}.{inner.name}".lstrip("."))


def examples_of(path: Path) -> Iterator[doctest.DocTest]:
    place = path.relative_to(REPOSITORY).as_posix()
    for name, line, docstring in documented(ast.parse(path.read_text(encoding="utf-8"))):
        if ">>> " in docstring:
            named = f"{place}:{name}"
            yield doctest.DocTestParser().get_doctest(docstring, {}, named, str(path), line)


EXAMPLES = [example for path in source_files(*PACKAGES) for example in examples_of(path)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_does_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def test_the_most_used_names_have_examples():
    assert {example.name for example in EXAMPLES} >= DOORS
