"""Checks of an encoder, behind a head: one embedding a sample, whatever stands around it.

Axes: `n` samples, `time` the padded axis, `width` the encoder's output, `dim` the anchor space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.conformance.material import (
    Material,
    build_example,
    parse_options,
    set_seeds,
    share_materials,
)
from modalbind.conformance.odd_samples import make_odd_samples
from modalbind.conformance.verdict import ContractError, NotCheckedError, one_line, require
from modalbind.data.collate import build_side, pad_features
from modalbind.encoders import Tower, build_tower
from modalbind.encoders.head import published_section
from modalbind.errors import AnchorError, ModalbindError
from modalbind.evaluation.embed import embed_samples
from modalbind.interfaces import Encoder, EncoderSpec, Options
from modalbind.objectives import LogitScale
from modalbind.plugin_manager import build
from modalbind.recipe.schema import HeadSection, TowerSection

DIM = 24
"""Of the made-up anchor space that the head leads into."""
TOLERANCE = 1e-5
"""Largest difference of a unit-norm embedding's numbers, float32, between ways of batching."""
HALF_COSINE = 0.95
"""Least cosine between the embeddings in float32 and under bfloat16."""
EXTRA_STEPS = (1, 7, 64)
"""Steps of padding added to a sample."""
CPU = torch.device("cpu")


class EncoderBench:
    """An encoder, a head on it, and features of its modality.

    Under the options of the modality's quick start if that uses the encoder, else its example's.
    """

    def __init__(self, around: Any, spec: EncoderSpec) -> None:
        """Keep what to look at; nothing is built yet."""
        self.around = around
        self.spec = spec
        self._materials = share_materials(around)

    @cached_property
    def _is_quick_starts(self) -> bool:
        if self.around.options is not None:
            return False
        quick = self._materials.of(self.spec.modality, {})
        try:
            return quick.resolved.encoder == self.spec
        except ModalbindError:
            return False

    @cached_property
    def material(self) -> Material:
        """The modality and its samples."""
        changed = {} if self._is_quick_starts else self.spec.example_modality
        return self._materials.ready(self.spec.modality, changed)

    @cached_property
    def options(self) -> Options:
        """Options of the encoder."""
        if self._is_quick_starts:
            return self.material.resolved.encoder_options
        given = self.spec.example if self.around.options is None else self.around.options
        return parse_options(self.spec, given)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder."""
        with self._exported() as extra:
            return self._build(self.options, 0, extra)

    def build_again(self, options: Options) -> Encoder:
        """Build it from other options, under another seed, as a finished run is opened."""
        return self._build(options, 1, (None,) if self.spec.starts_from else ())

    def _build(self, options: Options, seed: int, extra: tuple[Path | None, ...]) -> Encoder:
        make = build if self._is_quick_starts and not extra else build_example
        set_seeds(seed)
        return cast(Encoder, make(self.spec, options, self.material.modality, *extra))

    @contextmanager
    def _exported(self) -> Iterator[tuple[Path | None, ...]]:
        """Yield what the factory takes beside options and modality.

        An encoder that starts from an anchor's tower gets that of the quick start's anchor space,
        unless its example builds it alone.
        """
        if not self.spec.starts_from:
            yield ()
            return
        if self.spec.example and not self._is_quick_starts:
            yield (None,)
            return
        found = self.material.resolved
        section = found.recipe.anchor
        try:
            anchor = open_anchor(section, found.anchor, AnchorCache(), options=found.anchor_options)
            with anchor.exported_tower(self.spec.starts_from) as path:
                yield (path,)
        except AnchorError as error:
            raise NotCheckedError(f"it cannot be built here: {one_line(error)}") from error

    @cached_property
    def tower(self) -> Tower:
        """The encoder with the quick start's head."""
        return self.build_tower(self.encoder)

    def build_tower(self, encoder: Encoder) -> Tower:
        """Put the quick start's head on an encoder, in the form in which it is published."""
        head = self.material.resolved.recipe.head if self._is_quick_starts else HeadSection()
        head = published_section(head)
        dim = encoder.width if head.kind == "none" else DIM
        set_seeds(0)
        return build_tower(encoder, head, TowerSection(), dim)

    def batch(self) -> tuple[Tensor, Tensor | None]:
        """Return a copy of the samples' features, padded, and their mask."""
        return pad_features(self.material.features(), self.material.modality.is_padded)

    @torch.no_grad()
    def embed(
        self, features: Tensor, mask: Tensor | None, seed: int = 0, tower: Tower | None = None
    ) -> Tensor:
        """Embed a copy of a batch in eval mode, under a global seed."""
        set_seeds(seed)
        tower = (self.tower if tower is None else tower).eval()
        found: Tensor = tower(features.clone(), None if mask is None else mask.clone())
        return found

    def copy_tower(self) -> Tower:
        """Return a copy of the tower, for what leaves traces: training mode, gradients."""
        return deepcopy(self.tower)

    @property
    def forward(self) -> Any:
        """The place to look at."""
        return getattr(type(self.encoder), "forward", type(self.encoder))


