"""Any text encoder as an image-text space: a classifier's guesses, in the words of its classes.

A picture is embedded as the mean of the class names' text embeddings, weighted by what a frozen
classifier believes. No training, and the space speaks every language that the text encoder does.
Letters: `n` pictures, `c` classes, `dim` of the text encoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.anchors.fingerprint import hash_fields, hash_weights
from modalbind.anchors.frozen import (
    check_modality,
    exact,
    freeze,
    load_contents,
    opening,
    unit_norm,
)
from modalbind.anchors.opened import OpenAnchor
from modalbind.anchors.options import ConseOptions
from modalbind.anchors.parts import open_space
from modalbind.errors import AnchorError
from modalbind.types import AnchorItem, text_item


def build(source: str, tag: str | None, options: ConseOptions) -> ConseSpace:
    """Open a classifier of timm and the text encoder that speaks for it.

    Args:
        source: Name of a timm model with published weights, `hf-hub:ORG/NAME`, or
            `local-dir:PATH`.
        tag: As in timm's names, `MODEL.TAG`; None for the default.
        options: See `ConseOptions`.

    Raises:
        AnchorError: If one of the two cannot be opened, the text encoder is itself made of a
            classifier, or the class names do not fit the classifier.
    """
    name = f"{source}.{tag}" if tag else source
    spec = f"conse:{name}"
    if options.text.startswith("conse:"):
        raise AnchorError(
            f"asked {spec} to take its words from {options.text}; that is another classifier's "
            "space; name a text encoder"
        )
    text = open_space(options.text, options.text_options, device=options.device or "cpu")
    if "text" not in text.modalities:
        raise AnchorError(
            f"asked {spec} to take its words from {options.text}; it holds "
            f"{', '.join(text.modalities)}; name a space that holds text"
        )
    with opening(spec, "check the name, the files and the network"):
        import timm

        model = timm.create_model(name, pretrained=True)
    names = _read_class_names(spec, model, options)
    if len(names) != model.num_classes:
        raise AnchorError(
            f"asked {spec} for {model.num_classes} classes; {len(names)} names are given; "
            "set anchor.options.class_names to as many"
        )
    return ConseSpace(spec, model, text, names, options)


def _read_class_names(spec: str, model: Any, options: ConseOptions) -> list[str]:
    if options.class_names is not None:
        return _read_names_file(Path(options.class_names).expanduser())
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        raise AnchorError(
            f"asked to open {spec}; its {model.num_classes} classes are not ImageNet's; "
            "name a file of class names: anchor.options.class_names"
        )
    info = ImageNetInfo(subset)
    described = [str(info.index_to_description(index)) for index in range(info.num_classes())]
    # ImageNet lists synonyms, `tench, Tinca tinca`; the first is the usual word.
    return [name.partition(",")[0] for name in described] if options.first_name else described


def _read_names_file(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise AnchorError(
            f"class names in {path} asked for; {error}; write a JSON list, or one name a line"
        ) from error
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise AnchorError(
            f"class names in {path} asked for; they are no list of texts; write a JSON list, or "
            "one name a line"
        )
    return [name.strip() for name in names]


class ConseSpace:
    """A text space that also holds pictures.

    Args:
        spec: What to call it.
        model: Classifier, with its weights and timm's `pretrained_cfg`.
        text: The opened text space.
        names: Of the classes, in the classifier's order.
        options: See `ConseOptions`.

    Raises:
        AnchorError: If the text space is a table that lacks a class name.

    Source:
        Norouzi et al. 2013, "Zero-shot learning by convex combination of semantic embeddings"
        (arXiv 1312.5650), eq. 2.
    """

    is_table = False
    modalities = ("text", "image")

    def __init__(
        self, spec: str, model: Any, text: OpenAnchor, names: Sequence[str], options: ConseOptions
    ) -> None:
        from timm.data import create_transform, resolve_model_data_config

        self.name = f"{spec} in the words of {text.name}"
        self.dim = text.dim
        self.looked_up = ("text",) if text.is_table else ()
        self._text = text
        self._names = tuple(names)
        self._options = options
        self._settings = resolve_model_data_config(model)
        self._transform = create_transform(**self._settings, is_training=False)
        self._model: Any = freeze(model, options.device)
        self._classes = self._embed_classes()
        self._mean = self._classes.mean(dim=0) if options.centre else torch.zeros(self.dim)

    def _embed_classes(self) -> Tensor:
        """Return the classes' text embeddings, the mean over templates, unit norm `(c, dim)`."""
        prompts = [
            template.replace("{label}", name)
            for name in self._names
            for template in self._options.templates
        ]
        vectors = self._text.embed("text", [text_item(prompt, "en") for prompt in prompts])
        per_class = vectors.view(len(self._names), len(self._options.templates), self.dim)
        return F.normalize(per_class.mean(dim=1), dim=1)

    def compute_fingerprint(self) -> str:
        """Hash classifier, preprocessing, class names, options and the text space, as they are."""
        settings = {name: str(value) for name, value in sorted(self._settings.items())}
        options = self._options.model_dump(mode="json", exclude={"device", "text", "class_names"})
        return hash_fields(
            {
                "kind": "conse",
                "weights": hash_weights(self._model.state_dict()),
                "architecture": type(self._model).__name__,
                "preprocessing": settings,
                "names": self._names,
                "options": options,
                "text": self._text.verify()[0],
                "dim": self.dim,
                "normalised": True,
            }
        )

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> Tensor:
        """Return unit-norm float32 `(len(items), dim)` on the CPU.

        Raises:
            AnchorError: If the space does not hold the modality.
            BrokenSampleError: If a picture cannot be read.
        """
        check_modality(self.name, modality, self.modalities)
        if not items:
            return torch.empty(0, self.dim)
        if modality == "text":
            raw = self._text.embed("text", items)
        else:
            raw = self._believe(load_contents(items)) @ self._classes
        return unit_norm(raw - self._mean)

    @exact()
    def _believe(self, pictures: list[Any]) -> Tensor:
        """Return the probabilities of the likeliest classes, summing to one, `(n, c)`."""
        pixels = torch.stack([self._transform(picture.convert("RGB")) for picture in pictures])
        logits = self._model(pixels.to(next(self._model.parameters()).device)).cpu().float()
        probabilities = torch.softmax(logits / self._options.temperature, dim=1)
        kept, classes = probabilities.topk(min(self._options.k, len(self._names)), dim=1)
        weights = torch.zeros_like(probabilities).scatter_(1, classes, kept)
        return weights / weights.sum(dim=1, keepdim=True)
