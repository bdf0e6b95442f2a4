"""The documentation says what the code does: names, fields, signatures, examples, help texts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from modalbind import api, hookspecs, interfaces, types
from modalbind.cli import app
from modalbind.errors import BrokenSampleError
from modalbind.plugin_checks import KINDS
from modalbind.plugin_manager import GROUP, Plugins, build, load_plugins
from modalbind.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HOOKS = DOCS / "plugins" / "hooks.md"
EXAMPLE = "echo_plugin"

SPECS = {"Spec": interfaces.Spec} | {spec.__name__: spec for _, spec in KINDS.values()}
PROTOCOLS = {name: getattr(api, name) for name in ("Modality", "Encoder", "PairedDataset")}
PROTOCOLS["AnchorSpace"] = api.AnchorSpace
RECORDS = {record.__name__: record for record in (api.Pair, api.AnchorItem, api.AnchorSide)}
RECORDS["PairBatch"] = api.PairBatch


class Section:
    """What stands under one heading: rows of its tables, and blocks of Python."""

    def __init__(self, heading: str, text: str) -> None:
        self.heading = heading
        self.blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        self.rows = [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in prose.splitlines()
            if line.startswith("| `")
        ]

    def codes(self) -> list[str]:
        """Return what stands as code in the first column."""
        return [code for row in self.rows for code in re.findall(r"`([^`]+)`", row[0])]


@pytest.fixture(scope="module")
def sections() -> dict[str, Section]:
    parts = re.split(r"^#{1,3} (.+)$", HOOKS.read_text("utf-8"), flags=re.M)
    found = [
        Section(heading.strip().strip("`"), text)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    by_heading = {section.heading: section for section in found}
    assert len(by_heading) == len(found)
    return by_heading


def live_hooks() -> dict[str, str]:
    """Return the signature of each hook as a heading has it."""
    hooks = {n: f for n, f in vars(hookspecs).items() if n.startswith("modalbind_")}
    return {name: f"{name}{_signature(hook)}" for name, hook in hooks.items()}


def _signature(function: Any) -> str:
    """Return a signature with its annotations as they are written."""
    found = inspect.signature(function)
    kept = [
        parameter.replace(annotation=_Written(parameter.annotation))
        for name, parameter in found.parameters.items()
        if name != "self"
    ]
    return str(found.replace(parameters=kept, return_annotation=_Written(found.return_annotation)))


class _Written:
    """An annotation that is shown without quotes."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def __repr__(self) -> str:
        return str(self.annotation)


def test_hooks_are_those_of_the_code(sections: dict[str, Section]) -> None:
    documented = [heading for heading in sections if heading.startswith("modalbind_")]
    assert sorted(documented) == sorted(live_hooks().values())


def _row(field: Field[Any]) -> tuple[str, str, str]:
    default = "" if field.default is MISSING else f"`{_shown(field.default)}`"
    if field.default_factory is not MISSING:
        default = f"`{field.default_factory()!r}`"
    return f"`{field.name}`", f"`{_annotation(field.type)}`", default


