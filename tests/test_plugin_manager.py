"""Plugins are real distributions on disk, made here; whatever one does, the others must load."""

import textwrap

import pytest

from modalbind.errors import PluginLoadError, UnknownModalityError, UnknownNameError
from modalbind.interfaces import API_VERSION, ModalitySpec, NoOptions
from modalbind.plugin_checks import KINDS
from modalbind.plugin_manager import build, load_plugins, nearest, normalise, pip_name

MODALITY = """
from modalbind.api import ModalitySpec, hookimpl

SPEC = dict(
    name="{name}", summary="Made up.", api_version={api_version}, build="{build}",
    unit="none", suffixes=(".{name}",), default_recipe="{name}/default",
    quickstart_recipe="{name}/quickstart",
)

@hookimpl
def modalbind_modalities():
    return [ModalitySpec(**SPEC)]
"""


def modality_source(name="smell", api_version=API_VERSION, build="smell_plugin:build"):
    return MODALITY.format(name=name, api_version=api_version, build=build)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one module, as pip would leave it."""
    monkeypatch.delenv("MODALBIND_PLUGINS", raising=False)
    monkeypatch.delenv("MODALBIND_STRICT_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def add(distribution, source, entry=None, version="1.0", package=None):
        module = distribution.replace("-", "_")
        if source is not None:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        folder = tmp_path / f"{module}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        name = entry or distribution.removesuffix("-plugin")
        (folder / "entry_points.txt").write_text(f"[modalbind]\n{name} = {package or module}\n")
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)

    return add


def only_failure(plugins, distribution):
    (failure,) = [f for f in plugins.failures if f.distribution == distribution]
    return failure


def test_core_and_a_new_plugin_are_loaded(install):
    install("smell-plugin", modality_source())
    plugins = load_plugins()
    assert plugins.loaded[0].distribution == "modalbind"
    assert plugins.modality("smell").unit == "none"
    assert {"openclip", "transformers", "precomputed"} <= {s.name for s in plugins.anchors}
    assert {"infonce", "sigmoid", "regression"} <= {s.name for s in plugins.objectives}
    assert plugins.dataset("manifest", "smell").modality == "*"
    assert plugins.owner(plugins.modality("smell")).version == "1.0"


BROKEN = {
    "raises": ("raise RuntimeError('out of cheese')", "RuntimeError: out of cheese"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "missing": ("import no_such_package_here", "No module named 'no_such_package_here'"),
    "misspelt": (
        "from modalbind.api import hookimpl\n@hookimpl\ndef modalbind_modalitys():\n    return []",
        "modalbind_modalitys",
    ),
    "signature": (
        "from modalbind.api import hookimpl\n"
        "@hookimpl\ndef modalbind_modalities(extra):\n    return []",
        "extra",
    ),
    "unmarked": ("def modalbind_modalities():\n    return []", "has no hooks"),
    "hook-raises": (
        "from modalbind.api import hookimpl\n@hookimpl\ndef modalbind_anchors():\n    return 1 / 0",
        "ZeroDivisionError",
    ),
    "not-a-list": (
        "from modalbind.api import hookimpl\n@hookimpl\ndef modalbind_anchors():\n    return 3",
        "modalbind_anchors returned int, not a list",
    ),
    "wrong-type": (
        "from modalbind.api import hookimpl\n@hookimpl\ndef modalbind_anchors():\n    return [3]",
        "modalbind_anchors returned int, not AnchorSpec",
    ),
    "future": (modality_source(api_version=API_VERSION + 1), f"API version {API_VERSION + 1}"),
    "bad-build": (modality_source(build="nonsense"), "not an import string"),
    "bad-name": (modality_source(name="Smell It"), "name is not lower case"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_reported_and_harms_no_other(install, case):
    source, found = BROKEN[case]
    install("aaa-broken", source, version="9.1")
    install("smell-plugin", modality_source())
    plugins = load_plugins()
    assert plugins.modality("smell").name == "smell"
    failure = only_failure(plugins, "aaa-broken")
    assert found in failure.reason
    assert failure.version == "9.1"
    assert "\n" not in failure.reason
    assert "pip" in failure.hint


def test_hint_names_the_missing_package_of_pip(install):
    install("aaa-broken", "raise ModuleNotFoundError('x', name='sklearn.svm')")
    assert only_failure(load_plugins(), "aaa-broken").hint == "try: pip install scikit-learn"


def test_removed_plugin_that_left_its_metadata(install):
    install("gone-plugin", None)
    assert "pip uninstall gone-plugin" in only_failure(load_plugins(), "gone-plugin").hint


def test_older_and_newer_api_say_what_to_upgrade(install):
    install("new-plugin", modality_source(api_version=API_VERSION + 1))
    install("old-plugin", modality_source(api_version=API_VERSION - 1, name="taste"))
    plugins = load_plugins()
    assert only_failure(plugins, "new-plugin").hint.endswith("--upgrade modalbind")
    assert only_failure(plugins, "old-plugin").hint.endswith("--upgrade old-plugin")


def test_ctrl_c_during_loading_is_not_swallowed(install):
    install("aaa-broken", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


def test_printing_at_import_does_not_reach_stdout(install, capsys):
    install("smell-plugin", "print('hello')\n" + modality_source())
    assert load_plugins().modality("smell")
    assert capsys.readouterr().out == ""


def test_first_by_distribution_keeps_a_name_and_both_are_named(install):
    install("zzz-plugin", modality_source(build="zzz:build"))
    install("bbb-plugin", modality_source(build="bbb:build"))
    plugins = load_plugins()
    assert plugins.modality("smell").build == "bbb:build"
    failure = only_failure(plugins, "zzz-plugin")
    assert "bbb-plugin and zzz-plugin" in failure.reason


@pytest.mark.parametrize("entry", ["smell", "aroma"])
@pytest.mark.parametrize("other", ["aaa-smell", "modalbind-aroma"])
def test_the_distribution_named_after_its_modality_keeps_it(install, other, entry):
    """Whatever the other is called, and whichever name its entry point bears."""
    install(other, modality_source(build="other:build"), entry=entry)
    install("modalbind-smell", modality_source(build="own:build"), entry="smell")
    plugins = load_plugins()
    assert plugins.modality("smell").build == "own:build"
    assert "modalbind-smell" in only_failure(plugins, other).reason


def test_a_hook_of_a_newer_core_is_told_from_a_misspelt_one(install):
    source = "from modalbind.api import hookimpl\n@hookimpl\ndef {}():\n    return []"
    install("aaa-plugin", source.format("modalbind_encodrs"))
    install("bbb-plugin", source.format("modalbind_evaluators"))
    plugins = load_plugins()
    assert "did you mean 'modalbind_encoders'?" in only_failure(plugins, "aaa-plugin").reason
    assert "authors of aaa-plugin" in only_failure(plugins, "aaa-plugin").hint
    assert only_failure(plugins, "bbb-plugin").hint.endswith("--upgrade modalbind")


UNTELLABLE = {
    "error": "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute",
    "spec": """
