"""Pairs in shards of webdataset: tar files, in which files that share a name are one sample.

A sample's members are what it is made of: `000012.wav`, `000012.txt` and `000012.json` are a sound,
its text, and columns as in a manifest. Shards are not streamed: each sample is read where it lies,
so that the plan of an epoch, its division among processes, and resuming are as with single files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from modalbind.data.files import FileDataset
from modalbind.data.options import WebDatasetOptions
from modalbind.data.packed import build_dataset, check_columns, rename_columns
from modalbind.data.tar_index import TEXT_SUFFIXES, Member, Shard, index_shard
from modalbind.errors import BrokenSampleError, InputError, ManifestError
from modalbind.interfaces import ModalitySpec

MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""Key and extension of a member, as webdataset's `base_plus_ext` divides them."""
META = re.compile(r"__[^/]*__($|/)")
"""Names that webdataset leaves out."""

Members = dict[str, Member]
"""Of one sample, by extension."""


def build(options: WebDatasetOptions, root: Path | None, modality: ModalitySpec) -> FileDataset:
    """Index the shards, and read what they say of each sample.

    Args:
        options: Which shards, and what their members are.
        root: Folder of side files; None takes the one that the shards lie in.
        modality: Of the samples.

    Raises:
        ManifestError: If a shard cannot be used, lacks what is asked for, or contradicts itself.
    """
    folder = shared_folder(options.path)
    roles = _Roles(options, modality)
    files: dict[str, tuple[int, int, int]] = {}
    shards: list[Shard] = []
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    extensions = dict[str, None]()
    for path in _list_shards(options.path):
        shard, members = index_shard(path)
        name = Path(os.path.relpath(path, folder)).as_posix()
        for key, sample in _group(members, path).items():
            extensions.update(dict.fromkeys(sample))
            places.append(f"{path}, sample {key}")
            row, used = roles.read_row(sample, f"{name}#", key, places[-1])
            rows.append(row)
            for own, member in used.items():
                files[own] = len(shards), member.offset, member.size
        shards.append(shard)
    if not modality.is_text and not any(row[modality.name] in files for row in rows):
        raise ManifestError(
            f"a member for '{modality.name}' asked of {options.path}; its samples have "
            f"{', '.join(extensions) or 'none'}; name it: members: {{{modality.name}: EXTENSION}}"
        )
    check_columns(options, roles.columns)
    if options.split is not None:
        rows = [{**row, "split": options.split} for row in rows]
    name = options.name or "/".join(Path(options.path).parts[-2:])
    named = options.model_copy(update={"name": name})
    pack = ShardPack(tuple(shards), files, options.max_sample_mib * 2**20)
    return build_dataset(pack, rows, places, named, folder if root is None else root, modality)


def shared_folder(pattern: str) -> Path:
    """Return the folder that all shards of a pattern lie in or below."""
    return Path(f"{pattern.partition('{')[0]}x").expanduser().parent


