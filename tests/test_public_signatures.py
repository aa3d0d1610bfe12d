"""The signatures on which scripts of the original library rely: names, order and defaults.

What this library adds stands behind them, so that positional arguments keep their meaning.
"""

from __future__ import annotations

import importlib
import inspect

import pytest

from data_generator.voc_parser import VOC_CLASSES

COLOURS = (
    "random_brightness=(-48, 48, 0.5), random_contrast=(0.5, 1.8, 0.5), "
    "random_saturation=(0.5, 1.8, 0.5), random_hue=(18, 0.5), random_flip=0.5, "
)
LAST = (
    "n_trials_max=3, clip_boxes=True, overlap_criterion='area', bounds_box_filter=(0.3, 1.0), "
    "bounds_validator=(0.5, 1.0), n_boxes_min=1, background=(0, 0, 0), labels_format=None"
)
EDGES = "clip_boxes=True, box_filter=None, background=(0, 0, 0), labels_format=None"
TRIALS = (
    "prob=0.5, clip_boxes=True, box_filter=None, image_validator=None, n_trials_max=3, "
    "background=(0, 0, 0), labels_format=None"
)
DECODING = (
    "top_k=200, input_coords='centroids', normalize_coords=True, img_height=None, img_width=None"
)
LAYER = (
    "confidence_thresh=0.01, iou_threshold=0.45, top_k=200, nms_max_output_size=400, "
    "coords='centroids', normalize_coords=True, img_height=None, img_width=None"
)
MODEL = (
    "clip_boxes=False, variances={}, coords='centroids', normalize_coords={}, subtract_mean={}, "
    "divide_by_stddev={}, swap_channels={}, confidence_thresh=0.01, iou_threshold=0.45, top_k=200, "
    "nms_max_output_size=400, return_predictor_sizes=False"
)
SSD7_MODEL = MODEL.format([1.0, 1.0, 1.0, 1.0], False, None, None, False)
VGG_MODEL = MODEL.format([0.1, 0.1, 0.2, 0.2], True, [123, 117, 104], None, [2, 1, 0])
VGG_HEAD = (
    "image_size, n_classes, mode='training', l2_regularization=0.0005, min_scale=None, "
    "max_scale=None, scales=None, aspect_ratios_global=None, aspect_ratios_per_layer={}, "
    "two_boxes_for_ar1=True, steps={}, offsets=None, "
)
THREE, FIVE = [1.0, 2.0, 0.5], [1.0, 2.0, 0.5, 3.0, 1 / 3]
SSD300_HEAD = VGG_HEAD.format([THREE, FIVE, FIVE, FIVE, THREE, THREE], [8, 16, 32, 64, 100, 300])
SSD512_HEAD = VGG_HEAD.format(
    [THREE, FIVE, FIVE, FIVE, FIVE, THREE, THREE], [8, 16, 32, 64, 128, 256, 512]
)

