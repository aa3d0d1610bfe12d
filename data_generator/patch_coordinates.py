"""Random rectangles relative to an image."""

from __future__ import annotations

import numpy as np


class PatchCoordinateGenerator:
    """Draw the place and the size of patches of an image, smaller or larger than it.

    Example:
        >>> from data_generator.patch_coordinates import PatchCoordinateGenerator
        >>> patches = PatchCoordinateGenerator(300, 300, min_scale=0.5, max_scale=1.0, rng=0)
        >>> patches()  # ymin, xmin, height, width
        (17, 4, 245, 190)
    """

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
        return tuple(self.generate_many(1, img_height, img_width, rng)[0].tolist())

    def generate_many(
        self, n: int, img_height: int, img_width: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw patches of an image of the given size.

        Arguments:
            n: How many patches to draw, independently of each other.
            img_height: Of the image, in pixels.
            img_width: Of the image, in pixels.
            rng: The generator to draw from.

        Returns:
            `(n, 4)` rows like the result of `generate`.
        """
        height, width = self._sizes(n, img_height, img_width, rng)
        ymin, xmin = self.patch_ymin, self.patch_xmin
        patches = np.empty((n, 4), np.int64)
        patches[:, 0] = random_position(img_height, height, rng) if ymin is None else ymin
        patches[:, 1] = random_position(img_width, width, rng) if xmin is None else xmin
        patches[:, 2] = height
        patches[:, 3] = width
        return patches

    def _sizes(
        self, n: int, img_height: int, img_width: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.must_match == "h_ar":
            height = self._sides(self.patch_height, img_height, n, rng)
            return height, _whole_pixels(height * self._aspect_ratios(n, rng))
        if self.must_match == "w_ar":
            width = self._sides(self.patch_width, img_width, n, rng)
            return _whole_pixels(width / self._aspect_ratios(n, rng)), width
        if self.scale_uniformly:
            scales = rng.uniform(self.min_scale, self.max_scale, n)
            return _whole_pixels(scales * img_height), _whole_pixels(scales * img_width)
        return (
            self._sides(self.patch_height, img_height, n, rng),
            self._sides(self.patch_width, img_width, n, rng),
        )

    def _sides(
        self, fixed: int | None, img_side: int, n: int, rng: np.random.Generator
    ) -> np.ndarray:
        if fixed is not None:
            return np.full(n, fixed)
        return _whole_pixels(rng.uniform(self.min_scale, self.max_scale, n) * img_side)

    def _aspect_ratios(self, n: int, rng: np.random.Generator) -> np.ndarray:
        if self.patch_aspect_ratio is not None:
            return np.full(n, self.patch_aspect_ratio)
        return rng.uniform(self.min_aspect_ratio, self.max_aspect_ratio, n)


def random_position(img_side: int, sides: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw where one side of patches begins.

    Arguments:
        img_side: Height or width of the image, in pixels.
        sides: `(n,)` heights or widths of the patches, in pixels.
        rng: The generator to draw from.

    Returns:
        `(n,)` positions from which a patch lies within the image if it fits, and covers it if not.
    """
    slack = img_side - sides
    return rng.integers(np.minimum(0, slack), np.maximum(0, slack) + 1)


def _whole_pixels(sides: np.ndarray) -> np.ndarray:
    return np.maximum(1, sides.astype(np.int64))
