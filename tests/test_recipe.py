import inspect
import re

import pytest
from pydantic import BaseModel

from radapter import recipe as recipes
from radapter import registry
from radapter.errors import UsageError
from radapter.recipe_yaml import read_text

TEXT = """\
name: a
model: pictogram-clip
method:
  name: r-adapter
  average:
    momentum: 0.9
data:
  source: emoji
  styles:
    - noto
    - twemoji
optimisation: {lr: 5e-4, batch_size: 32}
"""


def errors(text, overrides=(), name="my.yaml"):
    """The lines of the message about a text."""
    with pytest.raises(UsageError) as caught:
        recipes.parse(text, name, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_a_recipe_reads_as_it_is_written():
    recipe = recipes.parse(TEXT)
    assert recipe.optimisation.lr == 5e-4
    assert recipe.method.average.momentum == 0.9
    assert recipe.method.rank == "full"
    assert recipe.data.styles == ["noto", "twemoji"]
    assert recipe.objective.margin == 0.05


@pytest.mark.parametrize(
    ("written", "value"), [("5e-4", 5e-4), ("5E-4", 5e-4), ("1e-3", 1e-3), (".5", 0.5), ("2", 2.0)]
)
def test_numbers_with_an_exponent_are_numbers(written, value):
    assert read_text(f"lr: {written}", "x")["lr"] == value
    assert recipes.parse(TEXT.replace("5e-4", written)).optimisation.lr == value


def test_all_errors_at_once_each_with_its_place():
    text = (
        TEXT.replace("name: a", "nmae: a")
        .replace("momentum: 0.9", "momentun: 0.9\n    warmup: perhaps")
        .replace("- twemoji", "- 3")
        .replace("lr: 5e-4", "lr: fast")
    )
    found = errors(text)
    expected = {
        r"my\.yaml:1:1: unknown key 'nmae'; did you mean 'name'\?",
        r"my\.yaml:1:1: 'name' is missing",
        r"my\.yaml:6:5: unknown key 'method\.average\.momentun'; did you mean 'momentum'\?",
        r"my\.yaml:7:5: method\.average\.warmup: input should be a valid boolean.*'perhaps'",
        r"my\.yaml:12:7: data\.styles\.1: input should be a valid string, found 3",
        r"my\.yaml:13:16: optimisation\.lr: input should be a valid number.*'fast'",
    }
    assert len(found) == len(expected)
    for pattern in expected:
        assert any(re.fullmatch(pattern, line) for line in found), (pattern, found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: a", "name: a\nname: b", "my.yaml:2:1: found duplicate key \"name\""),
        ("    momentum: 0.9", "    momentum: 0.9\n    momentum: 1", "my.yaml:7:5: found duplicate"),
        ("model: pictogram-clip\n", "", "my.yaml:1:1: 'model' is missing"),
        ("source: emoji", "source: emojy", "data.source: unknown 'emojy'; did you mean 'emoji'?"),
        ("name: r-adapter", "name: radapter", "unknown 'radapter'; did you mean 'r-adapter'?"),
        ("  source: emoji\n", "", "'data.source' is missing"),
        ("name: r-adapter", "name: full\n  rank: 4", "my.yaml:5:3: unknown key 'method.rank'"),
        ("momentum: 0.9", "momentum: 1.0", "my.yaml:6:5: method.average.momentum: input should be"),
        ("momentum: 0.9", "momentum: [1]", "my.yaml:6:5: method.average.momentum"),
        ("lr: 5e-4", "lr: 0", "optimisation.lr: input should be greater than 0, found 0"),
        ("lr: 5e-4", "lr: .nan", "optimisation.lr"),
        ("lr: 5e-4", "lr: .inf", "optimisation.lr: input should be a finite number"),
        ("batch_size: 32", "batch_size: 1", "optimisation.batch_size: input should be greater"),
        ("batch_size: 32", "batch_size: 2.5", "optimisation.batch_size"),
        ("name: a", "name: a/b", "my.yaml:1:1: name: string should match pattern"),
        ("name: a", "name: ../x", "my.yaml:1:1: name: string should match pattern"),
        ("name: a", "name: a\nalpha: half", "my.yaml:2:1: alpha: input should be a valid number"),
        ("name: a", "name: a\nalpha: .nan", "my.yaml:2:1: alpha: input should be a finite number"),
        ("name: a", "name: a\nseed: -1", "my.yaml:2:1: seed"),
        ("name: a", "name: a\nseed: 100000000000000000000", "my.yaml:2:1: seed"),
        ("name: a", "name: a\n7: b", "my.yaml:2:1: 7"),
        ("source: emoji", "source: emoji\n  templates: [a cat]", "needs exactly one {}"),
        ("source: emoji", "source: emoji\n  templates: []", "data.templates"),
        ("lr: 5e-4", "lr: 5e-4, betas: [0.9, 1.0]", "optimisation.betas.1: input should be less"),
        ("source: emoji", "source: emoji\n  augmentation: {crop: [1.0, 0.5]}", "crop must be"),
        ("source: emoji", "source: emoji\n  augmentation: {crop: [0, 1]}", "crop.0: input should"),
        ("name: a", "name: a\nalpha: true", "my.yaml:2:1: alpha: input should be a valid number"),
        ("source: emoji", "source: emoji\n  text_length: 2", "data.text_length: input should"),
        ("source: emoji", "source: emoji\n  task: both", "my.yaml:9:3: data.task"),
        ("- noto\n    - twemoji", "[]", "data.styles"),
    ],
)  # fmt: skip
def test_one_error(old, new, message):
    assert old in TEXT
    assert message in "\n".join(errors(TEXT.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.yaml: the file is empty"),
        ("# only a comment\n", "my.yaml: the file is empty"),
        ("- a\n- b\n", "my.yaml:1:1: expected `key: value` lines, found a list"),
        ("hello\n", "my.yaml:1:1: expected `key: value` lines"),
        ("a: [1,\n", "my.yaml:2:1:"),
        ("a: 1\n b: 2\n", "my.yaml:2:3:"),
        ("a: *b\n", "my.yaml:1:4: found undefined alias"),
        ("a: \x00\n", "my.yaml: not valid YAML"),
        ("a: !!python/object/apply:os.system [exit 1]\n", "my.yaml"),
    ],
)
def test_what_is_no_recipe_at_all(text, message):
    assert message in "\n".join(errors(text))


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optimisation.lr=1e-3", "optimisation.lr", 1e-3),
        ("alpha=0.25", "alpha", 0.25),
        ("method.rank=8", "method.rank", 8),
        ("method.average.warmup=true", "method.average.warmup", True),
        ("data.styles=[fluent-emoji]", "data.styles", ["fluent-emoji"]),
        ("checkpoints.keep=5", "checkpoints.keep", 5),
        ("optimisation.clip_norm=null", "optimisation.clip_norm", None),
        ("description=a = b", "description", "a = b"),
        ("objective={margin: 0.2}", "objective.margin", 0.2),
        ("data.styles.1=fluent-emoji", "data.styles", ["noto", "fluent-emoji"]),
    ],
)
def test_overrides_are_typed(override, path, value):
    node = recipes.parse(TEXT, overrides=[override])
    for part in path.split("."):
        node = getattr(node, part)
    assert node == value
    assert type(node) is type(value)


