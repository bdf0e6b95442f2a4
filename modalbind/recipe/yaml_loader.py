"""Reads and writes YAML, hardened for recipes that come from anywhere.

Numbers, booleans and text are told apart as YAML 1.2 does: `1e-4` is a number, `12:30`, `yes` and
`no` are text. Refused, with file and line: duplicate keys, tags, merge keys, keys that are not
text, recursion, and whatever would grow beyond the bounds below.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.error import MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from modalbind.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000  # after every alias is written out

_TAG = "tag:yaml.org,2002:"
_RARE_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_RESOLVERS = (  # YAML 1.2.2, section 10.3.2, without .inf and .nan, which no recipe needs
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping.

    Raises:
        RecipeError: If it cannot be read, in one line with file and line number.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _refuse(str(path), None, f"it is larger than {MAX_BYTES} bytes", "shorten it")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _refuse(str(path), None, error.strerror or str(error), "check the path") from error
    except UnicodeDecodeError as error:
        raise _refuse(str(path), None, "it is not UTF-8 text", "save it as UTF-8") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise _refuse(str(path), 1, "it is not a mapping", "write `key: value` lines")
    return content


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML from memory; `source` names it in messages.

    Raises:
        RecipeError: If it is not valid, or holds what is refused.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        remedy = error.note or "correct that line"
        raise _refuse(source, line, _flat(error.problem or str(error)), remedy) from error
    except YAMLError as error:
        raise _refuse(source, None, _flat(str(error)), "remove what is not text") from error
    finally:
        if loader is not None:
            loader.dispose()


def dump_yaml(content: Any) -> str:
    """Write what `parse_yaml` reads back as the same values, keys in their order."""
    return yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars and bounds; it builds only dict, list, str and numbers."""

    depth = 0

    def compose_document(self) -> Node | None:
        root = super().compose_document()
        if root is not None:
            _check_size(root)
        return root

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _problem(f"tag '{event.tag}'", event.start_mark, "remove the tag")
        if self.depth >= MAX_DEPTH:
            raise _problem(f"more than {MAX_DEPTH} levels", event.start_mark, "flatten it")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def flatten_mapping(self, node: MappingNode) -> None:
        """Check the keys where SafeLoader would merge; nothing is merged."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise _problem("a key that is not text", key.start_mark, "use a plain key")
            if key.tag == f"{_TAG}merge":
                raise _problem("a merge key '<<'", key.start_mark, "write the keys out")
            if key.tag != f"{_TAG}str":
                found = f"key '{key.value}', which is not text"
                raise _problem(found, key.start_mark, "put it in quotes")
            if key.value in seen:
                found = f"key '{key.value}' again, first on line {seen[key.value]}"
                raise _problem(found, key.start_mark, "remove one of them")
            seen[key.value] = line

    def construct_int(self, node: ScalarNode) -> int:
        text = self.construct_scalar(node)
        bases = {"0o": 8, "0x": 16}
        try:
            return int(text, bases.get(text[:2], 10))
        except ValueError as error:  # Python refuses more than 4300 digits
            raise _problem("a number too long", node.start_mark, "shorten it") from error

    def construct_float(self, node: ScalarNode) -> float:
        value = float(self.construct_scalar(node))
        if not math.isfinite(value):
            raise _problem("a number too large", node.start_mark, "use a smaller one")
        return value


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what the loader above would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> ScalarNode:
        """Quote text with rare line breaks, which PyYAML would fold away in its other styles."""
        style = '"' if _RARE_BREAKS.search(data) else None
        return self.represent_scalar(f"{_TAG}str", data, style=style)


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}  # SafeLoader's are YAML 1.1's
    for _name, _pattern, _first in _RESOLVERS:
        _starts = [*_first, ""] if _name == "null" else list(_first)
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_pattern})$"), _starts)
_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_float)


def _check_size(root: Node) -> None:
    """Count nodes as if each alias were written out; the sum, not the file, is what grows."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def count(node: Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise _problem("an alias inside its own anchor", node.start_mark, "write it out")
        open_nodes.add(id(node))
        total = 1 + sum(count(child) for child in _children(node))
        open_nodes.discard(id(node))
        if total > MAX_NODES:
            raise _problem(f"more than {MAX_NODES} values", node.start_mark, "shorten it")
        sizes[id(node)] = total
        return total

    count(root)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _problem(found: str, mark: Any, remedy: str) -> MarkedYAMLError:
    return MarkedYAMLError(problem=f"found {found}", problem_mark=mark, note=remedy)


def _refuse(source: str, line: int | None, found: str, remedy: str) -> RecipeError:
    place = source if line is None else f"{source}:{line}"
    return RecipeError(f"{place} cannot be read as YAML; {found}; {remedy}")


def _flat(message: str) -> str:
    return " ".join(message.split())
