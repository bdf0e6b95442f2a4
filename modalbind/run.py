"""Finished runs: opening them, and using their towers beside the anchor they are bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.calibration import Calibration
from modalbind.anchors.opened import OpenAnchor
from modalbind.checkpoint import (
    decode_tensors,
    encode_tensors,
    read_checked,
    read_json,
    write_file,
    write_json,
)
from modalbind.data.pictures import open_picture
from modalbind.encoders import Tower, build_tower
from modalbind.encoders.head import published_section
from modalbind.errors import (
    AnchorMismatchError,
    BrokenSampleError,
    CorruptFileError,
    InputError,
    RecipeError,
    RunError,
    UnknownModalityError,
)
from modalbind.evaluation.embed import Window, embed_samples, embed_windows
from modalbind.evaluation.sums import add_up
from modalbind.inputs import build_modality
from modalbind.interfaces import Modality
from modalbind.plugin_manager import Plugins, build, load_plugins
from modalbind.recipe import Recipe, Resolved, resolve
from modalbind.recipe.load import read_recipe
from modalbind.recipe.mistakes import check_model
from modalbind.report import RunReport, read_report
from modalbind.rundir import RunDirectory
from modalbind.together import prepare_samples
from modalbind.types import AnchorItem, TextSample, text_item

BATCH_SIZE = 32
"""Samples embedded at once outside of training."""

CHANGEABLE = "modality.options."
"""What may be changed of a finished run: how samples are read."""


class Run:
    """A run directory that `align` has finished.

    Attributes:
        path: The folder; it may be moved.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; reads nothing."""
        self.path = path
        self.directory = RunDirectory(path)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.directory.read_recipe()

    @property
    def report(self) -> RunReport:
        """The report, as it was written."""
        return read_report(self.path)

    def load(self) -> AlignedSpace:
        """Open the tower and its anchor space."""
        return AlignedSpace([self.path])


def publish_tower(directory: RunDirectory, tower: Tower, fingerprint: str) -> None:
    """Write the finished tower, adapters merged, and what it is bound to."""
    data = encode_tensors(tower.merged_state_dict(), json.dumps({"anchor": fingerprint}))
    write_file(directory.tower_file, data)
    sums = {directory.tower_file.name: hashlib.sha256(data).hexdigest()}
    note = {"anchor": fingerprint, "sha256": sums, "encoder": describe_encoder(tower)}
    write_json(directory.tower_note, note)


def describe_encoder(tower: Tower) -> dict[str, Any]:
    """Return the options that build the tower's encoder without its published weights.

    Raises:
        InputError: If its options cannot say what it is; ask before training.
    """
    encoder: Any = tower.encoder
    options: dict[str, Any] = encoder.portable_options().model_dump(mode="json")
    return options


def load_tower(directory: RunDirectory, resolved: Resolved, dim: int) -> Tower:
    """Read the finished tower of a run.

    Raises:
        RunError: If the run is not finished.
        CorruptFileError: If the file differs from its checksum.
    """
    directory.check_trained()
    note = read_json(directory.tower_note)
    if not isinstance(note, dict) or not {"sha256", "encoder"} <= note.keys():
        raise CorruptFileError(
            f"{directory.tower_note} asked for; it lacks the checksum or the encoder; restore it"
        )
    data = read_checked(directory.path, directory.tower_file.name, note["sha256"])
    tower = _build_plain_tower(directory, resolved, dim, note["encoder"])
    try:
        tower.load_state_dict(decode_tensors(data, directory.tower_file))
    except RuntimeError as error:
        raise CorruptFileError(
            f"{directory.tower_file} asked for; it does not fit the tower that tower.json and "
            "run.json describe; restore all three"
        ) from error
    return tower.eval()


def _build_plain_tower(
    directory: RunDirectory, resolved: Resolved, dim: int, encoder_options: Any
) -> Tower:
    """Build the tower that finished weights fit: no adapters, no published weights to fetch."""
    options, mistakes = check_model(resolved.encoder.options, encoder_options, ("encoder",))
    if mistakes:
        raise CorruptFileError(f"{directory.tower_note} asked for; {mistakes[0]}; restore it")
    encoder = build(resolved.encoder, options, build_modality(resolved))
    section = resolved.recipe.tower.model_copy(update={"lora": None, "freeze": "none"})
    return build_tower(encoder, published_section(resolved.recipe.head), section, dim)


def read_bound_anchor(directory: RunDirectory) -> dict[str, Any]:
    """Return what run.json says of the anchor space: spec, space, fingerprint, dim, modalities.

    Raises:
        RunError: If the folder has no run.json.
        CorruptFileError: If that does not say all of it.
    """
    anchor: dict[str, Any] = directory.read_identity()["anchor"]
    kinds = {"spec": str, "space": str, "fingerprint": str, "dim": int, "modalities": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(anchor.get(name), kind)]
    if wrong:
        raise CorruptFileError(
            f"{directory.run_file} asked for; its anchor has no valid {', '.join(wrong)}; "
            "restore it"
        )
    return anchor


class _Bound:
    """One modality of a run; its tower is read when it is first used."""

    def __init__(self, path: Path, plugins: Plugins, overrides: Sequence[str]) -> None:
        self.directory = RunDirectory(path)
        self.anchor = read_bound_anchor(self.directory)
        self.fingerprint: str = self.anchor["fingerprint"]
        self.resolved = resolve(_read_recipe(self.directory, overrides, plugins), plugins)
        self.name = self.resolved.modality.name
        self._tower: Tower | None = None
        self._modality: Modality | None = None

    @property
    def modality(self) -> Modality:
        if self._modality is None:
            self._modality = build_modality(self.resolved)
        return self._modality

    def load(self, item: Any) -> Any:
        """Read a file, or take a text or a sample as it is."""
        if not isinstance(item, str | Path):
            return item
        if self.resolved.modality.is_text:
            return TextSample(str(item))
        return self.modality.load(Path(item).expanduser(), str(item))

    def tower(self, device: torch.device) -> Tower:
        if self._tower is None:
            dim: int = self.anchor["dim"]
            self._tower = load_tower(self.directory, self.resolved, dim).to(device)
        return self._tower


def _read_recipe(directory: RunDirectory, overrides: Sequence[str], plugins: Plugins) -> Recipe:
    recipe = directory.read_recipe()
    others = [override for override in overrides if not override.startswith(CHANGEABLE)]
    if others:
        raise RecipeError(
            f"'{others[0]}' asked of run {directory.path}; its tower is trained; "
            f"change only how samples are read, {CHANGEABLE}KEY=VALUE"
        )
    return read_recipe(recipe, overrides, plugins) if overrides else recipe


class AlignedSpace:
    """An anchor space and every modality bound to it; everything in it can be compared.

    Invariant: all runs are bound to one fingerprint. Towers and the anchor are opened when first
    used: what embeds one modality needs nothing of another.

    Attributes:
        modalities: Names, the anchor's own first; a run that brings one of these embeds it.
        name: Of the anchor space.
        dim: Length of every embedding.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        device: str = "cpu",
        cache: AnchorCache | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        """Bind runs; arguments as for `load`.

        Raises:
            AnchorMismatchError: If they belong to different anchor spaces.
            RunError: If one is no run, or two bring the same modality.
            RecipeError: If an override is none of `modality.options`.
            CorruptFileError: If what a run says of its anchor space is damaged.
        """
        plugins = load_plugins()
        bound = [_Bound(path, plugins, overrides) for path in paths]
        _check_one_space(bound)
        self._first = bound[0]
        self._bound = {item.name: item for item in bound}
        self._device = torch.device(device)
        self._cache = cache
        self.name: str = self._first.anchor["space"]
        self.dim: int = self._first.anchor["dim"]
        names = dict.fromkeys([*self._first.anchor["modalities"], *self._bound])
        self.modalities: tuple[str, ...] = tuple(names)

    @cached_property
    def anchor(self) -> OpenAnchor:
        """The frozen space itself.

        Raises:
            AnchorError: If it cannot be opened.
            AnchorMismatchError: If it is not the one that the runs are bound to.
        """
        first = self._first
        anchor = open_anchor(
            first.resolved.recipe.anchor,
            first.resolved.anchor,
            self._cache or AnchorCache(),
            str(self._device),
            first.resolved.anchor_options,
        )
        if first.resolved.recipe.anchor.calibration is not None:
            anchor.calibrate(Calibration.read(first.directory.calibration_file))
        for item in self._bound.values():
            anchor.check_bound(item.directory.path, item.anchor)
        return anchor

    def embed(self, modality: str, inputs: Sequence[Any]) -> Tensor:
        """Embed inputs of one modality.

        Args:
            modality: One of `modalities`.
            inputs: A list: paths of files; texts for `text`; `PIL.Image.Image` are taken for
                `image`, and the plugin's own samples for its modality.

        Returns:
            Unit-norm float32 `(len(inputs), dim)`.

        Raises:
            UnknownModalityError: If nothing here embeds that modality.
            InputError: If `inputs` is no list, or holds what that modality does not take.
            BrokenSampleError: If a file cannot be read.
            AnchorError: If the anchor is needed and cannot be opened, or lacks an input.
        """
        self._check(modality)
        items = _as_list(inputs)
        if not items:
            return torch.zeros(0, self.dim)
        if modality in self._bound:
            bound = self._bound[modality]
            samples: Iterable[Any] = map(bound.load, items)
            if bound.resolved.modality.is_text:  # small enough to be held all at once
                samples = list(samples)
                prepare_samples(bound.modality, samples)
            return embed_samples(
                bound.tower(self._device),
                bound.modality,
                samples,
                device=self._device,
                batch_size=BATCH_SIZE,
                use_windows=bound.resolved.recipe.evaluation.window,
            )
        return self.anchor.embed(modality, [_anchor_item(modality, item) for item in items])

    def embed_windows(self, modality: str, path: str | Path) -> list[tuple[float, float, Tensor]]:
        """Embed a long file window by window, as `(start_s, end_s, embedding)`."""
        self._check(modality, self._bound)
        bound = self._bound[modality]
        windows: list[Window] = bound.modality.windows(bound.load(path))
        tower = bound.tower(self._device)
        (vectors,) = embed_windows(tower, bound.modality, [windows], self._device, BATCH_SIZE)
        return [(w[0], w[1], v) for w, v in zip(windows, vectors, strict=True)]

    def identify(self, modality: str) -> str:
        """Return what decides how an input of a modality is embedded: equal if that is equal."""
        self._check(modality)
        if modality not in self._bound:
            return self._first.fingerprint
        bound = self._bound[modality]
        tower = read_json(bound.directory.tower_note)["sha256"]
        reading = bound.resolved.modality_options.model_dump_json()
        return f"{tower} {reading} {bound.resolved.recipe.evaluation.window}"

    def hash_input(self, modality: str, item: str) -> bytes:
        """Return the content hash of a path or text, 32 bytes.

        Raises:
            BrokenSampleError: If a file cannot be read.
        """
        bound = self._bound.get(modality)
        if bound is None:
            return _anchor_item(modality, item).content_hash
        if bound.resolved.modality.is_text:
            return hashlib.sha256(item.encode()).digest()
        return bound.modality.content_hash(Path(item).expanduser(), item)

    def text_tower(self) -> tuple[Tower, Modality] | None:
        """Return the tower of texts and what makes its features; None if no run brings texts."""
        for bound in self._bound.values():
            if bound.resolved.modality.is_text:
                return bound.tower(self._device), bound.modality
        return None

    def combine(self, *embeddings: Tensor) -> Tensor:
        """Return the normalised sum of embeddings: what lies near all of them.

        Args:
            embeddings: Each unit norm `(n, dim)`, of any modality; row i of all belongs together.

        Returns:
            Unit-norm float32 `(n, dim)`.

        Source:
            Girdhar et al. 2023, ImageBind (arXiv 2305.05665), section 4.4: embedding arithmetic.
        """
        return add_up(embeddings)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the cosine similarities of embeddings `(n, dim)` and `(m, dim)`: `(n, m)`."""
        return a @ b.T

    def _check(self, modality: str, among: Iterable[str] | None = None) -> None:
        names = list(self.modalities if among is None else among)
        if modality not in names:
            raise UnknownModalityError(
                f"modality '{modality}' asked for; this space embeds {', '.join(names)}; "
                "name one of these, or load a run that brings it"
            )


def load(
    source: str | Path | Sequence[str | Path], device: str = "cpu", overrides: Sequence[str] = ()
) -> AlignedSpace:
    """Open one run or several, from folders or from the hub.

    Args:
        source: A run directory, a hub id `ORG/NAME`, or a list of these. Several are bound to
            their common anchor space.
        device: Where towers and anchor run.
        overrides: `key=value` as for `--set`, of `modality.options` alone: samples are read by
            them, such as longer ones (`modality.options.max_duration_s=3600`).

    Raises:
        RunError: If a source is neither a run nor to be fetched.
        AnchorMismatchError: If runs belong to different anchor spaces.
        RecipeError: If an override is none of these options.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise RunError("runs to load asked for; none given; name at least one")
    return AlignedSpace([find_run(item) for item in sources], device, overrides=overrides)


