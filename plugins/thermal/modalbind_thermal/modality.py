"""The modality itself: how a thermal picture becomes a sample, and a sample becomes features."""

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
    render_heat,
    resize_map,
    split_valid,
)
from modalbind_thermal.options import ThermalOptions, Unit
from modalbind_thermal.reading import ThermalSample, load_thermal

_NAMES = {"celsius": "degrees Celsius", "counts": "counts 0..255"}


def build(options: ThermalOptions) -> ThermalModality:
    """Factory named by the plugin's `ModalitySpec`."""
    return ThermalModality(options)


class ThermalModality:
    """Thermal pictures: files, or generated scenes.

    Attributes:
        options: As the recipe has them; encoders read `size_px`.
        is_padded: False: all features are `(1, size_px, size_px)`.
    """

    is_padded = False

    def __init__(self, options: ThermalOptions) -> None:
        """Keep the options."""
        self.options = options

    def load(self, path: Path, key: str) -> ThermalSample:
        """Read a file; raises `BrokenSampleError`."""
        return load_thermal(path, self.options)

    def render(self, scene: Any, seed: int) -> ThermalSample:
        """Make the thermal picture of a generated scene, in the modality's unit.

        Counts are those of a camera with automatic gain: the coldest pixel is 0, the hottest 255.
        """
        heat_c, valid_mask = split_valid(render_heat(scene, seed))
        if self.options.unit == "celsius":
            return ThermalSample(heat_c, valid_mask)
        lowest_c, highest_c = heat_c.min(), heat_c.max()
        counts = (255 * (heat_c - lowest_c) / (highest_c - lowest_c)).round()
        return ThermalSample(counts, valid_mask, "counts")

    def features(self, sample: ThermalSample) -> Tensor:
        """Return float32 `(1, size_px, size_px)`: clipped, resized, standardised.

        What was not measured is 0, the mean.

        Raises:
            InputError: If it is no thermal sample, or one in the other unit.
            ShapeError: If it is no map.
        """
        options = self.options
        checked = check_unit(sample, options.unit)
        if options.unit == "celsius":
            clipped = checked.values.clamp(options.min_c, options.max_c)
            checked = change_values(checked, clipped)
        resized = resize_map(checked, options.size_px)
        mean, std = options.standard
        standardised = change_values(resized, (resized.values - mean) / std)
        return standardised.values.unsqueeze(0)

    def windows(self, sample: ThermalSample) -> list[tuple[float, float, ThermalSample]]:
        """Return the sample whole: a picture has no duration.

        Raises:
            InputError: If it is no thermal sample, or one in the other unit.
        """
        return [(0.0, 0.0, check_unit(sample, self.options.unit))]

    def content_hash(self, path: Path, key: str) -> bytes:
        """Hash the bytes of the file and the options that reading depends on."""
        if not path.is_file():
            raise BrokenSampleError("missing", f"no map at {path}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        options = self.options
        reading = (
            options.encoding,
            options.scale_c,
            options.offset_c,
            options.missing,
            options.mixes_colours,
            options.max_pixels,
        )
        digest.update(repr(reading).encode())
        return digest.digest()

    def describe(self, sample: ThermalSample) -> Mapping[str, float]:
        """Return median and spread in the sample's unit, width to height, and what is missing."""
        checked = check_unit(sample, self.options.unit)
        kept = checked.values[checked.valid_mask]
        if not len(kept):
            kept = torch.zeros(1)
        suffix = "c" if checked.unit == "celsius" else "counts"
        height, width = checked.values.shape
        return {
            f"median_{suffix}": float(kept.median()),
            f"spread_{suffix}": float(kept.std(correction=0)),
            "missing_fraction": 1.0 - float(checked.valid_mask.float().mean()),
            "aspect": width / height,
        }


def check_unit(sample: Any, unit: Unit) -> ThermalSample:
    """Return the sample if it is a thermal picture in that unit.

    Raises:
        InputError: If it is something else, or its unit another: numbers alone do not say it.
        ShapeError: If it is no map.
    """
    if isinstance(sample, MapSample) and not isinstance(sample, ThermalSample):
        raise InputError(
            f"a thermal picture in {_NAMES[unit]} asked for; found a {type(sample).__name__} "
            "without a unit; give modalbind_thermal.reading.ThermalSample"
        )
    checked = check_map(sample, _NAMES[unit])
    assert isinstance(checked, ThermalSample)
    if checked.unit != unit:
        raise InputError(
            f"a thermal picture in {_NAMES[unit]} asked for; found one in "
            f"{_NAMES.get(checked.unit, checked.unit)}; set modality.options.encoding to what the "
            "samples are"
        )
    return checked
