"""few-shot and base-to-novel: what is published, and how halves, templates and means are scored."""

import coop_tree as tree
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imagenet_tree import colour
from torchvision.transforms.v2.functional import pil_to_tensor

from radapter import recipe as recipes
from radapter.data.sources.coop import LAYOUTS
from radapter.errors import UsageError
from radapter.evaluation.evaluate import evaluate, protocol
from radapter.evaluation.intervals import harmonic, harmonic_mean, mean_interval
from radapter.evaluation.of_model import with_anchors
from radapter.evaluation.suite import Suite, load_suite

FEW, HALVES = load_suite("few-shot"), load_suite("base-to-novel")
B16 = "ViT-B-16:openai"


class Made:
    """A runtime and its inputs: the text that `wanted` gives for a picture's class is nearest.

    Features are unit vectors by number: of texts in the order in which they come, of a picture that
    of `wanted[label]`, the label being read from its colour.
    """

    name, device, precision, logit_scale = "made", "cpu", "fp32", 100.0

    def __init__(self, wanted, dim=64):
        self.wanted, self.dim = wanted, dim
        self.number, self.asked, self.encoded = {}, [], []
        self.provenance = {"weights_hash": "0" * 64}
        self.runtime, self.preprocessing, self.head = self, {}, None

    def vector(self, text):
        index = self.number.setdefault(text, len(self.number))
        return F.one_hot(torch.tensor(index), self.dim).float()

    def tokenizer(self, texts):
        self.asked += [texts := list(texts)]
        return torch.arange(len(texts))[:, None]

    def preprocess(self, picture):
        return pil_to_tensor(picture)[:, 5:6, 5:6]

    def encode_text(self, tokens):
        self.encoded.append(self.asked[-1])
        return torch.stack([self.vector(text) for text in self.asked[-1]])

    def encode_image(self, pixels):
        distance = [
            [
                sum(abs(a - b) for a, b in zip(p.flatten().tolist(), colour(i), strict=True))
                for i in range(5)
            ]
            for p in pixels
        ]
        return torch.stack([self.vector(self.wanted[int(np.argmin(d))]) for d in distance])


def placed(suite, root, *names):
    """The suite on a miniature, with the miniature's counts as published, of some sets alone."""
    left_out = [s for s in tree.ALL if s not in names]
    suite = suite.without(left_out) if left_out else suite
    datasets = [
        d.model_copy(update={"data": d.data.model_copy(update={"data_root": str(root)})})
        for d in suite.datasets
    ]
    suite = suite.model_copy(update={"datasets": datasets})
    opened = suite.open()
    counted = []
    for described in datasets:
        (dataset,) = opened[described.name].values()
        counts = {"pictures": len(dataset), "classes": len(set(dataset.labels))}
        published = described.published.model_copy(update=counts)
        counted.append(described.model_copy(update={"published": published}))
    return suite.model_copy(update={"datasets": counted})


def scored(suite, wanted):
    made = Made(wanted)
    return evaluate(suite, made), made


# ------------------------------------------------------------------ what is published