def test_overrides_reach_the_terms_of_an_objective():
    terms = "objective=[{name: mpm-nce}, {name: retention, pool: 8}]"
    recipe = recipes.parse(TEXT, overrides=[terms, "objective.1.weight=0.5"])
    assert (recipe.objective[1].weight, recipe.objective[1].pool) == (0.5, 8)
    (problem,) = errors(TEXT, [terms, "objective.1.wait=0.5"])
    assert "unknown key 'objective.1.wait'; did you mean 'weight'?" in problem
    recipe = recipes.parse(
        TEXT + "objective:\n  - name: mpm-nce\n", overrides=["objective.0.margin=1"]
    )
    assert recipe.objective[0].margin == 1.0
    (problem,) = errors(TEXT + "objective:\n  - name: mpm-nce\n", ["objective.0.margn=1"])
    assert problem.startswith("override objective.0.margn: unknown key")


def test_a_later_override_wins_and_others_stay():
    recipe = recipes.parse(TEXT, overrides=["optimisation.lr=1", "optimisation.lr=2"])
    assert (recipe.optimisation.lr, recipe.optimisation.batch_size) == (2.0, 32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimisation.lrr=1", "override optimisation.lrr: unknown key.*did you mean 'lr'"),
        ("optimisaton.lr=1", "override optimisaton: unknown key.*did you mean 'optimisation'"),
        ("optimisation.lr=fast", "override optimisation.lr: .*valid number.*'fast'"),
        ("optimisation.lr=", "override optimisation.lr: .*found None"),
        ("alpha", r"override 'alpha': expected key\.sub=value"),
        ("=1", r"override '=1': expected key\.sub=value"),
        ("a..b=1", "expected key"),
        ("name.x=1", "override 'name.x=1': 'name' is a value, not a section"),
        ("data.styles.0.x=noto", "'0' is a value, not a section"),
        ("data.styles.2=noto", r"data\.styles has 2 entries, numbered from 0, and none is '2'"),
        ("data.styles.-1=noto", "none is '-1'"),
        ("data.styles.first=noto", "none is 'first'"),
        ("data.styles.0=7", "data.styles.0: input should be a valid string, found 7"),
        ("alpha=[1", "the value is not valid YAML"),
        ("method=full", "override method"),
        ("method.name=fulll", "override method.name: .*did you mean 'full'"),
        ("data.source=foldr", "override data.source: .*did you mean 'folder'"),
    ],
)
def test_bad_overrides(override, message):
    assert re.search(message, "\n".join(errors(TEXT, [override])))


