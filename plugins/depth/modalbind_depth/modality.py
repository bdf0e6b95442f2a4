"""The modality itself: how a file becomes a depth map, and a depth map becomes features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalbind.api import (
    BrokenSampleError,
    InputError,
    MapSample,
    change_values,
    check_map,
    render_depth,
    resize_map,
    split_valid,
)
from modalbind_depth.options import DepthOptions
from modalbind_depth.sample import DepthSample, read_depth

UNIT = "metres"


def build(options: DepthOptions) -> DepthModality:
    """Factory named by the plugin's `ModalitySpec`."""
    return DepthModality(options)


class DepthModality:
    """Depth maps: files, generated scenes, or samples that a data set reads.

    Attributes:
        options: As the recipe has them; encoders read `size_px`.
        is_padded: False: all features are `(1, size_px, size_px)`.
    """

    is_padded = False

    def __init__(self, options: DepthOptions) -> None:
        """Keep the options."""
        self.options = options

    def load(self, path: Path, key: str) -> DepthSample:
        """Read a file; raises `BrokenSampleError`, see `read_depth`.

        Also broken, as `out_of_range`: a map with no depth between `clip_min_m` and `clip_max_m`.
        It would be one flat value, and is most often of another unit than `encoding` says.
        """
        options = self.options
        sample = read_depth(path, options.encoding, max_pixels=options.max_pixels)
        depth_m = sample.values[sample.valid_mask]
        low, high = options.clip_min_m, options.clip_max_m
        if not bool(((depth_m >= low) & (depth_m <= high)).any()):
            raise BrokenSampleError(
                "out_of_range",
                f"{path}: as '{options.encoding}' all depth is from {float(depth_m.min()):g} to "
                f"{float(depth_m.max()):g} m; clip_min_m and clip_max_m keep {low:g} to {high:g} m",
            )
        return sample

    def render(self, scene: Any, seed: int) -> DepthSample:
        """Make the depth map of a generated scene."""
        return DepthSample(*split_valid(render_depth(scene, seed)))

    def features(self, sample: MapSample) -> Tensor:
        """Return float32 `(1, size_px, size_px)`, standardised, 0 where nothing was measured.

        Depth is clipped and turned into the representation first, then resized: a pixel is the
        mean of what was measured under it.

        Raises:
            InputError: If it is no depth map, or disparity is asked for and its camera is unknown.
        """
        options = self.options
        depth = check_map(sample, UNIT)
        shown = resize_map(self._represent(depth), options.size_px)
        standardised = change_values(shown, (shown.values - options.mean) / options.std)
        return standardised.values[None]

    def windows(self, sample: MapSample) -> list[tuple[float, float, MapSample]]:
        """Return the sample itself: a map has no length in time."""
        return [(0.0, 0.0, check_map(sample, UNIT))]

    def content_hash(self, path: Path, key: str) -> bytes:
        """Hash the bytes of the file and the options that reading depends on."""
        if not path.is_file():
            raise BrokenSampleError("missing", f"{path} is not a file")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        options = self.options
        reading = (options.encoding, options.clip_min_m, options.clip_max_m, options.max_pixels)
        digest.update(repr(reading).encode())
        return digest.digest()

    def describe(self, sample: MapSample) -> Mapping[str, float]:
        """Return the median depth, the share of missing pixels, and width over height."""
        depth = check_map(sample, UNIT)
        measured = depth.values[depth.valid_mask]
        height, width = depth.values.shape
        return {
            "median_m": float(measured.median()) if len(measured) else 0.0,
            "missing_share": 1 - len(measured) / depth.values.numel(),
            "aspect": width / height,
        }

    def _represent(self, depth: MapSample) -> MapSample:
        options = self.options
        if not bool((depth.values[depth.valid_mask] > 0).all()):
            raise InputError(
                "depth in metres asked for; a measured pixel is not above zero; mark it as missing "
                "in valid_mask"
            )
        clipped = change_values(depth, depth.values.clamp(options.clip_min_m, options.clip_max_m))
        if options.representation == "depth":
            return clipped
        if options.representation == "log_depth":
            return change_values(clipped, torch.log(clipped.values))
        return change_values(clipped, self._pixel_metres(depth) / clipped.values)

    def _pixel_metres(self, sample: MapSample) -> float:
        """Return baseline times focal length, of the sample if it knows them, else as stated."""
        focal_px = getattr(sample, "focal_px", None) or self.options.focal_px
        baseline_m = getattr(sample, "baseline_m", None) or self.options.baseline_m
        if focal_px is None or baseline_m is None:
            lacking = "focal_px" if focal_px is None else "baseline_m"
            raise InputError(
                f"disparity asked for; neither the sample nor the recipe says {lacking}; "
                f"set modality.options.{lacking}, or representation: depth"
            )
        return float(focal_px) * float(baseline_m)
