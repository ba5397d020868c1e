"""The suite `retrieval` on miniatures of Flickr30K and COCO in their real layouts."""

import numpy as np
import pytest
import tiny
import trees

from radapter import recipe as recipes
from radapter.data.sources.coco_captions import CocoCaptionsData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.of_model import with_anchors
from radapter.evaluation.published import Anchors
from radapter.evaluation.result import TextKey
from radapter.evaluation.suite import Suite, SuiteDataset, load_suite
from radapter.runtimes.opened import from_loaded

SHARED = "A man riding a wave on top of a surfboard."
PROTOCOLS = ("vse++", "clip-benchmark")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Both trees, every caption a text of its own but for one that two pictures of COCO share."""
    root = tmp_path_factory.mktemp("data")
    trees.distinct_captions(trees.coco(root / "coco"), SHARED)
    trees.distinct_captions(trees.flickr30k(root / "flickr30k"))
    return root


@pytest.fixture(scope="module")
def loaded():
    return tiny.build()


def placed(root, suite):
    """The suite under a data root."""
    datasets = [
        d.model_copy(update={"data": d.data.model_copy(update={"data_root": str(root)})})
        for d in suite.datasets
    ]
    return suite.model_copy(update={"datasets": datasets})


def shipped(root, protocol="vse++"):
    return placed(root, load_suite("retrieval")).with_protocol("coco", protocol)


def whole(suite):
    """The suite with the counts of the miniature as the published ones."""
    opened = suite.open()
    datasets = []
    for described in suite.datasets:
        dataset = opened[described.name]["retrieval"]
        counts = {"pictures": len(dataset), "captions": sum(map(len, dataset.captions))}
        published = described.published.model_copy(update=counts)
        datasets.append(described.model_copy(update={"published": published}))
    return suite.model_copy(update={"datasets": datasets})


def score(suite, loaded):
    return evaluate(suite, from_loaded(loaded))


def recalls_of_papers(images, texts, picture_of):
    """As the tables are made: every caption a row of its own, a sort of all similarities, the first
    of a picture's own captions. Equal texts tie, to the disadvantage of the right one."""
    similarity = np.round(images.astype(np.float64) @ texts.astype(np.float64).T, 12)
    found = {}
    for way, rows, right in (
        (
            "image_to_text",
            similarity,
            [np.flatnonzero(picture_of == i) for i in range(len(images))],
        ),
        ("text_to_image", similarity.T, [np.array([i]) for i in picture_of]),
    ):
        ranks = []
        for row, own in zip(rows, right, strict=True):
            order = sorted(range(len(row)), key=lambda j, row=row, own=own: (-row[j], j in own))
            ranks.append(min(order.index(j) for j in own))
        found |= {f"{way}_r{k}": np.mean(np.array(ranks) < k) for k in (1, 5, 10)}
        found[f"{way}_median_rank"] = np.floor(np.median(ranks)) + 1
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_recalls_are_those_that_papers_count(root, loaded, protocol):
    suite = shipped(root, protocol)
    found = score(suite, loaded)
    result = found.result()["datasets"]
    seen = set()
    for name, tasks in suite.open().items():
        captions = tasks["retrieval"].captions
        texts = np.stack(
            [found.text_features[TextKey("caption", t)] for own in captions for t in own]
        )
        picture_of = np.array([i for i, own in enumerate(captions) for _ in own])
        expected = recalls_of_papers(found.sets[name].image_features.numpy(), texts, picture_of)
        for key, value in expected.items():
            if key.endswith("rank"):
                assert result[name]["retrieval"][key] == value
            else:
                assert found.sets[name].value(key) == pytest.approx(value)
        recalls = [v for k, v in expected.items() if not k.endswith("rank")]
        assert result[name]["retrieval"]["recall_sum"] == pytest.approx(100 * sum(recalls))
        seen |= set(recalls)
        assert result[name]["text_to_image_r1"]["items"] == len(texts)
        assert result[name]["image_to_text_r1"]["items"] == len(captions)
    assert len(seen) > 4  # not all 0 or 1