def _shown(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


def _annotation(kind: Any) -> str:
    return str(kind).replace('"', "'")


@pytest.mark.parametrize("name", [*SPECS, *RECORDS])
def test_fields_types_and_defaults_are_those_of_the_code(
    sections: dict[str, Section], name: str
) -> None:
    live = {**SPECS, **RECORDS}[name]
    inherited = {field.name for field in fields(interfaces.Spec)} if name in SPECS else set()
    own = [f for f in fields(live) if name == "Spec" or f.name not in inherited]
    assert [tuple(row[:3]) for row in sections[name].rows] == [_row(field) for field in own]
    assert all(len(row[3]) > 10 for row in sections[name].rows)


def live_members(protocol: type) -> Iterator[str]:
    """Yield each attribute and method of a protocol as its row must have it."""
    for name, kind in vars(protocol).get("__annotations__", {}).items():
        yield f"{name}: {kind}"
    for name, member in vars(protocol).items():
        if isinstance(member, property):
            yield f"{name}: {inspect.signature(member.fget).return_annotation}"
        elif inspect.isfunction(member) and (name == "__call__" or not name.startswith("_")):
            yield f"{name}{_signature(member)}"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_members_of_protocols_are_those_of_the_code(
    sections: dict[str, Section], name: str
) -> None:
    documented = [code for row in sections[name].rows for code in re.findall(r"^`(.+)`$", row[0])]
    assert sorted(documented) == sorted(live_members(PROTOCOLS[name]))


def test_an_objective_is_documented_as_those_of_the_core_are(sections: dict[str, Section]) -> None:
    """The protocol is a callable, so the three objectives that ship say what it has."""
    codes = sections["Objective"].codes()
    attributes = {code.partition(":")[0].partition("(")[0] for code in codes if ":" in code}
    attributes |= {code.partition("(")[0] for code in codes if "(" in code}
    plugins = load_plugins()
    for spec in plugins.objectives:
        if plugins.owner(spec).distribution == "modalbind":
            built = build(spec, spec.options())
            arguments = list(inspect.signature(built).parameters)
            assert arguments == [code for code in codes if code.isidentifier()]
            assert all(hasattr(built, name) for name in attributes)
    assert {"initial_scale", "learn_scale", "max_scale", "initial_bias", "chance"} == attributes


def test_every_name_of_the_api_is_documented_and_no_other(sections: dict[str, Section]) -> None:
    named = {code for section in sections.values() for code in section.codes()}
    documented = {heading for heading in sections if heading in api.__all__}
    documented |= {code for code in named if code in api.__all__}
    documented |= {hook for hook in ("hookimpl",) if hook in named}
    assert set(api.__all__) - documented == set()
    tables = ("Options", "Errors", "Shared parts")
    invented = {code for heading in tables for code in sections[heading].codes()}
    assert invented - set(api.__all__) == set()


@pytest.mark.parametrize("name", sorted(api.__all__))
def test_every_name_of_the_api_can_be_had(name: str) -> None:
    assert getattr(api, name) is not None


@pytest.fixture
def example(
    sections: dict[str, Section], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """The page's examples as one installed plugin: the plugins with it, and its factories."""
    package = tmp_path / EXAMPLE
    package.mkdir()
    hooks = [sections[heading].blocks for heading in live_hooks().values()]
    assert all(len(blocks) == 1 for blocks in hooks)
    (package / "__init__.py").write_text("\n".join(block for (block,) in hooks))
    names = ["Protocols", *PROTOCOLS, "Augmentations", "Objective"]
    parts = [block for name in names for block in sections[name].blocks]
    assert len(parts) == len(names)
    (package / "parts.py").write_text("\n".join(parts))
    info = tmp_path / f"{EXAMPLE}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: modalbind-echo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[modalbind]\necho = {EXAMPLE}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MODALBIND_PLUGINS", "echo")
    for module in (EXAMPLE, f"{EXAMPLE}.parts"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return SimpleNamespace(plugins=load_plugins(strict=True), data=tmp_path)


def own_spec(plugins: Plugins, kind: str) -> Any:
    (spec,) = [s for s in plugins.specs(kind) if plugins.owner(s).distribution == "modalbind-echo"]
    return spec


def test_examples_of_hooks_are_one_plugin(example: SimpleNamespace) -> None:
    plugin = example.plugins.plugin("echo")
    assert {kind for kind, _ in plugin.offers()} == set(KINDS)
    assert len(plugin.offers()) == len(KINDS)


def test_example_of_a_modality_an_encoder_and_an_augmentation(example: SimpleNamespace) -> None:
    modality = build(own_spec(example.plugins, "modality"), api.NoOptions())
    (example.data / "steep.txt").write_text("1.5\n2.5\n")
    for name, content in (("bad.txt", "one"), ("none.txt", ""), ("nan.txt", "nan")):
        (example.data / name).write_text(content)
        with pytest.raises(BrokenSampleError):
            modality.load(example.data / name, name)
    with pytest.raises(BrokenSampleError):
        modality.load(example.data / "absent.txt", "absent.txt")
    sample = modality.load(example.data / "steep.txt", "steep.txt")
    features = modality.features(sample)
    assert features.tolist() == [[1.5], [2.5]]
    assert modality.describe(sample) == {"duration_s": 2.0, "mean_range_m": 2.0}
    assert len(modality.windows(sample)) == 1
    assert len(modality.content_hash(example.data / "steep.txt", "steep.txt")) == 32

    encoder = build(own_spec(example.plugins, "encoder"), api.NoOptions(), modality).eval()
    alone = encoder(features[None], torch.ones(1, 2, dtype=torch.bool))
    padded = torch.cat([features, torch.full((3, 1), 7.0)])[None]
    masked = encoder(padded, torch.tensor([[True, True, False, False, False]]))
    torch.testing.assert_close(alone, masked)
    assert alone.shape == (1, encoder.width)
    assert dict(encoder.named_modules())[encoder.lora_targets[0]] is encoder.layer_groups()[0][0]

    jitter = build(own_spec(example.plugins, "augmentation"), api.NoOptions(), modality)
    once, again = (jitter(features, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again) and not torch.equal(once, features)


def test_example_of_a_data_set(example: SimpleNamespace) -> None:
    modality = build(own_spec(example.plugins, "modality"), api.NoOptions())
    dataset = build(own_spec(example.plugins, "dataset"), api.NoOptions(), example.data)
    assert isinstance(dataset, api.PairedDataset)
    for pair in dataset.pairs():
        (example.data / pair.sample).write_text("4.0\n")
        assert dataset.load_sample(pair.sample, modality).tolist() == [4.0]
        assert len(dataset.sample_hash(pair.sample, modality)) == 32
        assert dataset.anchor_item("text", pair.text, "en").load() == pair.text


def test_example_of_an_anchor_space(example: SimpleNamespace) -> None:
    spec = own_spec(example.plugins, "anchor")
    space = build(spec, spec.example_source, None, api.NoOptions())
    items = [types.AnchorItem(t, t.encode() * 32, lambda t=t: t) for t in ("a", "ab")]
    vectors = space.encode("text", items)
    assert vectors.shape == (2, space.dim) == (2, int(spec.example_source))
    # "a" and "b" are bytes of their own, so the cosine of {a: 1} and {a: 1, b: 1} is 1 / sqrt(2)
    torch.testing.assert_close(vectors @ vectors.T, torch.tensor([[1, 0.5**0.5], [0.5**0.5, 1]]))
    assert space.compute_fingerprint() == space.compute_fingerprint()
    with pytest.raises(api.AnchorError):
        space.encode("image", items)


def test_example_of_an_objective(example: SimpleNamespace) -> None:
    pull = build(own_spec(example.plugins, "objective"), api.NoOptions())
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    anchors = torch.tensor([[0.6, 0.8]])
    arguments = (torch.zeros(2, 1, dtype=torch.bool), torch.tensor(1.0), torch.tensor(0.0))
    loss = pull(rows, anchors, torch.tensor([[1.0], [0.0]]), *arguments)
    assert loss.item() == pytest.approx(0.4)  # 1 - 0.6; the second row has no anchor
    loss.backward()
    assert rows.grad is not None and rows.grad[1].abs().sum() == 0
    assert pull(rows, anchors, torch.zeros(2, 1), *arguments).item() == 0


PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", *ROOT.glob("plugins/*/README.md")])
IMPORT = re.compile(r"^from (modalbind(?:\.[\w.]+)?) import ([\w, ]+|\([^)]+\))", re.M)
COMMAND = re.compile(r"^(?: {4})*(?:\$ )?(?:.* && )?(modalbind [a-z].*)$")


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_python_on_a_page_compiles_and_imports_what_there_is(path: Path) -> None:
    text = path.read_text("utf-8")
    for block in re.findall(r"^```python(?: [^\n]*)?\n(.*?)^```$", text, re.M | re.S):
        compile(block, str(path), "exec")
        for module, names in IMPORT.findall(block):
            for name in re.findall(r"\w+", names):
                assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def code_lines(text: str) -> Iterator[str]:
    """Yield the commands in blocks of code, fenced or indented, each joined to one line."""
    is_fenced, joined = False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    ") or joined:
            joined += line.strip().removesuffix("\\")
            if not line.rstrip().endswith("\\"):
                yield joined
                joined = ""


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_commands_on_a_page_exist_with_their_options(path: Path) -> None:
    root: Any = typer.main.get_command(app)
    for line in code_lines(path.read_text("utf-8")):
        if not (found := COMMAND.match(line)):
            continue
        command, words = root, found[1].partition(" #")[0].split()[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert command is not root, line
        known = {name for parameter in command.params for name in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.strip("[]").partition("=")[0] in known | {"--help"}, line


def test_the_metadata_to_copy_has_an_entry_point_and_no_cap() -> None:
    text = (DOCS / "plugins" / "publishing.md").read_text("utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)
    project = tomllib.loads(block)["project"]
    assert project["entry-points"][GROUP] == {"sonar": "modalbind_sonar"}
    assert f"modalbind-{next(iter(project['entry-points'][GROUP]))}" == project["name"]
    everything = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    assert any(requirement.startswith("modalbind>=") for requirement in everything)
    assert not any(cap in each for each in everything for cap in ("<", "==", "~=", "!="))


@pytest.mark.parametrize("name", ["write_cli", "write_recipe"])
def test_generated_pages_are_as_they_would_be_written_now(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.PAGE.read_text("utf-8") == writer.render(), f"run: python docs/{name}.py"


def test_generated_pages_have_every_command_and_every_key() -> None:
    """Counted another way than the writers do: commands by asking for help, keys by dumping."""
    commands = (DOCS / "reference" / "cli.md").read_text("utf-8")
    shown = CliRunner().invoke(app, ["plugins", "--help"]).output
    for name in ("check", "list"):
        assert name in shown and f"| `{name}` |" in commands
    recipe = (DOCS / "reference" / "recipe.md").read_text("utf-8")
    minimal = {"modality": {"name": "x"}, "encoder": {"kind": "x"}, "tower": {"lora": {}}}
    dumped = Recipe.model_validate(minimal).model_dump()
    sections = {"tower.lora": dumped["tower"]["lora"]}
    sections |= {name: value for name, value in dumped.items() if isinstance(value, dict)}
    for section, keys in sections.items():
        if "kind" not in keys or section == "head":
            part = recipe.partition(f"\n## `{section}`\n")[2].partition("\n## ")[0]
            assert set(keys) == set(re.findall(r"^\| `(\w+)` \|", part, re.M)), section


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; pip install 'modalbind[docs]'")
    # Not --quiet: it hides warnings from --strict as well.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").is_file()
    reference = (tmp_path / "reference" / "api" / "index.html").read_text("utf-8")
    shown = set(re.findall(r'id="modalbind\.api\.(\w+)"', reference))
    assert set(api.__all__) - shown == {"SplitName", "hookimpl"}  # these have no docstring
