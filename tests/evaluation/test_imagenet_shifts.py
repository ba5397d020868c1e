"""How ImageNet and its shifts are scored, with features that are made so that it matters."""

import imagenet_tree as tree
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imagenet_tree import fill, fill_objectnet, fill_suite
from torchvision.transforms.v2.functional import pil_to_tensor

from radapter.data.sources.imagenet import ImageNetData, class_names, subset
from radapter.data.sources.objectnet import ObjectNetData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.classification import (
    answer_of,
    answer_scores,
    calibration_error,
    predict,
    reliability,
)
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.of_model import with_anchors
from radapter.evaluation.published import Anchors
from radapter.evaluation.suite import Suite, SuiteDataset, load_suite
from radapter.heads.head import Head
from radapter.heads.zero_shot import ZeroShot

NAMES = class_names()


class Made:
    """A runtime and its inputs at once: features are looked up by text and by a pixel.

    A picture's feature is chosen by the red of its top left pixel and `pictures`; a text's by the
    class name at its end. All others are orthogonal to every picture.
    """

    name, device, precision, logit_scale = "made", "cpu", "fp32", 100.0

    def __init__(self, texts, pictures):
        self.texts, self.pictures = texts, pictures
        self.provenance = {"weights_hash": "0" * 64}
        self.runtime, self.preprocessing, self.head = self, {}, None
        self.seen = []

    def tokenizer(self, texts):
        self.seen = list(texts)
        return torch.arange(len(texts))[:, None]

    def preprocess(self, picture):
        return pil_to_tensor(picture)[:, :1, :1]

    def encode_text(self, tokens):
        other = torch.tensor([0.0, 0.0, 0.0, 1.0])
        return torch.stack([self.texts.get(text, other) for text in self.seen])

    def encode_image(self, pixels):
        chosen = [self.pictures(pixel.flatten().tolist()) for pixel in pixels]
        return F.normalize(torch.tensor(chosen), dim=1)


def unit(*values):
    return F.normalize(torch.tensor([*values, 0.0]), dim=0)


def suite_of(data, **facts):
    described = SuiteDataset(name="set", role="shifted", data=data, **facts)
    return Suite(name="mine", templates=["{}"], tasks=["classification"], datasets=[described])


def score(data, made):
    return evaluate(suite_of(data), made)


def imagenet(root, variant):
    return ImageNetData(source="imagenet", variant=variant, data_root=str(root))


def objectnet(root, protocol):
    return ObjectNetData(source="objectnet", protocol=protocol, data_root=str(root))


def test_r_is_scored_within_its_own_200_classes(tmp_path):
    """The best of all 1000 is no class of -R; the best of the 200 is right."""
    right, outside = subset("r")[5], next(i for i in range(1000) if i not in subset("r"))
    texts = {NAMES[outside]: unit(1.0, 0.0, 0.0), NAMES[right]: unit(0.8, 0.6, 0.0)}
    made = Made(texts, lambda pixel: [1.0, 0.1, 0.0, 0.0])
    fill(tmp_path / "imagenet-r", "r", [right])
    found = score(imagenet(tmp_path, "r"), made)
    assert found.sets["set"].value("accuracy") == 1
    assert found.sets["set"].metrics["accuracy"].chance == 1 / 200
    assert found.sets["set"].predictions.tolist() == [right]
    assert found.result()["datasets"]["set"]["protocol"]["classes"].startswith("200 of ImageNet's")
    fill(tmp_path / "sketch", "sketch", [right])
    found = score(imagenet(tmp_path, "sketch"), made)  # all 1000
    assert found.sets["set"].value("accuracy") == 0
    assert found.sets["set"].predictions.tolist() == [outside]


def test_equal_names_count_as_published(tmp_path):
    """Of the two classes called missile, pictures of the second are wrong, as in every table;
    an engine that breaks the tie the other way still agrees."""
    made = Made({"missile": unit(1.0, 0.0, 0.0)}, lambda pixel: [1.0, 0.0, 0.0, 0.0])
    fill(tmp_path / "sketch", "sketch", [657, 744])
    found = score(imagenet(tmp_path, "sketch"), made)
    assert found.sets["set"].metrics["accuracy"].scores.tolist() == [True, False]
    assert found.sets["set"].predictions.tolist() == [657, 657]