@dataclass(frozen=True, slots=True)
class ShardPack:
    """Members of shards by key: the shard's name, `#`, the member's name.

    Attributes:
        shards: All shards.
        files: Shard, offset and size by key.
        max_bytes: A larger one is broken.
    """

    shards: tuple[Shard, ...]
    files: Mapping[str, tuple[int, int, int]]
    max_bytes: int

    def __contains__(self, key: str) -> bool:
        """Say whether it has that member."""
        return key in self.files

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the bytes of a member and its suffix; raises `BrokenSampleError`."""
        if key not in self.files:
            raise BrokenSampleError("missing", f"{key} is not in the shards")
        shard, offset, size = self.files[key]
        if size == 0:
            raise BrokenSampleError("empty", f"{key} has no bytes")
        if size > self.max_bytes:
            raise BrokenSampleError(
                "too_large", f"{key} has {size} bytes, more than max_sample_mib"
            )
        return self.shards[shard].read(offset, size), PurePosixPath(key).suffix


def _list_shards(pattern: str) -> list[Path]:
    if "://" in pattern or pattern.startswith("pipe:"):
        raise ManifestError(
            f"shards {pattern} asked for; samples are read where they lie, which a stream cannot; "
            "copy the shards to a disk, or mount their bucket as a folder"
        )
    names = [pattern]
    if "{" in pattern:
        try:
            from braceexpand import braceexpand
        except ModuleNotFoundError as error:
            raise InputError(
                f"shards {pattern} asked for; braceexpand, which reads the braces, is not "
                "installed; try: pip install 'modalbind[webdataset]'"
            ) from error
        try:
            names = list(braceexpand(pattern))
        except ValueError as error:
            raise ManifestError(f"shards {pattern} asked for; {error}; close the braces") from error
    paths = [Path(name).expanduser() for name in names]
    if len(set(paths)) != len(paths):
        raise ManifestError(f"shards {pattern} asked for; it names one twice; mend the braces")
    return paths


def _group(members: Sequence[Member], path: Path) -> dict[str, Members]:
    """Gather the members of each sample."""
    samples: dict[str, Members] = {}
    for member in members:
        found = MEMBER.fullmatch(member.name)
        if found is None or META.match(member.name):
            continue
        sample, extension = samples.setdefault(found[1], {}), found[2].lower()
        if extension in sample:
            raise ManifestError(
                f"{path}: sample {found[1]} has '{sample[extension].name}' and '{member.name}'; "
                "they are one extension; rename one"
            )
        sample[extension] = member
    return samples


class _Roles:
    """Which members are what, and what they say."""

    def __init__(self, options: WebDatasetOptions, modality: ModalitySpec) -> None:
        self.options = options
        self.modality = modality
        self.columns: set[str] = set()  # that were seen in any sample
        known = ["text", "json", "image"] + ([] if modality.is_text else [modality.name])
        for name in options.members:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise ManifestError(
                    f"members.{name} asked of {options.path}; members are {', '.join(known)}; "
                    + (f"did you mean '{near[0]}'?" if near else "name one of these")
                )
        self.asked = {name: value.lower().split(";") for name, value in options.members.items()}
        for name in ("text", "json"):
            for extension in self.asked.get(name, ()):
                if not f".{extension}".endswith(TEXT_SUFFIXES):
                    raise ManifestError(
                        f"members.{name} asked for '{extension}'; texts are read from members that "
                        f"end in {', '.join(TEXT_SUFFIXES)}; name one"
                    )

    def read_row(
        self, sample: Members, prefix: str, key: str, place: str
    ) -> tuple[dict[str, Any], Members]:
        """Return what a sample's members say, as a manifest row, and what it names by key."""
        own = None if self.modality.is_text else self._find_own(sample, place)
        rest = {name: each for name, each in sample.items() if each is not own}
        row = rename_columns(self._read_columns(rest, place), self.options.columns)
        self._add_text(row, rest, place)
        used = Members()
        picture = self._find("image", rest)
        row["image"] = prefix + picture.name if picture else None
        if picture:
            used[row["image"]] = picture
        if not self.modality.is_text:
            row[self.modality.name] = prefix + (own.name if own else key)
        if own:
            used[row[self.modality.name]] = own
        return row, used

    def _find(self, role: str, sample: Members, default: Sequence[str] = ()) -> Member | None:
        wanted = self.asked.get(role, default)
        return next((sample[name] for name in wanted if name in sample), None)

    def _find_own(self, sample: Members, place: str) -> Member | None:
        if self.modality.name in self.asked:
            return self._find(self.modality.name, sample)
        others = {name for names in self.asked.values() for name in names}
        found = [
            name for name in sample if f".{name}" in self.modality.suffixes and name not in others
        ]
        if len(found) > 1:
            raise ManifestError(
                f"{place}: one member for '{self.modality.name}' asked for; found "
                f"{', '.join(found)}; name it: members: {{{self.modality.name}: {found[0]}}}"
            )
        return sample[found[0]] if found else None

    def _read_columns(self, sample: Members, place: str) -> dict[str, Any]:
        member = self._find("json", sample, ["json"])
        if member is None:
            return {}
        try:
            content = json.loads(_text_of(member, place))
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{place}: {member.name} is not JSON: {error}; mend it") from error
        if not isinstance(content, dict):
            raise ManifestError(f"{place}: {member.name} is not an object; write columns")
        self.columns.update(content)
        return content

    def _add_text(self, row: dict[str, Any], sample: Members, place: str) -> None:
        """Take the text of a member, unless the columns have one."""
        member = self._find("text", sample, ["txt"])
        if member is None or "text" in self.options.columns:
            return
        text = _text_of(member, place).strip()
        said = row.get("text")
        if said and said != text and "text" not in self.asked:
            raise ManifestError(
                f"{place}: {member.name} says '{text[:40]}' and its columns '{str(said)[:40]}'; "
                "name one: members: {text: txt}, or columns: {text: text}"
            )
        row["text"] = text


def _text_of(member: Member, place: str) -> str:
    if member.text is None:
        raise ManifestError(
            f"{place}: {member.name} asked for; it has {member.size} bytes; shorten it"
        )
    return member.text
