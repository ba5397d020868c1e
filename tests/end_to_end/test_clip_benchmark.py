"""The numbers of clip-benchmark, on the built-in model and pictures."""

import pytest
import torch
from torch.utils.data import DataLoader

from radapter import evaluation, models
from radapter.data import open_data
from radapter.evaluation import retrieval
from radapter.evaluation.classification import encode_texts
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.recipe_data import EmojiData
from radapter.runtimes.pytorch import PyTorchRuntime

classification = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
zeroshot_retrieval = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
pytestmark = pytest.mark.slow
WITHIN = 0.0005
"""0.05 point"""
STYLES = ["emojione", "twemoji"]
RECALLS = [1, 5, 10]


@pytest.fixture(scope="module")
def loaded():
    return models.load("emoji-clip")


class Pictures(torch.utils.data.Dataset):
    """A data set of ours in the form that clip-benchmark takes."""

    def __init__(self, dataset, loaded, answers):
        self.dataset, self.loaded, self.answers = dataset, loaded, answers
        self.classes = dataset.class_names

    def __len__(self):
        return len(self.answers)

    def __getitem__(self, index):
        return self.loaded.preprocess(self.dataset.read(index)), self.answers[index]


def ours(loaded, style, task, captions):
    data = EmojiData(source="emoji", styles=[style], split="test", captions=captions)
    suite = Suite(
        name="mine",
        templates=["a picture of {}."],
        tasks=[task],
        datasets=[SuiteDataset(name="set", role="in-distribution", data=data)],
    )
    found = evaluation.evaluate(suite, PyTorchRuntime(loaded), loaded)
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
    assert found.value("set", "accuracy") == pytest.approx(theirs, abs=WITHIN)


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
            assert found.value("set", f"{mine}_r{k}") == pytest.approx(expected, abs=WITHIN)
    assert 0.05 < theirs["image_retrieval_recall@1"] < 1


def test_where_captions_repeat_only_the_counting_differs(loaded):
    """Many pictures share a caption: to us one query with several right pictures, to clip-benchmark
    a query for each with one. Counted its way, our features give its recalls."""
    found, dataset = ours(loaded, "emojione", "retrieval", ["class"])
    theirs = recalls_of_theirs(loaded, dataset)
    texts = [text for own in dataset.captions for text in own]
    assert len(set(texts)) < len(texts)
    runtime = PyTorchRuntime(loaded)
    features = encode_texts(runtime, loaded.tokenizer, texts)
    right = [[i] for i, own in enumerate(dataset.captions) for _ in own]
    ranks = retrieval.best_ranks(features, found.image_features["set"], right)
    for k in RECALLS:
        expected = theirs[f"image_retrieval_recall@{k}"]
        assert float((ranks < k).float().mean()) == pytest.approx(expected, abs=WITHIN)
        assert found.value("set", f"text_to_image_r{k}") > expected + 0.01