def test_errors_of_a_file_name_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(UsageError, match=f"Recipe not found: {path}"):
        recipes.load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        recipes.load(tmp_path)
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(UsageError, match="cannot be read"):
        recipes.load(path)
    path.write_text(TEXT.replace("model", "modle"))
    with pytest.raises(UsageError, match=re.escape(f"{path}:2:1: unknown key 'modle'")):
        recipes.load(path)
    path.write_text(TEXT)
    assert recipes.load(path, ["alpha=0.1"]).alpha == 0.1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimisation.clip_norm=null", "data.templates=openai", "precision=bf16"],
        ["description='null'"],
        ["description='5e-4'"],
        ['description="yes: [no] #x\\n  two lines, Ωmega"'],
        ["method={name: full, train_temperature: true}"],
        ["data={source: table, path: a.csv, group_column: g, hold_out: 0.1}"],
        ["data={source: shards, shards: 'a-{000..3}.tar', class_names: [a, '1', 'on']}"],
        ["validation={source: folder, root: /tmp}", "optimisation.lr=1e-300"],
    ],
)
def test_what_is_dumped_is_read_back_equal(overrides):
    recipe = recipes.parse(TEXT, overrides=overrides)
    text = recipes.dump(recipe)
    assert recipes.parse(text) == recipe
    assert recipes.dump(recipes.parse(text)) == text
    assert "keep: 2" in text  # defaults included


def test_validation_data():
    def of(*overrides):
        return recipes.parse(TEXT, overrides=overrides).validation_data()

    assert of().split == "validation"
    assert of().styles == ["noto", "twemoji"]
    assert of("data={source: folder, root: a}") is None
    held = of("data={source: folder, root: a, hold_out: 0.2}")
    assert (held.split, held.hold_out) == ("validation", 0.2)
    assert of("validation={source: folder, root: b}").root == "b"


def test_a_recipe_is_frozen_and_shares_no_defaults():
    recipe = recipes.parse(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        recipe.alpha = 1.0
    other = recipes.parse(TEXT)
    assert recipe.data.captions is not other.data.captions


# ------------------------------------------------------------------ shipped recipes


@pytest.mark.parametrize("name", recipes.shipped())
def test_every_shipped_recipe_loads(name):
    path = recipes.shipped()[name]
    recipe = recipes.load(path)
    assert recipes.parse(recipes.dump(recipe)) == recipe
    # As their releases, these train on all pictures; drawn scenes have no list to hold out of.
    all_of_it = {"imagenet-vit-b-16-release", "ucdr-prompts-domainnet", "ucdr-adapter-domainnet"}
    all_of_it.add("regions-icons")
    assert (recipe.validation_data() is None) == (name in all_of_it)


def test_locate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = recipes.shipped()
    assert {"emoji", "pretrain/pictogram-clip"} <= set(known)
    for argument in ("emoji", "emoji.yaml", "recipes/emoji.yaml"):
        assert recipes.locate(argument) == known["emoji"]
    assert (
        recipes.locate("recipes/pretrain/pictogram-clip.yaml") == known["pretrain/pictogram-clip"]
    )
    with pytest.raises(UsageError, match=r"Recipe not found: emojii\. Did you mean 'emoji'"):
        recipes.locate("emojii")
    (tmp_path / "emoji").write_text(TEXT)
    assert recipes.locate("emoji").read_text() == TEXT  # a file that is there comes first


def test_every_section_refuses_unknown_keys():
    ours = [
        section
        for _, section in inspect.getmembers(recipes, inspect.isclass)
        if issubclass(section, BaseModel) and section.__module__ == recipes.__name__
    ]
    ours += [registry.load(registry.SOURCES, name) for name in registry.SOURCES]
    assert len(ours) > 10
    for section in ours:
        assert section.model_config.get("extra") == "forbid"