def find_run(source: str | Path) -> Path:
    """Return the folder of a run, fetched from the hub if it is no folder.

    Raises:
        RunError: If there is none.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.name == "latest":
        path = path.parent / path.read_text("utf-8").strip()
    if path.is_dir():
        return path
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise RunError(
            f"run {source} asked for; no such folder; name one that `modalbind align` has written"
        )
    return _fetch_run(name)


def _fetch_run(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["recipe.yaml", "run.json", "tower.json", "tower.safetensors", "report.json"]
    wanted.append("calibration.safetensors")  # only where the anchor is calibrated
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise RunError(
            f"run {name} asked for; it is no folder here, and the hub says: {first}; "
            "check the name and the connection"
        ) from error


def _check_one_space(bound: Sequence[_Bound]) -> None:
    first = bound[0]
    names: dict[str, Path] = {}
    for item in bound:
        if item.fingerprint != first.fingerprint:
            raise AnchorMismatchError(
                f"runs of one anchor space asked for; {first.directory.path} is bound to "
                f"{first.fingerprint[:16]}, {item.directory.path} to {item.fingerprint[:16]}; "
                "align both to the same anchor"
            )
        if item.name in names:
            raise RunError(
                f"one run per modality asked for; {names[item.name]} and {item.directory.path} "
                f"both bring '{item.name}'; name one of them"
            )
        names[item.name] = item.directory.path


def _as_list(inputs: Any) -> list[Any]:
    """Return the inputs, unless one was given in place of a list: a text is no list of letters."""
    is_one = isinstance(inputs, str | bytes | Path | np.ndarray | Tensor)
    if is_one or not isinstance(inputs, Iterable):
        raise InputError(
            f"a list of inputs asked for; found one {type(inputs).__name__}; write [input]"
        )
    return list(inputs)


def _anchor_item(modality: str, item: Any) -> AnchorItem:
    if modality == "text":
        if not isinstance(item, str):
            raise InputError(f"texts asked for; found {type(item).__name__}; give strings")
        return text_item(item)
    if isinstance(item, Image.Image):
        rgb = item.convert("RGB")
        digest = hashlib.sha256(rgb.tobytes() + repr(rgb.size).encode()).digest()
        return AnchorItem(f"picture {digest.hex()[:12]}", digest, lambda: rgb)
    if not isinstance(item, str | Path):
        raise InputError(
            f"pictures asked for; found {type(item).__name__}; give paths or PIL.Image.Image"
        )
    path = Path(item).expanduser()
    if not path.is_file():
        # A table of vectors knows pictures by key alone.
        return AnchorItem(str(item), hashlib.sha256(str(item).encode()).digest(), _missing(path))
    return AnchorItem(
        str(item), hashlib.sha256(path.read_bytes()).digest(), lambda: open_picture(path)
    )


def _missing(path: Path) -> Any:
    def load() -> Any:
        raise BrokenSampleError("missing", f"{path}: no such file")

    return load