def test_the_two_protocols_of_objectnet_answer_differently(tmp_path):
    """An alarm clock that looks like "digital clock" (the second of its ImageNet classes) and, of
    ObjectNet's own names, like "dress"."""
    texts = {
        "digital clock": unit(1.0, 0.0, 0.0),
        "gown": unit(0.9, 0.4, 0.0),
        "alarm clock": unit(0.6, 0.8, 0.0),
        "dress": unit(0.9, 0.4, 0.0),
    }
    made = Made(texts, lambda pixel: [1.0, 0.0, 0.0, 0.0])
    fill_objectnet(tmp_path / "objectnet-1.0")
    lineage = score(objectnet(tmp_path, "wise-ft"), made)
    benchmark = score(objectnet(tmp_path, "clip-benchmark"), made)
    # alarm_clock, dress, drying_rack_for_dishes, full_sized_towel
    assert lineage.sets["set"].metrics["accuracy"].scores.tolist() == [True, False, False, False]
    assert benchmark.sets["set"].metrics["accuracy"].scores.tolist() == [False, True, False, False]
    assert lineage.result()["datasets"]["set"]["protocol"]["objectnet"] == "wise-ft"
    assert benchmark.result()["datasets"]["set"]["protocol"]["crop"] == "none"


def test_the_border_of_objectnet_can_decide(tmp_path):
    """With the red frame the top left pixel says "gown", without it what is inside is seen."""
    texts = {"gown": unit(1.0, 0.0, 0.0), "dress": unit(1.0, 0.0, 0.0)}
    texts |= {"analog clock": unit(0.0, 1.0, 0.0), "alarm clock": unit(0.0, 1.0, 0.0)}
    made = Made(
        texts, lambda pixel: [float(pixel == [255, 0, 0]), float(pixel != [255, 0, 0]), 0, 0]
    )
    fill_objectnet(tmp_path / "objectnet-1.0", border=tree.RED)
    cropped = score(objectnet(tmp_path, "wise-ft-cropped"), made)
    whole = score(objectnet(tmp_path, "wise-ft"), made)
    framed = score(objectnet(tmp_path, "clip-benchmark"), made)
    assert cropped.sets["set"].metrics["accuracy"].scores.tolist() == [True, False, False, False]
    assert whole.sets["set"].metrics["accuracy"].scores.tolist() == [False, True, False, False]
    assert framed.sets["set"].metrics["accuracy"].scores.tolist() == [False, True, False, False]


# ------------------------------------------------------------------ answers


def test_answers_are_the_maximum_over_their_classes():
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(50, 8, generator=generator), dim=1)
    head = F.normalize(torch.randn(9, 8, generator=generator), dim=1)
    groups = [[7], [0, 3, 4], [2, 8]]
    answer = answer_of([f"class {i}" for i in range(9)], groups)
    assert answer.tolist() == [1, -1, 2, 1, 1, -1, -1, 0, 2]
    by_hand = torch.stack([(images @ head.T)[:, g].max(dim=1).values for g in groups], dim=1)
    torch.testing.assert_close(answer_scores(images @ head.T, answer), by_hand)
    scaled = Head([f"class {i}" for i in range(9)], ZeroShot(head, 20.0))
    found, sure = predict(images, scaled, answer, chunk=7)
    assert found.tolist() == by_hand.argmax(dim=1).tolist()
    torch.testing.assert_close(sure, (20 * by_hand).softmax(dim=1).max(dim=1).values)
    names = ["crane", "missile", "crane", "gown"]
    assert answer_of(names).tolist() == [0, 1, 0, 2]
    assert answer_of(names, apart=True).tolist() == [0, 1, 2, 3]
    assert answer_of(names, [[2], [0], [3]]).tolist() == [0, -1, 0, 1]
    assert answer_of(names, [[2], [0], [3]], apart=True).tolist() == [1, -1, 0, 2]


def test_the_calibration_error_is_the_formula():
    """Against bins made with numpy."""
    random = np.random.default_rng(0)
    probability, right = random.random(500), random.random(500) < 0.6
    bins = np.digitize(probability, np.linspace(0, 1, 16)[1:-1], right=True)
    expected = sum(
        (bins == b).mean() * abs(right[bins == b].mean() - probability[bins == b].mean())
        for b in np.unique(bins)
    )
    found = calibration_error(torch.tensor(probability), torch.tensor(right))
    assert found == pytest.approx(expected)
    sure = torch.ones(4)
    assert calibration_error(sure, torch.tensor([True] * 4)) == 0
    assert calibration_error(sure, torch.tensor([True, True, False, False])) == 0.5