@pytest.mark.parametrize(("protocol", "captions"), [("vse++", 25), ("clip-benchmark", 26)])
def test_results_say_protocol_and_counts(root, loaded, protocol, captions):
    result = score(shipped(root, protocol), loaded).result()["datasets"]
    coco, flickr = result["coco"], result["flickr30k"]
    assert (coco["pictures"], coco["captions"], coco["shared_captions"]) == (5, captions, 2)
    assert (flickr["pictures"], flickr["captions"], flickr["shared_captions"]) == (4, 20, 0)
    assert coco["protocol"]["captions"] == protocol
    published = 25_000 if protocol == "vse++" else 25_010
    assert coco["partial"] == f"5 of 5,000 pictures, {captions} of {published:,} captions"
    assert flickr["partial"] == "4 of 1,000 pictures, 20 of 5,000 captions"


def test_a_whole_set_of_one_protocol_is_partial_in_the_other(root, loaded):
    suite = whole(shipped(root))
    assert not any(f["partial"] for f in score(suite, loaded).result()["datasets"].values())
    other = score(suite.with_protocol("coco", "clip-benchmark"), loaded)
    assert other.result()["datasets"]["coco"]["partial"] == "26 of 25 captions"


def test_an_identical_caption_is_right_for_its_own_picture_alone(root, loaded):
    """The suite's rule; `one`, that of suites that do not say, takes it as right for both."""
    suite = shipped(root).without(["flickr30k"])
    apart = score(suite, loaded)
    one = score(suite.model_copy(update={"identical_captions": "one"}), loaded)
    items = [len(e.sets["coco"].metrics["text_to_image_r1"].scores) for e in (apart, one)]
    assert items == [25, 24]
    assert TextKey("caption", SHARED) in apart.text_features
    assert len(apart.text_features) == 24  # encoded once


# ------------------------------------------------------------------ what is published


def test_the_suite_says_what_is_published():
    suite = load_suite("retrieval")
    flickr, coco = suite.datasets
    assert (flickr.name, flickr.published.pictures, flickr.captions()) == ("flickr30k", 1000, 5000)
    assert (coco.name, coco.published.pictures, coco.captions()) == ("coco", 5000, 25_000)
    other = suite.with_protocol("coco", "clip-benchmark").datasets[1]
    assert (other.protocol, other.captions()) == ("clip-benchmark", 25_010)
    sizes = coco.published.splits
    assert sizes["train"] + sizes["restval"] == 113_287
    assert sum(sizes.values()) == 123_287
    assert sum(flickr.published.splits.values()) == 31_014
    # A slip of the pen in the anchors would show in the sums, known from elsewhere.
    (anchors,) = suite.anchors
    sums = {m: [sum(anchors.rows(m)[n]) for n in ("flickr30k", "coco")] for m in anchors.scores}
    assert sums == {
        "ViT-B-32:openai": pytest.approx([504.4, 361.9], abs=0.1),
        "ViT-B-16:openai": pytest.approx([517.6, 374.2], abs=0.1),
        "ViT-L-14:openai": pytest.approx([526.0, 391.0], abs=0.1),
        "ViT-L-14-336:openai": pytest.approx([534.8, 397.2], abs=0.1),
    }


def test_anchors_are_of_the_protocol_that_they_were_found_with(root, loaded):
    assert with_anchors(score(shipped(root), loaded), "ViT-B-16:openai") == {}  # partial
    result = score(whole(shipped(root)), loaded)
    found = with_anchors(result, "ViT-B-16:openai")
    assert found["anchors_elsewhere"] == {"coco": "clip-benchmark"}
    found = found["anchors"]
    assert set(found) == {"flickr30k"}  # whose protocols are the same
    assert set(found["flickr30k"]) == set(result.sets["flickr30k"].metrics)
    ours = result.sets["flickr30k"].value("image_to_text_r5")
    item = found["flickr30k"]["image_to_text_r5"]
    assert item["difference"] == pytest.approx(ours - 0.966)
    result = score(whole(shipped(root, "clip-benchmark")), loaded)
    found = with_anchors(result, "ViT-B-16-quickgelu:openai")
    assert "anchors_elsewhere" not in found
    found = found["anchors"]
    assert found["coco"]["text_to_image_r1"]["published"] == pytest.approx(0.3309)
    assert with_anchors(result, "ViT-B-16:laion400m_e32") == {}