def check_builds(bench: EncoderBench) -> None:
    """Build the encoder and look at its attributes."""
    encoder = bench.encoder
    where = type(encoder)
    require(isinstance(encoder, nn.Module), f"a {where.__name__} is no torch module", where)
    width = getattr(encoder, "width", None)
    require(isinstance(width, int) and width > 0, f"width is {width!r}, no positive int", where)
    targets = getattr(encoder, "lora_targets", None)
    require(isinstance(targets, tuple), f"lora_targets is {targets!r}, no tuple", where)
    for name in ("layer_groups", "portable_options"):
        require(callable(getattr(encoder, name, None)), f"it has no method {name}()", where)


def check_output(bench: EncoderBench) -> None:
    """Encode a batch, and one of a single sample."""
    module = cast(nn.Module, bench.encoder).eval()
    features, mask = bench.batch()
    for count in (len(features), 1):
        part = None if mask is None else mask[:count]
        set_seeds(0)
        with torch.no_grad():
            found = module(features[:count].clone(), part)
        require(isinstance(found, Tensor), f"it gives a {type(found).__name__}", bench.forward)
        wanted = (count, bench.encoder.width)
        require(
            tuple(found.shape) == wanted,
            f"(n, width) = {wanted} asked for; found {tuple(found.shape)}",
            bench.forward,
        )
        require(found.dtype == torch.float32, f"it gives {found.dtype}", bench.forward)
        require(bool(torch.isfinite(found).all()), "it gives values not finite", bench.forward)


def check_unit_norm(bench: EncoderBench) -> None:
    """Embed a batch and take the norms."""
    found = bench.embed(*bench.batch())
    require(found.dtype == torch.float32, f"embeddings are {found.dtype}", bench.forward)
    norms = found.norm(dim=1)
    low, high = float(norms.min()), float(norms.max())
    require(
        abs(low - 1) < TOLERANCE and abs(high - 1) < TOLERANCE,
        f"embeddings have norms from {low:.4g} to {high:.4g}: the encoder's output is too small "
        "or too large to be normalised",
        bench.forward,
    )


def check_eval_is_fixed(bench: EncoderBench) -> None:
    """Embed a batch twice, under different global seeds."""
    batch = bench.batch()
    _require_equal(bench, bench.embed(*batch, seed=1), bench.embed(*batch, seed=2), 0.0, "twice")


def check_eval_after_train(bench: EncoderBench) -> None:
    """Let it run in training mode, go back, and embed twice under different global seeds."""
    tower = bench.copy_tower().train()
    set_seeds(0)
    tower(*bench.batch())
    first, second = (bench.embed(*bench.batch(), seed=seed, tower=tower) for seed in (1, 2))
    _require_equal(bench, first, second, 0.0, "twice after training mode")


def check_tells_apart(bench: EncoderBench) -> None:
    """Embed different samples and compare them pair by pair."""
    found = bench.embed(*bench.batch())
    apart = torch.cdist(found, found) + 10 * torch.eye(len(found))
    least = float(apart.min())
    require(least > TOLERANCE, f"two samples are embedded {least:.2g} apart", bench.forward)