class Mute:
    def __getattr__(self, name):
        raise ValueError(name)
    def __repr__(self):
        raise ValueError

from modalbind.api import hookimpl

@hookimpl
def modalbind_anchors():
    return [Mute()]
""",
}


@pytest.mark.parametrize("case", UNTELLABLE)
def test_what_cannot_be_printed_is_reported_all_the_same(install, case):
    install("aaa-broken", UNTELLABLE[case])
    install("smell-plugin", modality_source())
    plugins = load_plugins()
    assert "Mute" in only_failure(plugins, "aaa-broken").reason
    assert plugins.modality("smell").name == "smell"


def test_a_name_of_the_core_cannot_be_taken(install):
    install(
        "aaa-plugin",
        """
        from modalbind.api import API_VERSION, DatasetSpec, hookimpl

        @hookimpl
        def modalbind_datasets():
            return [DatasetSpec(name="manifest", summary="Mine.", api_version=API_VERSION,
                                build="a:b", modality="smell")]
        """,
    )
    plugins = load_plugins()
    assert plugins.dataset("manifest", "smell").build.startswith("modalbind.")
    assert "modalbind and aaa-plugin" in only_failure(plugins, "aaa-plugin").reason


def test_two_plugins_of_one_entry_point_name(install):
    install("aaa-plugin", modality_source(name="one"), entry="same")
    install("bbb-plugin", modality_source(name="two"), entry="same")
    failure = only_failure(load_plugins(), "bbb-plugin")
    assert "taken by aaa-plugin" in failure.reason


def test_encoders_of_two_modalities_may_share_a_name(install):
    source = """
        from modalbind.api import API_VERSION, EncoderSpec, hookimpl

        @hookimpl
        def modalbind_encoders():
            return [EncoderSpec(name="vit", summary="x", api_version=API_VERSION,
                                build="a:b", modality="{}")]
    """
    install("aaa-plugin", source.format("smell"))
    install("bbb-plugin", source.format("taste"))
    plugins = load_plugins()
    assert not plugins.failures
    assert plugins.encoder("vit", "taste").modality == "taste"
    with pytest.raises(UnknownNameError, match="encoder 'vit' for modality 'audio'"):
        plugins.encoder("vit", "audio")


def test_asking_for_what_failed_raises_from_its_cause(install):
    install("modalbind-sonar", "raise RuntimeError('no water')")
    install("future-plugin", modality_source(api_version=API_VERSION + 1))
    plugins = load_plugins()
    with pytest.raises(PluginLoadError, match="no water") as caught:
        plugins.modality("sonar")
    assert isinstance(caught.value.__cause__, RuntimeError)
    # known by what it offered, though neither plugin nor distribution is called so
    with pytest.raises(PluginLoadError, match="future-plugin"):
        plugins.modality("smell")


def test_unknown_names_list_what_is_there(install):
    install("smell-plugin", modality_source())
    plugins = load_plugins()
    with pytest.raises(UnknownModalityError) as caught:
        plugins.modality("smelt")
    message = str(caught.value)
    assert "installed: " in message and "did you mean 'smell'?" in message
    assert "pip install modalbind-smelt" in message
    with pytest.raises(UnknownNameError, match="did you mean 'infonce'"):
        plugins.objective("info-nce")


@pytest.mark.parametrize(
    ("allowed", "names"),
    [("", {"modalbind"}), ("one", {"modalbind", "one"}), ("two-plugin", {"modalbind", "two"})],
)
def test_allow_list(install, monkeypatch, allowed, names):
    install("one-plugin", modality_source(name="one"))
    install("two-plugin", modality_source(name="two"))
    monkeypatch.setenv("MODALBIND_PLUGINS", allowed)
    plugins = load_plugins()
    assert {plugin.name for plugin in plugins.loaded} == names
    assert not plugins.failures


@pytest.mark.parametrize("metadata", [None, "", "Metadata-Version: 2.1\n"])
def test_a_half_removed_distribution_harms_no_other(install, tmp_path, metadata):
    install("smell-plugin", modality_source())
    folder = tmp_path / "half_plugin-1.0.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text("[modalbind]\nhalf = half_plugin\n")
    if metadata is not None:
        (folder / "METADATA").write_text(metadata)
    plugins = load_plugins()
    assert plugins.modality("smell").name == "smell"
    failure = only_failure(plugins, "half")
    assert (failure.version, failure.reason) == (
        "unknown",
        "its metadata is damaged, it has no name",
    )
    assert f"delete {folder}" in failure.hint


@pytest.mark.parametrize("content", [b"[other]\nno equals sign\n", b"[other]\n\xff = a\n"])
def test_entry_points_that_cannot_be_read_harm_no_other(install, tmp_path, caplog, content):
    install("smell-plugin", modality_source())
    install("other-plugin", None)
    (tmp_path / "other_plugin-1.0.dist-info" / "entry_points.txt").write_bytes(content)
    plugins = load_plugins()
    assert plugins.modality("smell").name == "smell"
    assert plugins.loaded[0].distribution == "modalbind"
    assert "entry points of other-plugin cannot be read" in caplog.text


def test_what_the_allow_list_hides_is_named_where_it_is_missed(install, monkeypatch):
    install("smell-plugin", modality_source())
    install("taste-plugin", modality_source(name="taste"))
    monkeypatch.setenv("MODALBIND_PLUGINS", "taste")
    with pytest.raises(UnknownModalityError) as caught:
        load_plugins().modality("smell")
    assert "installed: taste (MODALBIND_PLUGINS hides " in str(caught.value)
    assert "smell)" in str(caught.value) and "unset MODALBIND_PLUGINS, or" in str(caught.value)
    monkeypatch.delenv("MODALBIND_PLUGINS")
    with pytest.raises(UnknownModalityError) as caught:
        load_plugins().modality("smelt")
    assert "MODALBIND_PLUGINS" not in str(caught.value)


def test_allow_list_names_what_is_not_installed(install, monkeypatch):
    monkeypatch.setenv("MODALBIND_PLUGINS", "nothing")
    (failure,) = load_plugins().failures
    assert failure.hint == "try: pip install modalbind-nothing"


def test_strict_mode_raises_by_argument_and_environment(install, monkeypatch):
    install("aaa-broken", "raise RuntimeError('out of cheese')")
    with pytest.raises(PluginLoadError, match=r"aaa-broken 1\.0 \(RuntimeError: out of cheese\)"):
        load_plugins(strict=True)
    monkeypatch.setenv("MODALBIND_STRICT_PLUGINS", "1")
    with pytest.raises(PluginLoadError):
        load_plugins()
    assert load_plugins(strict=False).failures


def spec_with(build_string):
    return ModalitySpec(
        name="smell",
        summary="x",
        api_version=API_VERSION,
        build=build_string,
        unit="none",
        suffixes=(),
        default_recipe="a",
        quickstart_recipe="a",
    )


def test_build_calls_the_factory():
    assert build(spec_with("fractions:Fraction.from_float"), 0.5).denominator == 2


@pytest.mark.parametrize(
    "where", ["import sklearn_not_here", "def build():\n import sklearn_not_here"]
)
def test_build_names_a_missing_package(install, where):
    install("smell-plugin", where)
    with pytest.raises(
        PluginLoadError, match=r"smell_plugin.*pip install sklearn-not-here"
    ) as caught:
        build(spec_with("smell_plugin:build"))
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_build_of_an_absent_function_and_a_raising_module(install):
    install("smell-plugin", "raise SystemExit(2)")
    with pytest.raises(PluginLoadError, match="SystemExit"):
        build(spec_with("smell_plugin:build"))
    with pytest.raises(PluginLoadError, match="AttributeError"):
        build(spec_with("json:no_such_function"))


def test_a_factorys_own_errors_pass_through():
    with pytest.raises(ValueError, match="invalid literal"):
        build(spec_with("builtins:int"), "x")


def test_every_hook_has_a_kind():
    from modalbind import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("modalbind_")}
    assert {hook for hook, _ in KINDS.values()} == hooks


def test_names():
    assert nearest("objctive", ["objective", "anchor"]) == "objective"
    assert nearest("zzz", ["objective"]) is None
    assert normalise("Modalbind_Audio") == "modalbind-audio"
    assert pip_name("yaml.nodes") == "PyYAML"
    assert spec_with("a:b").options is NoOptions