def test_anchors_of_another_task_are_not_looked_for(root, loaded):
    """A suite may have anchors for a metric that it does not compute."""
    suite = whole(shipped(root))
    anchors = [Anchors(source="x", tolerance=0.1, scores={"m:t": {"coco": 1.0}})]
    result = score(suite.model_copy(update={"anchors": anchors}), loaded)
    assert with_anchors(result, "m:t") == {}


@pytest.mark.parametrize(
    ("there", "missing"), [("flickr30k", "coco"), ("coco", "flickr30k"), (None, None)]
)
def test_what_is_missing_is_named_with_the_option_that_does_without(root, tmp_path, there, missing):
    if there:
        (tmp_path / there).symlink_to(root / there)
    suite = shipped(tmp_path)
    with pytest.raises(BrokenInput) as caught:
        suite.open()
    message = str(caught.value)
    for described in suite.datasets:
        expected = described.name != there
        assert (f"No such file: {tmp_path}/{described.name}" in message) == expected
        assert (described.published.where in message) == expected
    assert ("--without" in message) == bool(there)
    if there:
        assert message.endswith(f"To score the rest of the suite, add --without {missing}")
        assert list(suite.without([missing]).open()) == [there]


def test_a_protocol_that_is_not_known():
    with pytest.raises(UsageError, match=r"coco has no protocol 'five': .*'vse\+\+' or 'clip-ben"):
        load_suite("retrieval").with_protocol("coco", "five")


@pytest.mark.parametrize("name", ["coco", "flickr30k"])
def test_what_a_recipe_trains_on_is_in_distribution(name):
    recipe = recipes.load(recipes.shipped()[name], overrides=["data.data_root=/data"])
    assert recipe.suites == ["retrieval"]
    suite = load_suite("retrieval").for_recipe(recipe)
    roles = {d.name: d.role for d in suite.datasets}
    assert roles.pop(name) == "in-distribution"
    assert set(roles.values()) == {"zero-shot"}
    assert {d.data.data_root for d in suite.datasets} == {"/data"}
    assert all(d.data.split == "test" for d in suite.datasets)


# ------------------------------------------------------------------ other files


def test_coco_from_a_file_in_the_official_form(root, loaded, tmp_path):
    """clip-benchmark's coco_test_karpathy.json: the test split in the form of COCO's captions."""
    path = trees.coco_test_karpathy(root / "coco").rename(tmp_path / "coco_test_karpathy.json")
    known = shipped(root, "clip-benchmark")
    published = known.datasets[1].published
    data = {"source": "coco-captions", "path": str(path), "root": str(root / "coco" / "val2014")}
    described = SuiteDataset(
        name="coco",
        role="zero-shot",
        data=CocoCaptionsData(**data, protocol="clip-benchmark"),
        published=published,
    )
    suite = Suite(
        name="mine", tasks=["retrieval"], datasets=[described], identical_captions="apart"
    )
    found, expected = score(suite, loaded), score(known, loaded)
    for metric in expected.sets["coco"].metrics:
        assert found.sets["coco"].value(metric) == expected.sets["coco"].value(metric)
    assert found.result()["datasets"]["coco"]["partial"] == "5 of 5,000 pictures, 26 of 25,010 " + (
        "captions"
    )
    five = suite.with_protocol("coco", "vse++")
    assert score(five, loaded).result()["datasets"]["coco"]["captions"] == 25