def test_the_points_of_a_calibration_curve_by_numpy():
    generator = np.random.default_rng(0)
    probability, right = generator.random(500), generator.random(500) < 0.4
    points = reliability(torch.tensor(probability), torch.tensor(right), bins=7)
    place = np.minimum(np.ceil(probability * 7), 7)
    expected = [
        (int((place == b).sum()), probability[place == b].mean(), right[place == b].mean())
        for b in range(1, 8)
    ]
    assert [n for n, _, _ in points] == [n for n, _, _ in expected]
    np.testing.assert_allclose(points, expected, rtol=1e-12)
    empty = reliability(torch.tensor([0.9]), torch.tensor([True]), bins=7)
    assert empty == [(1, pytest.approx(0.9), 1.0)]  # bins without items are left out


# ------------------------------------------------------------------ the suite


def shipped(root):
    """imagenet-shifts with one template, so that a test need not encode 80,000 prompts."""
    suite = load_suite("imagenet-shifts").model_copy(update={"templates": ["{}"]})
    datasets = [
        d.model_copy(update={"data": d.data.model_copy(update={"data_root": str(root)})})
        for d in suite.datasets
    ]
    return suite.model_copy(update={"datasets": datasets})


def test_the_suite_says_what_is_published():
    suite = load_suite("imagenet-shifts")
    counts = {d.name: (d.published.pictures, d.published.classes) for d in suite.datasets}
    assert counts == {
        "imagenet": (50_000, 1000),
        "imagenet-v2": (10_000, 1000),
        "imagenet-r": (30_000, 200),
        "imagenet-a": (7_500, 200),
        "imagenet-sketch": (50_889, 1000),
        "objectnet": (18_574, 113),
    }
    with_it, without = suite.averages.values()
    assert set(with_it) - set(without) == {"objectnet"}
    assert len(without) == 4
    assert suite.templates == "openai"
    # A slip of the pen in the anchors would show in their means, known from elsewhere.
    table = suite.anchors[0].scores
    means = {model: sum(row[n] for n in with_it) / 5 for model, row in table.items()}
    published = {"ViT-B-32": 48.7, "ViT-B-16": 58.6, "ViT-L-14": 71.4, "ViT-L-14-336": 74.1}
    assert means == {f"{m}:openai": pytest.approx(v, abs=0.06) for m, v in published.items()}


def test_a_missing_suite_is_one_message(tmp_path):
    fill_suite(tmp_path)
    (tmp_path / "imagenet-a").rename(tmp_path / "elsewhere")
    with pytest.raises(BrokenInput) as caught:
        shipped(tmp_path / "nowhere").open()
    message = str(caught.value)
    for name, facts in ((d.name, d.published) for d in shipped(tmp_path).datasets):
        assert f"\n{name}: " in message
        assert facts.where in message
        assert facts.folder in message
    with pytest.raises(BrokenInput) as caught:
        shipped(tmp_path).open()
    assert str(caught.value).count("Published at") == 1
    assert str(caught.value).endswith("the rest of the suite, add --without imagenet-a")
    assert "\nimagenet-a: ImageNet-A is not under" in str(caught.value)


def evaluate_mini(root, suite=None):
    made = Made({}, lambda pixel: [1.0, 0.0, 0.0, 0.0])
    return evaluate(suite or shipped(root), made)


def whole(suite):
    """The suite with the counts of the miniature as the published ones."""
    opened = suite.open()
    datasets = []
    for described in suite.datasets:
        (dataset,) = opened[described.name].values()
        counts = {"pictures": len(dataset), "classes": len(set(dataset.labels))}
        published = described.published.model_copy(update=counts)
        datasets.append(described.model_copy(update={"published": published}))
    return suite.model_copy(update={"datasets": datasets})