# Where the original has a dictionary of columns as default, None stands for the same.
SIGNATURES = {
    "bounding_box_utils.bounding_box_utils": [
        "convert_coordinates(tensor, start_index, conversion, border_pixels='half')",
        "convert_coordinates2(tensor, start_index, conversion)",
        *(
            f"{name}(boxes1, boxes2, coords='centroids', mode='outer_product', "
            "border_pixels='half')"
            for name in ("intersection_area", "iou")
        ),
    ],
    "ssd_encoder_decoder.matching_utils": [
        "match_bipartite_greedy(weight_matrix)",
        "match_multi(weight_matrix, threshold)",
    ],
    "ssd_encoder_decoder.ssd_input_encoder": [
        "SSDInputEncoder(img_height, img_width, n_classes, predictor_sizes, min_scale=0.1, "
        "max_scale=0.9, scales=None, aspect_ratios_global=[0.5, 1.0, 2.0], "
        "aspect_ratios_per_layer=None, two_boxes_for_ar1=True, steps=None, offsets=None, "
        "clip_boxes=False, variances=[0.1, 0.1, 0.2, 0.2], matching_type='multi', "
        "pos_iou_threshold=0.5, neg_iou_limit=0.3, border_pixels='half', coords='centroids', "
        "normalize_coords=True, background_id=0)",
        "SSDInputEncoder.__call__(self, ground_truth_labels, diagnostics=False)",
        "SSDInputEncoder.generate_anchor_boxes_for_layer(self, feature_map_size, aspect_ratios, "
        "this_scale, next_scale, this_steps=None, this_offsets=None, diagnostics=False)",
        "SSDInputEncoder.generate_encoding_template(self, batch_size, diagnostics=False)",
    ],
    "ssd_encoder_decoder.ssd_output_decoder": [
        "greedy_nms(y_pred_decoded, iou_threshold=0.45, coords='corners', border_pixels='half')",
        "decode_detections(y_pred, confidence_thresh=0.01, iou_threshold=0.45, "
        f"{DECODING}, border_pixels='half')",
        "decode_detections_fast(y_pred, confidence_thresh=0.5, iou_threshold=0.45, "
        f"{DECODING.replace('200', repr('all'))}, border_pixels='half')",
        "decode_detections_debug(y_pred, confidence_thresh=0.01, iou_threshold=0.45, "
        f"{DECODING}, variance_encoded_in_target=False, border_pixels='half')",
        "get_num_boxes_per_pred_layer(predictor_sizes, aspect_ratios, two_boxes_for_ar1)",
        "get_pred_layers(y_pred_decoded, num_boxes_per_pred_layer)",
    ],
    "keras_layers.keras_layer_AnchorBoxes": [
        "AnchorBoxes(img_height, img_width, this_scale, next_scale, aspect_ratios=[0.5, 1.0, 2.0], "
        "two_boxes_for_ar1=True, this_steps=None, this_offsets=None, clip_boxes=False, "
        "variances=[0.1, 0.1, 0.2, 0.2], coords='centroids', normalize_coords=False)"
    ],
    "keras_layers.keras_layer_L2Normalization": ["L2Normalization(gamma_init=20)"],
    "keras_layers.keras_layer_DecodeDetections": [f"DecodeDetections({LAYER})"],
    "keras_layers.keras_layer_DecodeDetectionsFast": [f"DecodeDetectionsFast({LAYER})"],
    "keras_loss_function.keras_ssd_loss": [
        "SSDLoss(neg_pos_ratio=3, n_neg_min=0, alpha=1.0)",
        "SSDLoss.smooth_L1_loss(self, y_true, y_pred)",
        "SSDLoss.log_loss(self, y_true, y_pred)",
    ],
    "models.keras_ssd300": [f"ssd_300({SSD300_HEAD}{VGG_MODEL})"],
    "models.keras_ssd512": [f"ssd_512({SSD512_HEAD}{VGG_MODEL})"],
    "models.keras_ssd7": [
        "build_model(image_size, n_classes, mode='training', l2_regularization=0.0, min_scale=0.1, "
        "max_scale=0.9, scales=None, aspect_ratios_global=[0.5, 1.0, 2.0], "
        "aspect_ratios_per_layer=None, two_boxes_for_ar1=True, steps=None, offsets=None, "
        f"{SSD7_MODEL})"
    ],
    "misc_utils.tensor_sampling_utils": [
        "sample_tensors(weights_list, sampling_instructions, axes=None, init=None, mean=0.0, "
        "stddev=0.005)"
    ],
    "data_generator.object_detection_2d_photometric_ops": [
        "ConvertColor(current='RGB', to='HSV', keep_3ch=True)",
        "ConvertDataType(to='uint8')",
        "ConvertTo3Channels()",
        "Hue(delta)",
        "RandomHue(max_delta=18, prob=0.5)",
        "Saturation(factor)",
        "RandomSaturation(lower=0.3, upper=2.0, prob=0.5)",
        "Brightness(delta)",
        "RandomBrightness(lower=-84, upper=84, prob=0.5)",
        "Contrast(factor)",
        "RandomContrast(lower=0.5, upper=1.5, prob=0.5)",
        "Gamma(gamma)",
        "RandomGamma(lower=0.25, upper=2.0, prob=0.5)",
        "HistogramEqualization()",
        "RandomHistogramEqualization(prob=0.5)",
        "ChannelSwap(order)",
        "RandomChannelSwap(prob=0.5)",
    ],
    "data_generator.object_detection_2d_geometric_ops": [
        # The numbers are OpenCV's: 1 is linear interpolation.
        "Resize(height, width, interpolation_mode=1, box_filter=None, labels_format=None)",
        "ResizeRandomInterp(height, width, interpolation_modes=[0, 1, 2, 3, 4], box_filter=None, "
        "labels_format=None)",
        "Flip(dim='horizontal', labels_format=None)",
        "RandomFlip(dim='horizontal', prob=0.5, labels_format=None)",
        f"Translate(dy, dx, {EDGES})",
        f"RandomTranslate(dy_minmax=(0.03, 0.3), dx_minmax=(0.03, 0.3), {TRIALS})",
        f"Scale(factor, {EDGES})",
        f"RandomScale(min_factor=0.5, max_factor=1.5, {TRIALS})",
        "Rotate(angle, labels_format=None)",
        "RandomRotate(angles=[90, 180, 270], prob=0.5, labels_format=None)",
    ],
    "data_generator.object_detection_2d_patch_sampling_ops": [
        "PatchCoordinateGenerator(img_height=None, img_width=None, must_match='h_w', "
        "min_scale=0.3, max_scale=1.0, scale_uniformly=False, min_aspect_ratio=0.5, "
        "max_aspect_ratio=2.0, patch_ymin=None, patch_xmin=None, patch_height=None, "
        "patch_width=None, patch_aspect_ratio=None)",
        f"CropPad(patch_ymin, patch_xmin, patch_height, patch_width, {EDGES})",
        "Crop(crop_top, crop_bottom, crop_left, crop_right, clip_boxes=True, box_filter=None, "
        "labels_format=None)",
        "Pad(pad_top, pad_bottom, pad_left, pad_right, background=(0, 0, 0), labels_format=None)",
        "RandomPatch(patch_coord_generator, box_filter=None, image_validator=None, "
        "n_trials_max=3, clip_boxes=True, prob=1.0, background=(0, 0, 0), can_fail=False, "
        "labels_format=None)",
        "RandomPatchInf(patch_coord_generator, box_filter=None, image_validator=None, "
        "bound_generator=None, n_trials_max=50, clip_boxes=True, prob=0.857, "
        "background=(0, 0, 0), labels_format=None)",
        "RandomMaxCropFixedAR(patch_aspect_ratio, box_filter=None, image_validator=None, "
        "n_trials_max=3, clip_boxes=True, labels_format=None)",
        "RandomPadFixedAR(patch_aspect_ratio, background=(0, 0, 0), labels_format=None)",
    ],
    "data_generator.object_detection_2d_image_boxes_validation_utils": [
        "BoundGenerator(sample_space=((0.1, None), (0.3, None), (0.5, None), (0.7, None), "
        "(0.9, None), (None, None)), weights=None)",
        "BoxFilter(check_overlap=True, check_min_area=True, check_degenerate=True, "
        "overlap_criterion='center_point', overlap_bounds=(0.3, 1.0), min_area=16, "
        "labels_format=None, border_pixels='half')",
        "ImageValidator(overlap_criterion='center_point', bounds=(0.3, 1.0), n_boxes_min=1, "
        "labels_format=None, border_pixels='half')",
    ],
    "data_generator.object_detection_2d_misc_utils": [
        "apply_inverse_transforms(y_pred_decoded, inverse_transforms)"
    ],
    "data_generator.data_augmentation_chain_original_ssd": [
        "SSDRandomCrop(labels_format=None)",
        "SSDExpand(background=(123, 117, 104), labels_format=None)",
        "SSDPhotometricDistortions()",
        "SSDDataAugmentation(img_height=300, img_width=300, background=(123, 117, 104), "
        "labels_format=None)",
    ],
    "data_generator.data_augmentation_chain_constant_input_size": [
        f"DataAugmentationConstantInputSize({COLOURS}random_translate=((0.03, 0.5), (0.03, 0.5), "
        f"0.5), random_scale=(0.5, 2.0, 0.5), {LAST})"
    ],
    "data_generator.data_augmentation_chain_variable_input_size": [
        f"DataAugmentationVariableInputSize(resize_height, resize_width, {COLOURS}min_scale=0.3, "
        f"max_scale=2.0, min_aspect_ratio=0.5, max_aspect_ratio=2.0, {LAST})"
    ],
    "data_generator.data_augmentation_chain_satellite": [
        f"DataAugmentationSatellite(resize_height, resize_width, {COLOURS}"
        "random_rotate=([90, 180, 270], 0.5), min_scale=0.3, max_scale=2.0, "
        f"min_aspect_ratio=0.8, max_aspect_ratio=1.25, {LAST})"
    ],
    "data_generator.object_detection_2d_data_generator": [
        "DataGenerator(load_images_into_memory=False, hdf5_dataset_path=None, filenames=None, "
        "filenames_type='text', images_dir=None, labels=None, image_ids=None, eval_neutral=None, "
        "labels_output_format=('class_id', 'xmin', 'ymin', 'xmax', 'ymax'), verbose=True)",
        "DataGenerator.parse_csv(self, images_dir, labels_filename, input_format, "
        "include_classes='all', random_sample=False, ret=False, verbose=True)",
        "DataGenerator.parse_xml(self, images_dirs, image_set_filenames, annotations_dirs=[], "
        "classes=VOC_CLASSES, include_classes='all', exclude_truncated=False, "
        "exclude_difficult=False, ret=False, verbose=True)",
        "DataGenerator.parse_json(self, images_dirs, annotations_filenames, "
        "ground_truth_available=False, include_classes='all', ret=False, verbose=True)",
        "DataGenerator.create_hdf5_dataset(self, file_path='dataset.h5', resize=False, "
        "variable_image_size=True, verbose=True)",
        "DataGenerator.generate(self, batch_size=32, shuffle=True, transformations=[], "
        "label_encoder=None, returns={'processed_images', 'encoded_labels'}, "
        "keep_images_without_gt=False, degenerate_box_handling='remove')",
        "DataGenerator.save_dataset(self, filenames_path='filenames.pkl', labels_path=None, "
        "image_ids_path=None, eval_neutral_path=None)",
    ],
    "eval_utils.average_precision_evaluator": [
        "Evaluator(model, n_classes, data_generator, model_mode='inference', pred_format=None, "
        "gt_format=None)",
        "Evaluator.__call__(self, img_height, img_width, batch_size, data_generator_mode='resize', "
        "round_confidences=False, matching_iou_threshold=0.5, border_pixels='include', "
        "sorting_algorithm='quicksort', average_precision_mode='sample', num_recall_points=11, "
        "ignore_neutral_boxes=True, return_precisions=False, return_recalls=False, "
        "return_average_precisions=False, verbose=True, decoding_confidence_thresh=0.01, "
        "decoding_iou_threshold=0.45, decoding_top_k=200, decoding_pred_coords='centroids', "
        "decoding_normalize_coords=True)",
        "Evaluator.predict_on_dataset(self, img_height, img_width, batch_size, "
        "data_generator_mode='resize', decoding_confidence_thresh=0.01, "
        "decoding_iou_threshold=0.45, decoding_top_k=200, decoding_pred_coords='centroids', "
        "decoding_normalize_coords=True, decoding_border_pixels='include', "
        "round_confidences=False, verbose=True, ret=False)",
        "Evaluator.write_predictions_to_txt(self, classes=None, "
        "out_file_prefix='comp3_det_test_', verbose=True)",
        "Evaluator.get_num_gt_per_class(self, ignore_neutral_boxes=True, verbose=True, ret=False)",
        "Evaluator.match_predictions(self, ignore_neutral_boxes=True, matching_iou_threshold=0.5, "
        "border_pixels='include', sorting_algorithm='quicksort', verbose=True, ret=False)",
        "Evaluator.compute_precision_recall(self, verbose=True, ret=False)",
        "Evaluator.compute_average_precisions(self, mode='sample', num_recall_points=11, "
        "verbose=True, ret=False)",
        "Evaluator.compute_mean_average_precision(self, ret=True)",
    ],
    "eval_utils.coco_utils": [
        "get_coco_category_maps(annotations_file)",
        "predict_all_to_json(out_file, model, img_height, img_width, classes_to_cats, "
        "data_generator, batch_size, data_generator_mode='resize', model_mode='training', "
        "confidence_thresh=0.01, iou_threshold=0.45, top_k=200, pred_coords='centroids', "
        "normalize_coords=True)",
    ],
}


def plain(value: object) -> object:
    """Turn lists into tuples, at any depth: whether a default is one or the other is the same."""
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(
    ("module", "expected"),
    [(module, expected) for module, group in SIGNATURES.items() for expected in group],
)
def test_signatures_start_as_in_the_original(module, expected):
    name, arguments = expected.split("(", 1)
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    ours = list(inspect.signature(found).parameters.values())

    namespace = {"VOC_CLASSES": VOC_CLASSES}
    exec(f"def original({arguments}: ...", namespace)
    originals = inspect.signature(namespace["original"]).parameters.values()
    kept, added = ours[: len(originals)], ours[len(originals) :]
    for parameter, original in zip(kept, originals, strict=True):
        assert parameter.name == original.name
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if original.default is not original.empty:
            assert plain(parameter.default) == plain(original.default), parameter.name
    for parameter in added:
        is_optional = parameter.default is not parameter.empty
        assert is_optional or parameter.kind is parameter.VAR_KEYWORD, parameter.name
