"""Detect objects in images, folders of images, videos and the pictures of a webcam.

    python examples/detect.py --model out/voc300/model.keras --output found street.jpg photos/
    python examples/detect.py --model out/voc300/model.keras --output found film.mp4
    python examples/detect.py --model out/voc300/model.keras --output found --seconds 10 0

The output folder gets copies with boxes drawn on them, and detections.json: a list with an entry
for each image or frame, {"file", "frame" (of videos), "width", "height", "detections": [{"class",
"class_id", "confidence", "box": [xmin, ymin, xmax, ymax]}]}, boxes in pixels of the original. Of
several images, those that cannot be read are named and left out.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, tee
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from data_generator.image_reading import ImageReadError, read_image
from data_generator.yolo_parser import find_images
from eval_utils.coco_files import write_json_list
from misc_utils.command_line import (
    Detector,
    add_detector_options,
    add_threshold_options,
    at_least,
    errors_in_one_line,
    open_detector,
)
from misc_utils.detection import detect, video_frames
from misc_utils.drawing import draw_detections, save_image
from misc_utils.files import atomic_path

PRESETS = Path(__file__).resolve().parent / "presets"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FRAMES_A_SECOND = 25.0  # of a webcam that does not say


@dataclass(frozen=True)
class Source:
    """Something to look at.

    Attributes:
        name: What it is called in the results: a path, or the number of a webcam.
        kind: 'image', 'video' or 'webcam'.
        picture: The path of the annotated copy within the output folder.
    """

    name: str
    kind: str
    picture: Path


def parse_arguments(
    arguments: list[str] | None = None,
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_detector_options(parser, PRESETS)
    add_threshold_options(parser, confidence=0.5)
    add = parser.add_argument
    # fmt: off
    add("inputs", nargs="+", metavar="INPUT", help="an image, a folder of images (and of folders), "
                                                   "a video, or the number of a webcam")
    add("--output", required=True, type=Path,
        help="folder for the results; files of the same names are replaced")
    add("--batch-size", type=at_least(1), default=8, metavar="INT",
        help="images at a time [8; a webcam's one by one]")
    add("--seconds", type=float, metavar="FLOAT",
        help="stop each video or webcam after so long; a webcam also stops with Ctrl-C")
    add("--no-pictures", dest="pictures", action="store_false", help="write detections.json only")
    # fmt: on
    return parser, parser.parse_args(arguments)


def find_sources(inputs: Iterable[str]) -> list[Source]:
    """Find out what the inputs are, before any work begins.

    Raises:
        ValueError: One does not exist, or two would be written to the same file.
    """
    sources = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            for name in find_images(path):
                sources.append(Source(str(path / name), "image", Path(path.name) / name))
        elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            sources.append(Source(text, "image", Path(path.name)))
        elif path.is_file():
            sources.append(Source(text, "video", Path(f"{path.stem}.mp4")))
        elif text.isdigit():
            sources.append(Source(text, "webcam", Path(f"webcam{text}.mp4")))
        else:
            raise ValueError(f"There is no file, folder or webcam '{text}'.")
    pictures = [source.picture for source in sources]
    for source in sources:
        if pictures.count(source.picture) > 1:
            raise ValueError(
                f"Several inputs would be written to '{source.picture}', {source.name} among them. "
                "Name them in runs with different --output."
            )
    return sources


def look(
    detector: Detector, images: Iterable[np.ndarray], batch_size: int, options: argparse.Namespace
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each image with its detections `(n, 6)`, reading no further ahead than a batch."""
    images = iter(images)
    while batch := list(islice(images, batch_size)):
        found = detect(
            detector.model,
            batch,
            confidence_thresh=options.confidence,
            iou_threshold=options.iou,
            batch_size=batch_size,
            top_k=options.top_k,
        )
        yield from zip(batch, found, strict=True)


def describe(image: np.ndarray, rows: np.ndarray, class_names: list[str]) -> dict:
    """Return the size of an image and its detections as JSON can hold them."""
    height, width = image.shape[:2]
    detections = [
        {
            "class": class_names[int(class_id)],
            "class_id": int(class_id),
            "confidence": round(float(confidence), 4),
            "box": [round(float(value), 1) for value in box],
        }
        for class_id, confidence, *box in rows
    ]
    return {"width": width, "height": height, "detections": detections}


