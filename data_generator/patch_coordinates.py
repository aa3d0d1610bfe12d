"""Random rectangles relative to an image."""

from __future__ import annotations

import numpy as np


class PatchCoordinateGenerator:
    """Draw the place and the size of patches of an image, smaller or larger than it."""

    def __init__(
        self,
        img_height: int | None = None,
        img_width: int | None = None,
        must_match: str = "h_w",
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        scale_uniformly: bool = False,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        patch_ymin: int | None = None,
        patch_xmin: int | None = None,
        patch_height: int | None = None,
        patch_width: int | None = None,
        patch_aspect_ratio: float | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set the ranges, or fixed values.

        Arguments:
            img_height: Of the image, in pixels; only needed by calls. May be set later.
            img_width: Of the image, in pixels; only needed by calls. May be set later.
            must_match: Which two of height, width and aspect ratio are drawn: ``'h_w'``,
                ``'h_ar'`` or ``'w_ar'``. The third follows, within no limits of its own.
            min_scale: The least height or width, as a fraction of that of the image.
            max_scale: The largest height or width, as a fraction of that of the image.
            scale_uniformly: Whether height and width get the same fraction, for ``'h_w'``.
            min_aspect_ratio: The least width / height.
            max_aspect_ratio: The largest width / height.
            patch_ymin: Upper edge in pixels, instead of a random one.
            patch_xmin: Left edge in pixels, instead of a random one.
            patch_height: In pixels, instead of a random one.
            patch_width: In pixels, instead of a random one.
            patch_aspect_ratio: Instead of a random one.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `must_match` is unknown, a range is empty, or `scale_uniformly` meets
                a fixed height or width.
        """
        if must_match not in ("h_w", "h_ar", "w_ar"):
            raise ValueError(f"`must_match` must be 'h_w', 'h_ar' or 'w_ar'; got {must_match!r}.")
        if min_scale >= max_scale:
            raise ValueError(
                f"`min_scale` must be below `max_scale`; got {min_scale} and {max_scale}."
            )
        if min_aspect_ratio >= max_aspect_ratio:
            raise ValueError(
                "`min_aspect_ratio` must be below `max_aspect_ratio`; "
                f"got {min_aspect_ratio} and {max_aspect_ratio}."
            )
        if scale_uniformly and not (patch_height is None and patch_width is None):
            raise ValueError(
                "`scale_uniformly` draws height and width together, so neither can be fixed; "
                f"got patch_height={patch_height}, patch_width={patch_width}."
            )
        self.img_height = img_height
        self.img_width = img_width
        self.must_match = must_match
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.scale_uniformly = scale_uniformly
        self.min_aspect_ratio = min_aspect_ratio
        self.max_aspect_ratio = max_aspect_ratio
        self.patch_ymin = patch_ymin
        self.patch_xmin = patch_xmin
        self.patch_height = patch_height
        self.patch_width = patch_width
        self.patch_aspect_ratio = patch_aspect_ratio
        self.rng = np.random.default_rng(rng)

    def __call__(self, rng: np.random.Generator | None = None) -> tuple[int, int, int, int]:
        """Draw a patch of an image of the size `img_height` x `img_width`.

        Arguments:
            rng: The generator to draw from; by default its own.

        Returns:
            (ymin, xmin, height, width) in pixels.

        Raises:
            ValueError: if the size of the image has not been set.
        """
        if self.img_height is None or self.img_width is None:
            raise ValueError(
                "Patches are drawn relative to an image: set `img_height` and `img_width`, "
                f"which are {self.img_height} and {self.img_width}."
            )
        return self.generate(self.img_height, self.img_width, self.rng if rng is None else rng)

    def generate(
        self, img_height: int, img_width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Draw a patch of an image of the given size.

        Arguments:
            img_height: Of the image, in pixels.
            img_width: Of the image, in pixels.
            rng: The generator to draw from.

        Returns:
            (ymin, xmin, height, width) in pixels. A side that fits into the image lies within
            it; along a longer side the image lies within the patch.
        """
        height, width = self._size(img_height, img_width, rng)
        ymin, xmin = self.patch_ymin, self.patch_xmin
        if ymin is None:
            ymin = random_position(img_height, height, rng)
        if xmin is None:
            xmin = random_position(img_width, width, rng)
        return ymin, xmin, height, width

    def _size(self, img_height: int, img_width: int, rng: np.random.Generator) -> tuple[int, int]:
        if self.must_match == "h_ar":
            height = self._side(self.patch_height, img_height, rng)
            return height, max(1, int(height * self._aspect_ratio(rng)))
        if self.must_match == "w_ar":
            width = self._side(self.patch_width, img_width, rng)
            return max(1, int(width / self._aspect_ratio(rng))), width
        if self.scale_uniformly:
            scale = rng.uniform(self.min_scale, self.max_scale)
            return max(1, int(scale * img_height)), max(1, int(scale * img_width))
        return (
            self._side(self.patch_height, img_height, rng),
            self._side(self.patch_width, img_width, rng),
        )

    def _side(self, fixed: int | None, img_side: int, rng: np.random.Generator) -> int:
        if fixed is not None:
            return fixed
        return max(1, int(rng.uniform(self.min_scale, self.max_scale) * img_side))

    def _aspect_ratio(self, rng: np.random.Generator) -> float:
        if self.patch_aspect_ratio is not None:
            return self.patch_aspect_ratio
        return rng.uniform(self.min_aspect_ratio, self.max_aspect_ratio)


def random_position(img_side: int, side: int, rng: np.random.Generator) -> int:
    """Draw where one side of a patch begins.

    Arguments:
        img_side: Height or width of the image, in pixels.
        side: Height or width of the patch, in pixels.
        rng: The generator to draw from.

    Returns:
        A position from which the patch lies within the image if it fits, and covers it if not.
    """
    slack = img_side - side
    return int(rng.integers(min(0, slack), max(0, slack) + 1))