def test_the_suites_have_all_eleven_sets():
    assert [d.name for d in FEW.datasets] == [
        "imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101",
        "fgvc_aircraft", "sun397", "dtd", "eurosat", "ucf101",
    ]  # fmt: skip
    counts = [(d.published.pictures, d.published.classes) for d in FEW.datasets]
    assert counts == [
        (50_000, 1000), (2_465, 100), (3_669, 37), (8_041, 196), (2_463, 102), (30_300, 101),
        (3_333, 100), (19_850, 397), (1_692, 47), (8_100, 10), (3_783, 101),
    ]  # fmt: skip
    for whole in FEW.datasets:
        assert (whole.role, whole.data.classes) == ("in-distribution", "all")
        halves = [d for d in HALVES.datasets if d.data.dataset == whole.data.dataset]
        assert [d.name for d in halves] == [f"{whole.name}-base", f"{whole.name}-novel"]
        assert [d.data.classes for d in halves] == ["base", "novel"]
        assert [d.role for d in halves] == ["in-distribution", "zero-shot"]
        base, novel = (d.published for d in halves)
        assert base.classes == -(-whole.published.classes // 2)
        assert base.classes + novel.classes == whole.published.classes
        assert base.pictures + novel.pictures == whole.published.pictures
        assert {base.folder, novel.folder} == {tree.SETS.get(whole.name, ["imagenet"])[0]}
        assert {d.data.split for d in (whole, *halves)} == {"test"}
        assert HALVES.harmonic_means[whole.name] == tuple(d.name for d in halves)


def test_the_anchors_are_whole_numbers_of_pictures_and_give_the_published_means():
    (anchors,) = HALVES.anchors
    row = anchors.scores[B16]
    for described in HALVES.datasets:
        pictures, percent = described.published.pictures, row[described.name]
        hits = round(percent * pictures / 100)
        assert 100 * hits / pictures == pytest.approx(percent, abs=0.0051), described.name
    base, novel = (np.mean([row[d.name] for d in HALVES.datasets if d.role == r])
                   for r in ("in-distribution", "zero-shot"))  # fmt: skip
    assert (base, novel) == pytest.approx((69.34, 74.22), abs=0.0051)
    assert harmonic_mean(base, novel) == pytest.approx(71.70, abs=0.0051)
    assert {name for name, *_ in HALVES.anchors_for(B16)} == {d.name for d in HALVES.datasets}
    release = HALVES.with_protocol("base-to-novel", "radapter-release")
    assert release.anchors_for(B16) == []
    assert release.with_protocol("dtd-base", "coop").anchors_for(B16)[0][:3] == (
        "dtd-base",
        "accuracy",
        53.24,
    )


# ------------------------------------------------------------------ scoring


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coop")
    for dataset in ("dtd", "eurosat", "oxford_pets", "stanford_cars"):
        tree.fill(folder, dataset)
    return folder


DTD = [f"{name} texture." for name in ("banded", "blotchy", "braided", "bubbly", "polka-dotted")]


def test_halves_are_scored_among_their_own_names(root):
    """Class 4 looks like class 0: wrong among all classes, in its own half it has no such rival."""
    wanted = [DTD[0], DTD[1], DTD[1], DTD[3], DTD[0]]
    found, made = scored(placed(HALVES, root, "dtd"), wanted)
    values = {n: found.sets[n].value("accuracy") for n in ("dtd-base", "dtd-novel")}
    assert values["dtd-base"] == pytest.approx(2 / 3)
    # All cosines of class 4 in its half are 0: a tie goes to the first class, which is wrong.
    assert values["dtd-novel"] == 1 / 2
    assert [sorted(texts) for texts in made.encoded] == [sorted(DTD[:3]), sorted(DTD[3:])]
    assert found.sets["dtd-base"].metrics["accuracy"].chance == pytest.approx(1 / 3)
    every, _ = scored(placed(FEW, root, "dtd"), [DTD[0], DTD[1], DTD[2], DTD[3], DTD[0]])
    assert every.sets["dtd"].value("accuracy") == pytest.approx(4 / 5)
    result = found.result()
    assert result["datasets"]["dtd-base"]["protocol"]["template"] == "'{} texture.'"
    assert "against its own names only" in result["datasets"]["dtd-novel"]["protocol"]["classes"]
    halves = result["harmonic_means"]["dtd"]
    assert halves["of"] == ["dtd-base", "dtd-novel"]
    assert halves["accuracy"]["value"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    low, high = halves["accuracy"]["interval"]
    assert low <= halves["accuracy"]["value"] <= high
    assert "averages" not in result  # a mean over one set is none


def test_the_harmonic_mean_over_sets_is_that_of_the_means(root):
    pets = [f"a photo of a {n}, a type of pet." for n in ("abyssinian", "american bulldog",
            "basset hound", "bengal", "birman")]  # fmt: skip
    suite = placed(HALVES, root, "dtd", "oxford_pets")
    # Label -> text, of both sets; in dtd the labels 0, 3 and 4 are right.
    found, _ = scored(suite, [DTD[0], DTD[0], pets[0], DTD[3], DTD[4]])
    value = {d.name: found.sets[d.name].value("accuracy") for d in suite.datasets}
    assert value["dtd-base"] == pytest.approx(1 / 3)
    assert value["dtd-novel"] == 1
    result = found.result()
    base = (value["dtd-base"] + value["oxford_pets-base"]) / 2
    novel = (value["dtd-novel"] + value["oxford_pets-novel"]) / 2
    assert result["averages"]["mean of base"]["accuracy"]["value"] == pytest.approx(base)
    assert result["averages"]["mean of novel"]["accuracy"]["value"] == pytest.approx(novel)
    means = {k: v["accuracy"]["value"] for k, v in result["harmonic_means"].items()}
    assert list(means) == ["oxford_pets", "dtd", "of both means"]
    assert means["of both means"] == pytest.approx(2 * base * novel / (base + novel))
    assert means["of both means"] != pytest.approx((means["dtd"] + means["oxford_pets"]) / 2)


def test_a_partial_half_is_in_no_mean(root):
    suite = placed(HALVES, root, "dtd", "oxford_pets")
    datasets = list(suite.datasets)
    published = datasets[1].published.model_copy(update={"pictures": 1788})
    assert datasets[1].name == "oxford_pets-novel"
    datasets[1] = datasets[1].model_copy(update={"published": published})
    found, _ = scored(suite.model_copy(update={"datasets": datasets}), DTD)
    result = found.result()
    assert result["averages"]["mean of novel"]["left_out"] == ["oxford_pets-novel"]
    assert result["harmonic_means"]["oxford_pets"] == {
        "of": ["oxford_pets-base", "oxford_pets-novel"]
    }
    assert "accuracy" in result["harmonic_means"]["dtd"]
    # The means would be over other sets: two of base, one of novel.
    assert "accuracy" not in result["harmonic_means"]["of both means"]


def test_templates_by_data_set_are_recorded(root):
    suite = placed(HALVES, root, "dtd", "eurosat")
    facts = protocol(suite, Made([]))
    assert facts["dataset_templates"]["dtd-novel"] == ["{} texture."]
    assert facts["dataset_templates"]["eurosat-base"] == ["a centered satellite photo of {}."]
    assert facts["head"] == "mean of normalized text features, templates: 1; normalized"
    assert facts["averages"] == {"mean of base": "in-distribution", "mean of novel": "zero-shot"}
    release = protocol(suite.with_protocol("dtd", "radapter-release"), Made([]))
    assert release["dataset_templates"]["dtd-base"] == "openai"
    assert "templates: 1 or 80;" in release["head"]
    # A data set of a suite's own file may say its own.
    own = suite.datasets[0].model_copy(update={"templates": ["{}!"]})
    mine = suite.model_copy(update={"datasets": [own, *suite.datasets[1:]]})
    assert protocol(mine, Made([]))["dataset_templates"][own.name] == ["{}!"]
    shifts = protocol(load_suite("imagenet-shifts"), Made([]))
    assert not {"dataset_templates", "harmonic_means"} & shifts.keys()


def test_one_name_in_two_templates_is_two_texts(root):
    both = [d for s in (placed(FEW, root, "dtd"),) for d in s.datasets]
    other = both[0].model_copy(update={"name": "other", "templates": ["{}."]})
    suite = Suite(name="mine", tasks=["classification"], datasets=[*both, other])
    found, made = scored(suite, DTD)
    assert found.sets["dtd"].value("accuracy") == 1
    assert found.sets["other"].value("accuracy") == pytest.approx(1 / 5)  # all tie: the first class
    assert len(made.number) == len(found.text_features) == 10


# ------------------------------------------------------------------ which data sets


def recipe(**data):
    inner = ", ".join(f"{k}: {v}" for k, v in {"source": "coop", **data}.items())
    return recipes.parse(f"{{name: x, model: m, method: {{name: lora}}, data: {{{inner}}}}}")


def test_a_run_is_scored_on_the_set_that_it_trained_on():
    suite = HALVES.for_recipe(recipe(dataset="dtd", classes="base"))
    assert [d.name for d in suite.datasets] == ["dtd-base", "dtd-novel"]
    assert (suite.averages, list(suite.harmonic_means)) == ({}, ["dtd"])
    assert all(d.published and d.data.protocol == "coop" for d in suite.datasets)
    few = FEW.for_recipe(recipe(dataset="ucf101", root="my/ucf", data_root="/data"))
    assert [d.name for d in few.datasets] == ["ucf101"]
    assert (few.datasets[0].data.root, few.datasets[0].data.data_root) == ("my/ucf", "/data")
    shifts = load_suite("imagenet-shifts")
    assert shifts.for_recipe(recipe(dataset="imagenet")) == shifts
    text = "{name: x, model: m, method: {name: lora}, data: {source: imagenet}}"
    assert FEW.for_recipe(recipes.parse(text)) == FEW  # cross-dataset transfer


def test_a_run_is_scored_by_its_own_protocol():
    release = {"dataset": "dtd", "protocol": "radapter-release"}
    suite = HALVES.for_recipe(recipe(classes="base", **release))
    assert [suite.prompts(d) for d in suite.datasets] == ["openai"] * 2
    assert {d.data.protocol for d in suite.datasets} == {"radapter-release"}
    # Other halves have other counts; of all classes they are what they are.
    assert [d.published for d in suite.datasets] == [None, None]
    assert FEW.for_recipe(recipe(**release)).datasets[0].published.pictures == 1692


def test_sets_are_left_out_by_name():
    suite = HALVES.without(["imagenet", "sun397-novel"])
    names = [d.name for d in suite.datasets]
    assert len(names) == 19
    assert "sun397-base" in names
    assert suite.members("mean of base") == [n for n in names if n.endswith("base")]
    assert not {"imagenet", "sun397"} & set(suite.harmonic_means)
    assert "of both means" in suite.harmonic_means
    with pytest.raises(UsageError, match="base-to-novel has no data set 'imagnet'"):
        HALVES.without(["imagnet"])
    with pytest.raises(UsageError, match="has no protocol 'clip': Input should be 'coop'"):
        HALVES.with_protocol("dtd", "clip")
    facts = HALVES.model_dump() | {"harmonic_means": {"x": ("dtd-base", "dtd-new")}}
    with pytest.raises(ValueError, match="no data set is called 'dtd-new'"):
        Suite(**facts)
    with pytest.raises(ValueError, match="add classification to tasks"):
        Suite(**HALVES.model_dump() | {"tasks": ["retrieval"]})


def test_templates_of_the_shipped_suites():
    for described in (*FEW.datasets, *HALVES.datasets):
        assert FEW.prompts(described) == [LAYOUTS[described.data.dataset].template]
    emoji = load_suite("emoji-shifts")
    assert {tuple(emoji.prompts(d)) for d in emoji.datasets} == {("{}",)}


def test_anchors_stand_beside_whole_halves(root):
    found, _ = scored(placed(HALVES, root, "dtd"), DTD)
    anchors = with_anchors(found, B16)["anchors"]
    assert anchors["dtd-novel"]["accuracy"]["published"] == pytest.approx(0.5990)
    assert anchors["dtd-novel"]["accuracy"]["difference"] == pytest.approx(1 - 0.5990)


# ------------------------------------------------------------------ the harmonic mean


def test_the_harmonic_mean():
    assert harmonic_mean(0.8, 0.2) == pytest.approx(0.32)
    assert harmonic_mean(0.0, 0.0) == 0
    found = harmonic_mean(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5]))
    assert found == pytest.approx([0, 0.5, 2 / 3])