def entries_of_images(
    sources: list[Source], detector: Detector, options: argparse.Namespace
) -> Iterator[dict]:
    """Yield an entry for each image file; write its annotated copy."""
    readable, same = tee(read_images(sources))
    results = look(detector, (image for _, image in same), options.batch_size, options)
    for (source, _), (image, rows) in zip(readable, results, strict=True):
        if options.pictures:
            drawn = draw_detections(image, rows, detector.class_names, min_size=400)
            save_image(options.output / source.picture, drawn)
        yield {"file": source.name, **describe(image, rows, detector.class_names)}


def read_images(sources: list[Source]) -> Iterator[tuple[Source, np.ndarray]]:
    """Yield the images that can be read; of many, a broken one does not cost the others."""
    for source in sources:
        try:
            yield source, read_image(source.name)
        except ImageReadError as error:
            if len(sources) == 1:
                raise
            print(f"left out: {error}", file=sys.stderr)


def entries_of_video(
    source: Source, detector: Detector, options: argparse.Namespace
) -> Iterator[dict]:
    """Yield an entry for each frame; write a video with boxes."""
    live = source.kind == "webcam"
    capture = cv2.VideoCapture(int(source.name) if live else source.name)
    with closing_capture(capture), ctrl_c_noted(live) as ctrl_c:
        if not capture.isOpened():
            raise ValueError(
                f"OpenCV cannot open '{source.name}': is it an image or a video, a webcam in use?"
            )
        rate = capture.get(cv2.CAP_PROP_FPS) or FRAMES_A_SECOND
        frames = first_seconds(video_frames(capture), options.seconds, rate, live, ctrl_c)
        results = look(detector, frames, 1 if live else options.batch_size, options)
        first = next(results, None)
        if first is None:
            raise ValueError(f"'{source.name}' has no frame that can be read.")
        with video_file(options, source, rate, first[0].shape) as write:
            for number, (image, rows) in enumerate(chain([first], results)):
                write(draw_detections(image, rows, detector.class_names))
                entry = describe(image, rows, detector.class_names)
                yield {"file": source.name, "frame": number, **entry}


def first_seconds(
    frames: Iterator[np.ndarray],
    seconds: float | None,
    rate: float,
    live: bool,
    ctrl_c: threading.Event,
) -> Iterator[np.ndarray]:
    """Yield the frames of the first seconds: of the film's time, or for a webcam of the clock's."""
    start = time.monotonic()
    for number, frame in enumerate(frames):
        elapsed = time.monotonic() - start if live else number / rate
        if ctrl_c.is_set() or (seconds is not None and elapsed >= seconds):
            return
        yield frame


@contextmanager
def ctrl_c_noted(is_wanted: bool) -> Iterator[threading.Event]:
    """Make Ctrl-C end a live stream, so that what was seen until then is written."""
    pressed = threading.Event()
    if not is_wanted:
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def closing_capture(capture: cv2.VideoCapture) -> Iterator[None]:
    """Release the video or webcam at the end."""
    try:
        yield
    finally:
        capture.release()


@contextmanager
def video_file(
    options: argparse.Namespace, source: Source, rate: float, shape: tuple[int, ...]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that adds a uint8 RGB frame to the annotated video, if one is wanted."""
    if not options.pictures:
        yield lambda image: None
        return
    height, width = shape[:2]
    with atomic_path(options.output / source.picture) as temporary:
        writer = cv2.VideoWriter(
            str(temporary), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height)
        )
        if not writer.isOpened():
            raise ValueError("OpenCV cannot write MP4 videos here. Use --no-pictures.")
        try:
            yield lambda image: writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()


def main(arguments: list[str] | None = None) -> None:
    """Run the whole job."""
    parser, options = parse_arguments(arguments)
    with errors_in_one_line(parser):
        sources = find_sources(options.inputs)
        detector = open_detector(options, PRESETS)
        images = [source for source in sources if source.kind == "image"]
        streams = [
            entries_of_images(images, detector, options),
            *(
                entries_of_video(source, detector, options)
                for source in sources
                if source.kind != "image"
            ),
        ]
        results = options.output / "detections.json"
        write_json_list(results, counted(chain.from_iterable(streams)))
    print(f"the detections are in {results}")


def counted(entries: Iterator[dict]) -> Iterator[dict]:
    """Pass entries on, and print at the end how many there were."""
    n_images = n_detections = 0
    for entry in entries:
        n_images += 1
        n_detections += len(entry["detections"])
        yield entry
    print(f"{n_detections} detections in {n_images} images")


if __name__ == "__main__":
    main()
