"""Who may import whom, as `[tool.importlinter]` of pyproject.toml says it."""

import tomllib
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "pyproject.toml"
OPEN_TO_PLUGINS = {"modalbind.api", "modalbind.testing"}


def test_import_contracts_are_kept(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    # Its logging set-up would disable every logger that exists, for all tests after this one.
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
    code = lint_imports(config_filename=str(CONFIG), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_every_core_module_is_protected():
    contracts = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["tool"]["importlinter"]
    (core,) = [c for c in contracts["contracts"] if c["id"] == "core"]
    package = ROOT / "modalbind"
    names = {path.stem for path in package.glob("*.py")} - {"__init__"}
    names |= {path.parent.name for path in package.glob("*/__init__.py")}
    found = {f"modalbind.{name}" for name in names} - OPEN_TO_PLUGINS
    assert set(core["protected_modules"]) == found


def test_every_plugin_is_checked():
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["tool"]["importlinter"]
    plugins = {path.name for path in (ROOT / "plugins").glob("*/modalbind_*") if path.is_dir()}
    assert set(config["root_packages"]) == {"modalbind"} | plugins
    by_id = {contract["id"]: contract for contract in config["contracts"]}
    assert set(by_id["api"]["allowed_importers"]) == plugins
    assert set(by_id["plugins"]["modules"]) == plugins
