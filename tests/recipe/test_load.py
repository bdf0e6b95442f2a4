import pytest

from modalbind.errors import PluginLoadError, RecipeError, UnknownModalityError
from modalbind.plugin_manager import PluginFailure, Plugins
from modalbind.recipe import catalog
from modalbind.recipe.load import (
    Request,
    build_request,
    dump_recipe,
    load_recipe,
    read_recipe,
    resolve,
)

GOOD = """
name: one
modality: {name: smell, options: {sniffs: 5}}
anchor: {spec: "openclip:ViT-B-32@laion"}
encoder: {kind: nose, width: 16}
augment: [{kind: gust, strength: 1e-1}]
data: {sources: [{kind: world, train: 8}, {kind: manifest, path: a.csv, weight: 2}]}
objective: {kind: infonce, temperature: 0.1}
"""


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Recipes of the modality `smell` in a catalogue of their own."""
    folder = tmp_path / "shipped"
    (folder / "smell").mkdir(parents=True)
    (folder / "smell" / "quickstart.yaml").write_text(GOOD)
    (folder / "smell" / "default.yaml").write_text(
        "modality: {name: smell}\nencoder: {kind: nose}\n"
    )
    monkeypatch.setattr(catalog, "core_folder", lambda: folder)
    return folder


def test_all_that_is_named_is_resolved(write, plugins):
    found = resolve(load_recipe(write(GOOD), plugins=plugins), plugins)
    assert found.modality.name == "smell"
    assert found.modality_options.sniffs == 5
    assert (found.encoder.name, found.encoder_options.width) == ("nose", 16)
    assert (found.anchor_source, found.anchor_tag) == ("ViT-B-32", "laion")
    assert [spec.name for spec, _ in found.datasets] == ["world", "manifest"]
    assert [options.weight for _, options in found.datasets] == [1.0, 2.0]
    assert [options.strength for _, options in found.augmentations] == [0.1]
    assert found.objective_options.temperature == 0.1


def test_defaults_of_plugins_are_written_out_and_resolve_to_the_same(write, plugins):
    found = resolve(load_recipe(write(GOOD), plugins=plugins), plugins)
    assert found.recipe.encoder.options == {"width": 16, "depth": 2}
    again = resolve(found.recipe, plugins)
    assert again == found


def test_options_that_mind_being_given_stay_unsaid(write, plugins):
    text = GOOD.replace("strength: 1e-1", "preset: storm")
    found = resolve(load_recipe(write(text), plugins=plugins), plugins)
    assert found.recipe.augment[0].options == {"preset": "storm"}
    assert resolve(found.recipe, plugins) == found


def test_dump_reads_back(write, plugins):
    recipe = resolve(load_recipe(write(GOOD), plugins=plugins), plugins).recipe
    assert load_recipe(write(dump_recipe(recipe), "again.yaml"), plugins=plugins) == recipe


BAD = """
modality: {name: smell, options: {snifs: 5}}
anchor: {spec: "opencip:x", sides: {text: much}}
encoder: {kind: noze}
augment: [{kind: gust, strength: strong}, 3]
data: {sources: [{kind: world, train: 0}]}
objective: {kind: infonce, temprature: 0.1}
tower: {freeze: all, lora: {rnk: 3}}
train: {lrr: 1}
trian: {}
"""


def test_every_mistake_in_one_message_with_its_path(write, plugins):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(BAD), plugins=plugins)
    message = str(caught.value)
    assert "\n" not in message
    assert "12 mistakes" in message
    for expected in (
        "modality.options.snifs: unknown key, did you mean 'sniffs'?",
        "anchor.spec: anchor 'opencip' not found",
        "anchor.sides.text: should be a valid number",
        "encoder.kind: encoder 'noze' for modality 'smell' not found",
        "did you mean 'nose'?",
        "augment.0.strength: should be a valid number",
        "augment.1: ",
        "data.sources.0.train: should be greater than or equal to 2",
        "objective.temprature: unknown key, did you mean 'temperature'?",
        "tower.freeze: should be 'none' or 'encoder', is 'all' or should be a valid integer",
        "tower.lora.rnk: unknown key, did you mean 'rank'?",
        "train.lrr: unknown key, did you mean 'lr'?",
        "trian: unknown key, did you mean 'train'?",
    ):
        assert expected in message


def test_missing_sections_and_rules_between_fields(write, plugins):
    with pytest.raises(RecipeError, match=r"encoder: is missing"):
        load_recipe(write("modality: {name: smell}"), plugins=plugins)
    with pytest.raises(RecipeError, match=r"modality: is missing.*encoder: is missing"):
        load_recipe(write("name: x"), plugins=plugins)
    text = "modality: {name: smell}\nencoder: {kind: nose}\ntrain: {patience: 2}"
    with pytest.raises(RecipeError, match=r"asked for; train.patience needs train.select_every"):
        load_recipe(write(text), plugins=plugins)
    # The data may mark its own validation rows.
    assert load_recipe(write(text), ["train.select_every=1"], plugins=plugins).train.patience == 2
    with pytest.raises(RecipeError, match=r"encoder: set one of them|schedule asked"):
        load_recipe(
            write(GOOD), ["objective={kind: infonce, schedule: {final: 0.1}}"], plugins=plugins
        )


def test_unknown_and_broken_modality(write, plugins):
    text = "modality: {name: smelt}\nencoder: {kind: nose}"
    with pytest.raises(UnknownModalityError, match="did you mean 'smell'"):
        load_recipe(write(text), plugins=plugins)
    failure = PluginFailure("smelt", "modalbind-smelt", "1", RuntimeError("no"), "mend it")
    with pytest.raises(PluginLoadError, match="mend it"):
        load_recipe(write(text), plugins=Plugins(plugins.loaded, (failure,)))


def test_an_unknown_modality_hides_no_other_mistake(write, plugins):
    text = BAD.replace("name: smell", "name: smelt")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(text), plugins=plugins)
    message = str(caught.value)
    for expected in (
        "modality.name: modality 'smelt' not found",
        "anchor.spec: anchor 'opencip' not found",
        "objective.temprature: unknown key",
        "tower.lora.rnk: unknown key",
        "train.lrr: unknown key",
        "trian: unknown key",
    ):
        assert expected in message
    assert "encoder.kind" not in message, "whose encoders it should be among is not known"


@pytest.mark.parametrize("betas", ["[1, 0.9]", "[0.9, 1.0]", "[-0.1, 0.9]"])
def test_betas_beyond_their_bounds_are_refused(write, plugins, betas):
    with pytest.raises(RecipeError, match=r"train\.betas\.[01]: should be"):
        load_recipe(write(GOOD), [f"train.betas={betas}"], plugins=plugins)


def test_temperatures_are_of_sides_that_are_trained_against(write, plugins):
    own = "objective: {kind: infonce, temperature: 0.1, side_temperatures: {image: 0.2}}"
    text = GOOD.replace("objective: {kind: infonce, temperature: 0.1}", own)
    with pytest.raises(RecipeError, match=r"side_temperatures.image.*none of anchor.sides, text"):
        load_recipe(write(text), plugins=plugins)
    both = text.replace('laion"}', 'laion", sides: {text: 1.0, image: 1.0}}')
    assert load_recipe(write(both), plugins=plugins).objective.options["side_temperatures"] == {
        "image": 0.2
    }


def test_a_number_is_good_text(write, plugins):
    recipe = load_recipe(write(GOOD), ["data.test_fold=3"], plugins=plugins)
    assert recipe.data.test_fold == "3"


def test_infinity_is_refused(plugins):
    raw = {"modality": {"name": "smell"}, "encoder": {"kind": "nose"}}
    with pytest.raises(RecipeError, match=r"train\.lr: should be a finite number"):
        read_recipe({**raw, "train": {"lr": float("inf")}}, (), plugins)


def test_read_recipe_takes_every_form(write, plugins, tmp_path):
    path = write(GOOD)
    recipe = read_recipe(path, (), plugins)
    assert recipe.data.sources[1].options["path"] == str(tmp_path / "a.csv")
    assert read_recipe(recipe, (), plugins) == recipe
    assert read_recipe(recipe.model_dump(), ["train.lr=0.5"], plugins).train.lr == 0.5


def test_neither_recipe_nor_data_is_the_quick_start(shipped, plugins):
    assert build_request(Request(modality="smell"), plugins).name == "one"


def test_own_data_takes_the_default_recipe(shipped, plugins, tmp_path):
    recipe = build_request(
        Request(
            modality="smell",
            data="my.csv",
            anchor="precomputed:t.npz",
            root="/r",
            seed=7,
            device="cpu",
            overrides=("train.lr=0.5",),
        ),
        plugins,
    )
    (source,) = recipe.data.sources
    assert (source.kind, source.options) == ("manifest", {"path": f"{tmp_path}/my.csv"})
    assert recipe.anchor.spec == f"precomputed:{tmp_path}/t.npz"
    assert (recipe.data.root, recipe.seed, recipe.device, recipe.train.lr) == ("/r", 7, "cpu", 0.5)


def test_recipe_and_data_replace_the_sources(shipped, plugins):
    recipe = build_request(Request(recipe="quickstart", data="/a/my.csv"), plugins)
    assert [source.options for source in recipe.data.sources] == [{"path": "/a/my.csv"}]


def test_a_request_means_the_same_files_from_every_folder(shipped, plugins, tmp_path, monkeypatch):
    request = Request(
        recipe="quickstart",
        root="sounds",
        overrides=(
            "data.sources.1.path=lists/a.csv",
            "data.exclude=[seen.txt]",
            "anchor.spec='precomputed:a.npz, b.npz'",
            "evaluation.links=[links.csv]",
        ),
    )
    recipe = build_request(request, plugins)
    assert recipe.data.root == str(tmp_path / "sounds")
    assert recipe.data.sources[0].options == {"train": 8}
    assert recipe.data.sources[1].options == {"path": str(tmp_path / "lists/a.csv"), "weight": 2}
    assert recipe.data.exclude == (str(tmp_path / "seen.txt"),)
    assert recipe.anchor.spec == f"precomputed:{tmp_path}/a.npz,{tmp_path}/b.npz"
    assert recipe.evaluation.links == ("links.csv",), "it lies below the data root"
    monkeypatch.chdir("/")
    again = dump_recipe(recipe)
    assert dump_recipe(build_request(Request(recipe=_write(tmp_path, again)), plugins)) == again


def _write(folder, text):
    (folder / "again.yaml").write_text(text)
    return str(folder / "again.yaml")


def test_a_single_manifest_keeps_its_name_and_licence(shipped, plugins):
    source = "{kind: manifest, path: old.csv, licence: CC0}"
    (shipped / "smell" / "own.yaml").write_text(
        f"modality: {{name: smell}}\nencoder: {{kind: nose}}\ndata: {{sources: [{source}]}}\n"
    )
    recipe = build_request(Request(recipe="smell/own", data="/new.csv"), plugins)
    assert recipe.data.sources[0].options == {"path": "/new.csv", "licence": "CC0"}


def test_shards_are_data_too(shipped, plugins, tmp_path):
    recipe = build_request(Request(recipe="quickstart", data="s/{0..9}.tar"), plugins)
    (source,) = recipe.data.sources
    assert (source.kind, source.options) == ("webdataset", {"path": f"{tmp_path}/s/{{0..9}}.tar"})


@pytest.mark.parametrize(
    ("kind", "path", "is_here"),
    [
        ("webdataset", "https://host/{0..9}.tar", False),
        ("hf", "owner/name", False),
        ("hf", "mine", True),
    ],
)
def test_only_a_path_of_this_machine_becomes_absolute(
    shipped, plugins, tmp_path, kind, path, is_here
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "own.yaml").write_text(
        "modality: {name: smell}\nencoder: {kind: nose}\n"
        f"data: {{sources: [{{kind: {kind}, path: '{path}'}}]}}\n"
    )
    recipe = build_request(Request(recipe=str(tmp_path / "own.yaml")), plugins)
    found = recipe.data.sources[0].options["path"]
    assert found == (f"{tmp_path}/{path}" if is_here else path)


def test_another_kind_of_anchor_drops_the_options_of_the_first(write, plugins):
    path = write(GOOD.replace('laion"}', 'laion", options: {device: cpu}}'))
    kept = build_request(Request(recipe=path, anchor="openclip:other"), plugins)
    assert kept.anchor.options == {"device": "cpu"}
    assert (
        build_request(Request(recipe=path, anchor="precomputed:x.npz"), plugins).anchor.options
        == {}
    )


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (Request(), "neither a modality \\(installed: smell\\) nor a recipe"),
        (Request(modality="taste"), "modality 'taste' not found"),
        (Request(recipe="smell/default"), "data.sources is empty"),
        (Request(modality="audio", recipe="smell/quickstart"), "is for 'smell'"),
    ],
)
def test_requests_that_cannot_be(shipped, plugins, request_, found):
    with pytest.raises((RecipeError, UnknownModalityError), match=found):
        build_request(request_, plugins)
