"""The numbers of clip-benchmark, on the built-in model and pictures."""

import pytest
import torch
import trees
from torch.utils.data import DataLoader
from torchvision.datasets import CocoCaptions

from radapter import models
from radapter.data import open_data
from radapter.data.sources.emoji import EmojiData
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite, SuiteDataset, load_suite
from radapter.runtimes.opened import from_loaded

classification = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
zeroshot_retrieval = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
pytestmark = pytest.mark.slow
WITHIN = 0.0005
"""0.05 point"""
STYLES = ["emojione", "twemoji"]
RECALLS = [1, 5, 10]


@pytest.fixture(scope="module")
def loaded():
    return models.load("pictogram-clip")


class Pictures(torch.utils.data.Dataset):
    """A data set of ours in the form that clip-benchmark takes."""

    def __init__(self, dataset, loaded, answers):
        self.dataset, self.loaded, self.answers = dataset, loaded, answers
        self.classes = dataset.class_names

    def __len__(self):
        return len(self.answers)

    def __getitem__(self, index):
        return self.loaded.preprocess(self.dataset.read(index)), self.answers[index]


def ours(loaded, style, task, captions, **rules):
    data = EmojiData(source="emoji", styles=[style], split="test", captions=captions)
    suite = Suite(
        name="mine",
        templates=["a picture of {}."],
        tasks=[task],
        datasets=[SuiteDataset(name="set", role="in-distribution", data=data)],
        **rules,
    )
    found = evaluate(suite, from_loaded(loaded))
    return found, open_data(data.model_copy(update={"task": task_of(task)}))


def task_of(task):
    return "classification" if task == "classification" else "captions"


def recalls_of_theirs(loaded, dataset):
    rows = Pictures(dataset, loaded, dataset.captions)
    loader = DataLoader(rows, batch_size=64, collate_fn=zip_batch)
    return zeroshot_retrieval.evaluate(
        loaded.model, loader, loaded.tokenizer, "cpu", amp=False, recall_k_list=RECALLS
    )


def zip_batch(items):
    images, texts = zip(*items, strict=True)
    return torch.stack(images), texts


@pytest.mark.parametrize("style", STYLES)
def test_zero_shot_accuracy(loaded, style):
    found, dataset = ours(loaded, style, "classification", ["name"])
    loader = DataLoader(Pictures(dataset, loaded, dataset.labels), batch_size=64)
    # What its `evaluate` does before `accuracy`, which fails in 1.6.2 under NumPy 2.4:
    # float() of an array with one dimension.
    head = classification.zero_shot_classifier(
        loaded.model, loaded.tokenizer, dataset.class_names, ["a picture of {c}."], "cpu", amp=False
    )
    logits, target = classification.run_classification(loaded.model, head, loader, "cpu", amp=False)
    theirs = float((logits.argmax(dim=1) == target).float().mean())
    assert 0.05 < theirs < 0.95
    assert found.sets["set"].value("accuracy") == pytest.approx(theirs, abs=WITHIN)


@pytest.mark.parametrize("style", STYLES)
def test_retrieval_recalls(loaded, style):
    """On captions that are all different, where both count alike."""
    found, dataset = ours(loaded, style, "retrieval", ["name", "keywords"])
    texts = [text for own in dataset.captions for text in own]
    assert len(set(texts)) == len(texts) > len(dataset)
    theirs = recalls_of_theirs(loaded, dataset)
    for k in RECALLS:
        for mine, their in (("text_to_image", "image"), ("image_to_text", "text")):
            expected = theirs[f"{their}_retrieval_recall@{k}"]
            assert found.sets["set"].value(f"{mine}_r{k}") == pytest.approx(expected, abs=WITHIN)
    assert 0.05 < theirs["image_retrieval_recall@1"] < 1


def test_where_captions_repeat_only_the_counting_differs(loaded):
    """Many pictures share a caption: to a suite that does not say otherwise it is one query with
    several right pictures; with `identical_captions: apart`, as in the suite `retrieval`, and to
    clip-benchmark it is as many queries, with one each. From picture to caption equal texts tie,
    which counts against us and there falls as it happens."""
    one, dataset = ours(loaded, "emojione", "retrieval", ["class"])
    apart, _ = ours(loaded, "emojione", "retrieval", ["class"], identical_captions="apart")
    theirs = recalls_of_theirs(loaded, dataset)
    texts = [text for own in dataset.captions for text in own]
    assert len(set(texts)) < len(texts)
    for k in RECALLS:
        expected = theirs[f"image_retrieval_recall@{k}"]
        assert apart.sets["set"].value(f"text_to_image_r{k}") == pytest.approx(expected, abs=WITHIN)
        assert one.sets["set"].value(f"text_to_image_r{k}") > expected + 0.01
        expected = theirs[f"text_retrieval_recall@{k}"]
        assert apart.sets["set"].value(f"image_to_text_r{k}") <= expected + WITHIN


def test_coco_as_both_find_it_on_disk(loaded, tmp_path):
    """The suite `retrieval` from Karpathy's file; clip-benchmark's reader of COCO (torchvision's)
    from its file of the same pictures. Captions of six and seven count in both."""
    pytest.importorskip("pycocotools")
    root = trees.distinct_captions(trees.coco(tmp_path / "coco"))
    suite = load_suite("retrieval").without(["flickr30k"])
    suite = suite.with_protocol("coco", "clip-benchmark")
    data = suite.datasets[0].data.model_copy(update={"data_root": str(tmp_path)})
    suite = suite.model_copy(
        update={"datasets": [suite.datasets[0].model_copy(update={"data": data})]}
    )
    found = evaluate(suite, from_loaded(loaded))
    rows = CocoCaptions(
        str(root / "val2014"), str(trees.coco_test_karpathy(root)), transform=loaded.preprocess
    )
    loader = DataLoader(rows, batch_size=2, collate_fn=zip_batch)
    recalls = [1, 5]
    theirs = zeroshot_retrieval.evaluate(
        loaded.model, loader, loaded.tokenizer, "cpu", amp=False, recall_k_list=recalls
    )
    assert found.sets["coco"].facts["captions"] == 26
    for way, their in (("text_to_image", "image"), ("image_to_text", "text")):
        for k in recalls:
            share = found.sets["coco"].value(f"{way}_r{k}")
            assert share == pytest.approx(theirs[f"{their}_retrieval_recall@{k}"])
    assert 0 < theirs["image_retrieval_recall@1"] < 1