def check_leaves_input(bench: EncoderBench) -> None:
    """Encode a batch in both modes and compare it with a copy."""
    for mode in (False, True):
        features, mask = bench.batch()
        kept, kept_mask = features.clone(), None if mask is None else mask.clone()
        bench.copy_tower().train(mode)(features, mask)
        require(torch.equal(features, kept), "it changes the features", bench.forward)
        is_same = mask is None or kept_mask is None or torch.equal(mask, kept_mask)
        require(is_same, "it changes the mask", bench.forward)


def check_order(bench: EncoderBench) -> None:
    """Embed the batch backwards, and rotated by one."""
    features, mask = bench.batch()
    expected = bench.embed(features, mask)
    n = len(features)
    for order in (torch.arange(n).flip(0), torch.arange(n).roll(1)):
        found = bench.embed(features[order], None if mask is None else mask[order])
        _require_equal(bench, expected[order], found, TOLERANCE, "in another order")


def check_batch(bench: EncoderBench) -> None:
    """Embed each sample alone, padded as it was in the batch."""
    features, mask = bench.batch()
    expected = bench.embed(features, mask)
    for row in range(len(features)):
        alone = slice(row, row + 1)
        found = bench.embed(features[alone], None if mask is None else mask[alone])
        _require_equal(bench, expected[alone], found, TOLERANCE, "alone and in a batch")


def check_padding(bench: EncoderBench) -> None:
    """Embed each sample without padding, with no mask, and with more and more padding."""
    if not bench.material.modality.is_padded:
        raise NotCheckedError("features have one fixed shape: nothing is padded")
    for item in bench.material.features():
        features, mask = pad_features([item], True)
        expected = bench.embed(features, mask)
        _require_equal(bench, expected, bench.embed(features, None), TOLERANCE, "without a mask")
        for extra in EXTRA_STEPS:
            # pairs of sizes, from the last axis to the first
            padded = F.pad(features, (0, 0) * (features.ndim - 2) + (0, extra))
            longer = F.pad(cast(Tensor, mask), (0, extra), value=False)
            found = bench.embed(padded, longer)
            _require_equal(bench, expected, found, TOLERANCE, f"with {extra} more steps of padding")


def check_gradient(bench: EncoderBench) -> None:
    """Take one backward pass from the quick start's objective."""
    features, mask = bench.batch()
    tower = bench.copy_tower()
    trained = [p for p in tower.encoder.parameters() if p.requires_grad]
    if not trained:
        raise NotCheckedError("nothing in it trains")
    anchors = _make_anchors(*bench.embed(*bench.batch()).shape).requires_grad_()
    resolved = bench.material.resolved
    objective = build(resolved.objective, resolved.objective_options)
    keys = [str(row) for row in range(len(features))]
    side = build_side("text", range(len(features)), keys, anchors, 1.0)
    tower.train()
    set_seeds(0)
    scale, bias = LogitScale(objective)(progress=0.0)
    embeddings = tower(features, mask)
    require(embeddings.requires_grad, "embeddings carry no gradient", bench.forward)
    objective(embeddings, anchors, side.positives, side.excluded, scale, bias).backward()
    for name, group in _groups_that_train(cast(Encoder, tower.encoder)):
        grads = [p.grad for p in group if p.grad is not None]
        require(
            any(bool(grad.abs().sum() > 0) for grad in grads),
            f"no gradient at {name}",
            bench.forward,
        )
        require(
            all(bool(torch.isfinite(grad).all()) for grad in grads),
            f"a gradient at {name} is not finite",
            bench.forward,
        )
    require(_is_still(anchors), "the gradient reaches the anchor embeddings", bench.forward)