def test_the_interval_of_a_harmonic_mean_is_that_of_the_delta_method():
    random = np.random.default_rng(0)
    sets = [random.random(n) < p for n, p in ((400, 0.6), (500, 0.8), (600, 0.5))]
    clusters = [np.arange(len(s)) for s in sets]
    found = harmonic(sets, clusters, 2)
    low, high = found["interval"]
    a, b = (sets[0].mean() + sets[1].mean()) / 2, sets[2].mean()
    slope_a, slope_b = 2 * b**2 / (a + b) ** 2, 2 * a**2 / (a + b) ** 2
    widths = [
        np.subtract(*mean_interval(sets[i:j], clusters[i:j])[::-1]) for i, j in ((0, 2), (2, 3))
    ]
    assert high - low == pytest.approx(np.hypot(slope_a * widths[0], slope_b * widths[1]), rel=0.1)
    assert (low + high) / 2 == pytest.approx(harmonic_mean(a, b), abs=0.005)
    assert found["value"] == pytest.approx(2 * a * b / (a + b))
    assert harmonic(sets, clusters, 2) == found


def test_shots_follow_the_seed_of_a_recipe_made_in_python_too():
    fields = {"name": "x", "model": "m", "method": {"name": "lora"}, "seed": 3}
    given = {"source": "coop", "dataset": "dtd"}
    assert recipes.Recipe(**fields, data=given).data.shots_seed == 3
    assert recipes.Recipe.model_validate({**fields, "data": given}).data.shots_seed == 3
    assert recipes.Recipe(**fields, data={**given, "shots_seed": 2}).data.shots_seed == 2


@pytest.mark.parametrize(
    ("suite", "names"), [(FEW, ["icons"]), (HALVES, ["icons-base", "icons-novel"])]
)
def test_a_run_of_icons_is_scored_on_icons_alone(suite, names):
    """Without any download: no set of CoOp's is opened."""
    recipe = recipes.load(recipes.shipped()["icons-base-to-novel"])
    own = suite.for_recipe(recipe)
    assert [d.name for d in own.datasets] == names
    assert list(own.harmonic_means) == (["icons"] if suite is HALVES else [])
    assert own.averages == {}
    opened = own.open()
    trained = recipe.data.open().class_names
    for name, tasks in opened.items():
        assert (set(tasks["classification"].class_names) == set(trained)) == (name != "icons-novel")
    elsewhere = recipes.load(recipes.shipped()["base-to-novel"])
    assert not {d.name for d in suite.for_recipe(elsewhere).datasets} & set(names)