def test_an_average_over_a_partial_set_has_no_value(tmp_path):
    suite = whole(shipped(fill_suite(tmp_path)))
    result = evaluate_mini(tmp_path, suite).result()
    with_it, without = suite.averages
    assert result["averages"][with_it]["datasets"] == suite.averages[with_it]
    values = {n: facts["accuracy"]["value"] for n, facts in result["datasets"].items()}
    mean = sum(values[n] for n in suite.averages[with_it]) / 5
    assert result["averages"][with_it]["accuracy"]["value"] == pytest.approx(mean)
    assert all(facts["partial"] is None for facts in result["datasets"].values())
    # One class of -A is lost: it is named, and neither of the averages has a value without it.
    folder = next(p for p in sorted((tmp_path / "imagenet-a").iterdir()) if p.is_dir())
    (lost,) = folder.iterdir()
    lost.unlink()
    result = evaluate_mini(tmp_path, suite).result()
    assert result["datasets"]["imagenet-a"]["partial"] == "1 of 2 pictures, 1 of 2 classes"
    for name in (with_it, without):
        average = result["averages"][name]
        rest = [n for n in suite.averages[name] if n != "imagenet-a"]
        assert average == {"datasets": rest, "left_out": ["imagenet-a"]}
    assert "imagenet-a" not in result["roles"]["shifted"]["datasets"]


def test_a_suite_of_which_all_is_partial(tmp_path):
    result = evaluate_mini(fill_suite(tmp_path)).result()
    assert all(facts["partial"] for facts in result["datasets"].values())
    assert [list(a) for a in result["averages"].values()] == [["datasets", "left_out"]] * 2
    assert list(result["roles"]) == ["in-distribution"]  # one set is no average
    assert result["roles"]["in-distribution"]["datasets"] == ["imagenet"]


def test_anchors_are_of_these_weights_this_protocol_and_whole_sets(tmp_path):
    partial = evaluate_mini(fill_suite(tmp_path))
    assert with_anchors(partial, "ViT-B-16:openai") == {}
    suite = whole(shipped(tmp_path))
    found = with_anchors(evaluate_mini(tmp_path, suite), "ViT-B-16:openai")["anchors"]
    assert set(found) == {d.name for d in suite.datasets} - {"objectnet"}  # of another protocol
    result = evaluate_mini(tmp_path, suite)
    ours = result.sets["imagenet"].value("accuracy")
    assert found["imagenet"]["accuracy"]["difference"] == pytest.approx(ours - 0.6834)
    other = suite.with_protocol("objectnet", "clip-benchmark")
    found = with_anchors(evaluate_mini(tmp_path, whole(other)), "ViT-B-16-quickgelu:openai")
    assert found["anchors"]["objectnet"]["accuracy"]["published"] == pytest.approx(0.5531)
    assert with_anchors(result, "ViT-B-16:laion400m_e32") == {}


def test_a_suite_without_one_of_its_sets(tmp_path):
    fill_suite(tmp_path)
    (tmp_path / "objectnet-1.0").rename(tmp_path / "elsewhere")
    suite = shipped(tmp_path).without(["objectnet"])
    result = evaluate_mini(tmp_path, suite).result()
    assert list(result["averages"]) == ["4 shifts, without ObjectNet"]
    assert "objectnet" not in {name for name, *_ in suite.anchors_for("ViT-B-16:openai")}
    with pytest.raises(UsageError, match="has no data set 'objctnet'"):
        suite.without(["objctnet"])
    with pytest.raises(UsageError, match="No data set of .* is left"):
        suite.without([d.name for d in suite.datasets])


def test_a_suite_that_names_what_is_not_there():
    data = ImageNetData(source="imagenet", variant="a")
    described = SuiteDataset(name="set", role="shifted", data=data)
    facts = {"name": "mine", "tasks": ["classification"], "datasets": [described]}
    with pytest.raises(ValueError, match="no data set is called 'other'"):
        Suite(**facts, averages={"mean": ["set", "other"]})
    anchors = Anchors(source="x", tolerance=0.1, scores={"m": {"one": 1.0}})
    with pytest.raises(ValueError, match="no data set is called 'one'"):
        Suite(**facts, anchors=[anchors])
    with pytest.raises(ValueError, match=r"m, set: \[1\.0, 2\.0\] are not one each for accuracy"):
        Anchors(source="x", tolerance=0.1, scores={"m": {"set": [1.0, 2.0]}})
    suite = Suite(**facts)
    with pytest.raises(UsageError, match=r"mine has no data set 'sett'\. Did you mean 'set'"):
        suite.with_protocol("sett", "x")
    with pytest.raises(UsageError, match="set has no protocol 'x': Extra inputs"):
        suite.with_protocol("set", "x")
