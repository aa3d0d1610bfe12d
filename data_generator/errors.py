"""The exceptions of the data generator that more than one of its modules raises."""

from __future__ import annotations


class DatasetError(Exception):
    """No usable data set: none loaded, or one whose parts contradict each other."""


class DegenerateBatchError(Exception):
    """A batch that cannot be made, because all of its images were dropped from it."""


class ImageSizeError(DegenerateBatchError, ValueError):
    """The images of a batch differ in size or in channels, or are not of the targets' size."""


class AnnotationError(ValueError):
    """An annotation file that cannot be read as it stands; the message says where and why."""

    def __str__(self) -> str:
        """Return the message, without the middle of what a damaged file can make endless."""
        message = super().__str__()
        return message if len(message) <= 2000 else f"{message[:1400]} [...] {message[-500:]}"


class EmptyAnnotationsError(AnnotationError, IndexError):
    """Not one image is left after filtering.

    It is an `IndexError` too, because that is what scripts written for the original library
    catch when `parse_csv` finds nothing.
    """