def check_half_precision(bench: EncoderBench) -> None:
    """Embed under bfloat16 autocast, as a run with `train.precision: bf16` does."""
    batch = bench.batch()
    expected = bench.embed(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bench.embed(*batch)
    require(found.dtype == torch.float32, f"embeddings are {found.dtype}", bench.forward)
    require(bool(torch.isfinite(found).all()), "embeddings are not finite", bench.forward)
    cosine = float((expected * found).sum(dim=1).min())
    require(
        cosine >= HALF_COSINE,
        f"cosine of {HALF_COSINE} with the float32 embedding asked for; found {cosine:.3f}",
        bench.forward,
    )


def check_save_load(bench: EncoderBench) -> None:
    """Save the tower's weights, build it anew from portable options, load, and compare bits."""
    encoder = bench.encoder
    where = getattr(type(encoder), "portable_options", type(encoder))
    written = encoder.portable_options().model_dump(mode="json")
    saved = save_tensors(bench.tower.merged_state_dict())
    try:
        again = bench.build_again(parse_options(bench.spec, written))
    except NotCheckedError as error:
        raise ContractError(f"portable_options do not build it: {error}", where) from error
    tower = bench.build_tower(again)
    try:
        tower.load_state_dict(load_tensors(saved))
    except RuntimeError as error:
        raise ContractError(f"the saved weights do not fit: {one_line(error)}", where) from error
    expected, found = bench.embed(*bench.batch()), bench.embed(*bench.batch(), tower=tower)
    _require_equal(bench, expected, found, 0.0, "when saved and loaded")


def check_layer_groups(bench: EncoderBench) -> None:
    """Count each parameter in the layer groups."""
    encoder = cast(nn.Module, bench.encoder)
    where = getattr(type(encoder), "layer_groups", type(encoder))
    own = {id(p): name for name, p in encoder.named_parameters()}
    grouped = [module for group in bench.encoder.layer_groups() for module in group]
    inside = {id(module) for module in encoder.modules()}
    for module in grouped:
        require(id(module) in inside, f"{type(module).__name__} is no part of it", where)
    found = [id(p) for module in grouped for p in module.parameters()]
    twice = sorted({own[each] for each in found if found.count(each) > 1})
    require(not twice, f"in two groups, or twice in one: {', '.join(twice)}", where)
    covered = set(found)
    above = _modules_above(encoder, grouped)
    lost = [
        f"{path}.{name}".strip(".")
        for path, module in encoder.named_modules()
        if id(module) not in above
        for name, p in module.named_parameters(recurse=False)
        if id(p) not in covered
    ]
    require(not lost, f"in no group: {', '.join(lost)}", where)


def check_lora_targets(bench: EncoderBench) -> None:
    """Look up each target by the last parts of names, as adapters do."""
    encoder = cast(nn.Module, bench.encoder)
    linear = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)]
    for target in bench.encoder.lora_targets:
        is_there = any(name == target or name.endswith(f".{target}") for name in linear)
        require(is_there, f"lora_targets: '{target}' names no linear layer", type(encoder))


def check_odd_samples(bench: EncoderBench) -> None:
    """Embed odd samples as a finished run would."""
    modality = bench.material.modality
    for what, odd in make_odd_samples(bench.material.samples()[0]):
        try:
            modality.features(odd)
            for _, _, window in modality.windows(odd):
                modality.features(window)
        except Exception:  # noqa: BLE001 - how the modality refuses is its own check
            continue
        try:
            embed_samples(bench.tower, modality, [odd], device=CPU, batch_size=2)
        except ModalbindError:
            continue
        except Exception as error:
            raise ContractError(
                f"{what}: an embedding or a ModalbindError asked for; {one_line(error)}",
                bench.forward,
            ) from error


def _require_equal(
    bench: EncoderBench, expected: Tensor, found: Tensor, tolerance: float, how: str
) -> None:
    difference = float((expected - found).abs().max())
    require(
        difference <= tolerance,
        f"a sample embedded {how} differs by {difference:.2g}; at most {tolerance:g} asked for",
        bench.forward,
    )


def _groups_that_train(encoder: Encoder) -> Iterator[tuple[str, list[nn.Parameter]]]:
    for depth, group in enumerate(encoder.layer_groups()):
        trained = [p for module in group for p in module.parameters() if p.requires_grad]
        if trained:
            yield f"layer group {depth}", trained


def _modules_above(encoder: nn.Module, grouped: list[nn.Module]) -> set[int]:
    """Return modules that hold a grouped one: parameters of their own can be in no group."""
    ids: Mapping[int, Any] = {id(module): module for module in grouped}
    return {
        id(module)
        for module in encoder.modules()
        if id(module) not in ids and any(id(part) in ids for part in module.modules())
    }


def _make_anchors(count: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)


def _is_still(anchors: Tensor) -> bool:
    return anchors.grad is None or not bool(anchors.grad.abs().sum() > 0)
