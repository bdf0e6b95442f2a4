"""What is refused before anything is written, and by which words."""

import pytest

from modalbind.cli import main
from modalbind.errors import InputError, PluginLoadError, UnknownModalityError
from modalbind.plugin_manager import PluginFailure, Plugins, load_plugins
from modalbind.scaffold import plan_plugin


@pytest.fixture(scope="module")
def plugins():
    return load_plugins(strict=False)


@pytest.mark.parametrize("name", ["imu", "eeg-64", "x_ray", "3d", "a", "a" * 30])
def test_good_names_become_packages_that_can_be_imported(name, plugins, tmp_path):
    plan = plan_plugin(name, "modality", None, tmp_path, plugins)
    assert plan.distribution == f"modalbind-{name}"
    assert plan.package.isidentifier()
    assert plan.folder == tmp_path / f"modalbind-{name}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Imu", "lower-case"),
        ("", "lower-case"),
        ("i mu", "lower-case"),
        ("../imu", "lower-case"),
        ("-imu", "single '-'"),
        ("imu-", "single '-'"),
        ("x--y", "single '-'"),
        ("ímu", "lower-case"),
        ("imu\n", "lower-case"),
        ("a" * 31, "31 characters"),
        ("class", "Python"),
        ("text", "manifest"),
        ("group", "manifest"),
    ],
)
def test_bad_names_are_refused(name, why, plugins, tmp_path):
    with pytest.raises(InputError, match=why):
        plan_plugin(name, "modality", None, tmp_path, plugins)


@pytest.mark.parametrize(
    ("name", "kind", "modality", "holder"),
    [
        ("audio", "modality", None, "modality 'audio' is offered by modalbind-audio"),
        ("beats", "encoder", "audio", "encoder 'beats' is offered by modalbind-audio"),
        ("mixup", "augmentation", "audio", "augmentation 'mixup' is offered by modalbind-audio"),
        ("manifest", "dataset", "audio", "dataset 'manifest' is offered by modalbind"),
        ("openclip", "anchor", None, "anchor 'openclip' is offered by modalbind"),
        ("infonce", "objective", None, "objective 'infonce' is offered by modalbind"),
        ("audio", "objective", None, "plugin 'audio' is installed, from modalbind-audio"),
    ],
)
def test_names_that_are_taken_are_refused(name, kind, modality, holder, plugins, tmp_path):
    with pytest.raises(InputError, match=f"{holder}; choose another name"):
        plan_plugin(name, kind, modality, tmp_path, plugins)


def test_a_name_is_free_for_another_kind(plugins, tmp_path):
    assert plan_plugin("beats", "objective", None, tmp_path, plugins).name == "beats"


def test_the_name_of_a_broken_plugin_is_taken(plugins, tmp_path):
    failure = PluginFailure("imu", "modalbind-imu", "1.0", ImportError("no"), "try: pip")
    with pytest.raises(InputError, match="'imu' of modalbind-imu is installed, and broken"):
        plan_plugin("imu", "modality", None, tmp_path, Plugins(plugins.loaded, (failure,)))


def test_recipes_of_another_distribution_keep_their_names(plugins, tmp_path):
    alone = Plugins(tuple(p for p in plugins.loaded if p.distribution == "modalbind"))
    with pytest.raises(InputError, match=r"recipe 'audio/.*' is offered by modalbind"):
        plan_plugin("audio", "modality", None, tmp_path, alone)


@pytest.mark.parametrize("kind", ["encoder", "dataset", "augmentation"])
def test_what_is_for_a_modality_says_for_which(kind, plugins, tmp_path):
    with pytest.raises(InputError, match=r"add --modality NAME, installed: .*audio"):
        plan_plugin("mine", kind, None, tmp_path, plugins)
    with pytest.raises(UnknownModalityError, match="modality 'sonar' not found"):
        plan_plugin("mine", kind, "sonar", tmp_path, plugins)


def test_a_broken_modality_says_what_is_wrong(plugins, tmp_path):
    failure = PluginFailure("sonar", "modalbind-sonar", "1.0", ImportError("no"), "try: pip")
    with pytest.raises(PluginLoadError, match=r"modalbind-sonar 1\.0 is broken"):
        plan_plugin("mine", "encoder", "sonar", tmp_path, Plugins(plugins.loaded, (failure,)))


def test_a_new_modality_is_for_no_other(plugins, tmp_path):
    with pytest.raises(InputError, match="leave out --modality"):
        plan_plugin("imu", "modality", "audio", tmp_path, plugins)


def test_nothing_is_overwritten(plugins, tmp_path):
    folder = tmp_path / "modalbind-imu"
    folder.mkdir()
    assert plan_plugin("imu", "modality", None, tmp_path, plugins).folder == folder
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="nothing is overwritten"):
        plan_plugin("imu", "modality", None, tmp_path, plugins)
    (tmp_path / "modalbind-eeg").write_text("a file")
    (tmp_path / "modalbind-ecg").symlink_to(tmp_path / "nowhere")
    for name in ("eeg", "ecg"):
        with pytest.raises(InputError, match="nothing is overwritten"):
            plan_plugin(name, "modality", None, tmp_path, plugins)


def test_command_line_refuses_in_one_line_and_writes_nothing(tmp_path, capsys):
    assert main(["plugins", "new", "audio", "--out", str(tmp_path / "new")]) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "modalbind: error: new modality 'audio' asked for; modality 'audio' is offered by "
        "modalbind-audio; choose another name\n"
    )
    assert captured.out == ""
    assert not (tmp_path / "new").exists()
