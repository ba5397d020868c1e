import functools
import pickle
from collections import Counter

import pytest
import tiny
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES

from radapter import models
from radapter.data import Dataset, open_data
from radapter.data.pairs import (
    BatchOrder,
    Pairs,
    collate,
    loader,
    templates_of,
    training_transform,
)
from radapter.data.settings import Augmentation
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.folder import FolderData
from radapter.errors import BrokenInput
from radapter.training.feeding import Pixels

CFG = {"size": 32, "mean": tiny.MEAN, "std": tiny.STD, "interpolation": "bicubic"}


def folder(root, **values):
    return FolderData(source="folder", root=str(root), **values)


def pairs_of(settings, seed=0, dataset=None):
    transform = training_transform(settings.augmentation, CFG)
    return Pairs(dataset or open_data(settings), settings, transform, seed)


@pytest.fixture(scope="session")
def tokenizer(tiny_folder):
    return models.load(tiny_folder).tokenizer


# ------------------------------------------------------------------ order


@pytest.mark.parametrize(("items", "size"), [(24, 8), (25, 8), (7, 8), (10, 3), (2, 2)])
def test_an_epoch_visits_every_item_once(items, size):
    order = BatchOrder(items, size, epochs=4, seed=1)
    batches = list(order)
    assert len(batches) == len(order) == order.steps
    per_epoch = items // min(size, items)
    seen = []
    for epoch in range(4):
        part = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert all(len(batch) == min(size, items) for batch in part)
        assert {e for batch in part for e, _ in batch} == {epoch}
        visited = [item for batch in part for _, item in batch]
        assert len(set(visited)) == len(visited) == per_epoch * min(size, items)
        assert set(visited) <= set(range(items))
        seen.append(tuple(visited))
    if items > 4:
        assert len(set(seen)) == 4  # in another order each time
    left_out = items - per_epoch * min(size, items)
    if left_out:  # but another short end each time
        assert len({frozenset(range(items)) - set(visited) for visited in seen}) > 1


def test_an_order_resumes_at_any_step():
    whole = list(BatchOrder(25, 8, epochs=3, seed=5))
    for step in range(len(whole) + 1):
        part = BatchOrder(25, 8, epochs=3, seed=5, start_step=step)
        assert list(part) == whole[step:]
        assert len(part) == len(whole) - step
    assert list(BatchOrder(25, 8, epochs=3, seed=6)) != whole
    for most in (1, 4, 99):
        assert list(BatchOrder(25, 8, epochs=3, seed=5, most=most)) == whole[:most]


# ------------------------------------------------------------------ pairs


def test_classification_draws_templates_and_groups_by_class(shapes):
    settings = folder(shapes, templates=["a {}.", "one {} here", "{}"])
    pairs = pairs_of(settings)
    names = ["blue circle", "green cross", "red square"]
    allowed = [{f"a {n}.", f"one {n} here", n} for n in names]
    texts = Counter()
    assert len(pairs) == 24
    for epoch in range(10):
        for item in range(24):
            pair = pairs[epoch, item]
            assert pair["group"] == item // 8
            assert pair["text"] in allowed[pair["group"]]
            texts[pair["text"].replace(names[pair["group"]], "{}")] += 1
    assert all(50 < count < 110 for count in texts.values())  # 80 expected, deviation 7.3


def test_captions_are_pairs_of_their_own_and_group_by_picture(shapes):
    base = open_data(folder(shapes)).select([0, 9, 17])
    dataset = Dataset(
        "x", base.keys, base.read, captions=[["a", "b"], ["c"], ["d", "e"]], groups=[4, 7, 4]
    )
    settings = folder(shapes, task="captions")
    pairs = pairs_of(settings, dataset=dataset)
    found = [(pairs[0, i]["text"], pairs[0, i]["group"]) for i in range(len(pairs))]
    assert found == [("a", 4), ("b", 4), ("c", 7), ("d", 4), ("e", 4)]


def test_an_item_is_a_function_of_seed_epoch_and_number(shapes):
    augmentation = {"crop": [0.5, 1.0], "flip": 0.5, "rotate": 20, "colour": 0.3, "grey": 0.2}
    settings = folder(shapes, augmentation=augmentation)
    one, two, other = pairs_of(settings, 3), pairs_of(settings, 3), pairs_of(settings, 4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = one[2, 5]
    assert torch.equal(torch.get_rng_state(), state)  # nothing else is disturbed
    two[0, 1]
    torch.manual_seed(1)
    assert torch.equal(two[2, 5]["image"], first["image"])
    for different in (one[3, 5], other[2, 5]):
        assert not torch.equal(different["image"], first["image"])


def test_without_augmentation_a_picture_is_the_evaluation_picture(shapes, tiny_folder):
    """Square pictures, whole crops: training and evaluation see the same pixels."""
    square = open_data(folder(shapes)).read(3).crop((0, 0, 32, 32))
    plain = Augmentation(crop=(1.0, 1.0))
    trained = Pixels(tiny.MEAN, tiny.STD, torch.device("cpu"))(
        training_transform(plain, CFG)(square)
    )
    expected = models.load(tiny_folder).preprocess(square)
    torch.testing.assert_close(trained, expected, atol=1e-6, rtol=0)


def test_augmentations_change_pictures_within_their_range(shapes):
    picture = open_data(folder(shapes)).read(3).resize((32, 32))
    plain = training_transform(Augmentation(crop=(1.0, 1.0)), CFG)(picture)
    for change in ({"flip": 1.0}, {"rotate": 30}, {"colour": 0.5}, {"grey": 1.0}):
        torch.manual_seed(1)
        settings = Augmentation(crop=(1.0, 1.0), **change)
        changed = training_transform(settings, CFG)(picture)
        assert changed.shape == (3, 32, 32)
        assert not torch.equal(changed, plain), change
        if "flip" in change:
            assert torch.equal(changed, plain.flip(-1))
        if "grey" in change:
            assert torch.equal(changed.amax(0), changed.amin(0))


def test_templates():
    openai = templates_of("openai")
    assert len(openai) == 80
    assert [t.replace("{}", "cat") for t in openai] == [t("cat") for t in OPENAI_IMAGENET_TEMPLATES]
    assert templates_of(["a {}"]) == ["a {}"]


# ------------------------------------------------------------------ batches


def test_equal_texts_of_a_batch_are_encoded_once(tokenizer):
    texts = ["b", "a", "b", "c", "a"]
    items = [
        {"image": torch.full((3, 2, 2), float(i)), "text": text, "group": i * 10, "own": False}
        for i, text in enumerate(texts)
    ]
    batch = collate(items, tokenizer)
    assert torch.equal(batch["tokens"], tokenizer(["b", "a", "c"]))
    assert torch.equal(batch["tokens"][batch["text_of"]], tokenizer(texts))
    assert batch["images"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert batch["groups"].tolist() == [0, 10, 20, 30, 40]
    assert batch["broken"] == []


def test_a_batch_leaves_broken_pictures_out_and_names_them(tokenizer):
    good = {"image": torch.zeros(3, 2, 2), "text": "a", "group": 3, "own": False}
    batch = collate([{"broken": "x.png"}, good, {"broken": "y.png"}], tokenizer)
    assert batch["broken"] == ["x.png", "y.png"]
    assert len(batch["images"]) == len(batch["text_of"]) == 1
    assert batch["groups"].tolist() == [3]
    empty = collate([{"broken": "x.png"}], tokenizer)
    assert len(empty["groups"]) == 0
    assert empty["broken"] == ["x.png"]


def test_a_picture_that_cannot_be_read_is_a_message(shapes):
    def read(index):
        raise BrokenInput("Picture cannot be read: here")

    dataset = Dataset("x", ["a"], read, labels=[0], class_names=["a"], groups=[0])
    assert pairs_of(folder(shapes), dataset=dataset)[0, 0] == {
        "broken": "Picture cannot be read: here"
    }


def test_what_workers_get_can_be_pickled(shapes, tokenizer):
    """From Python 3.14 on, and on macOS, a worker is no fork of its parent."""
    settings = folder(shapes, augmentation={"rotate": 20, "flip": 0.5, "colour": 0.1, "grey": 0.1})
    pairs = pairs_of(settings, dataset=open_data(settings).select([0, 1]))
    copy = pickle.loads(pickle.dumps(pairs))
    assert torch.equal(copy[1, 0]["image"], pairs[1, 0]["image"])
    batched = pickle.loads(pickle.dumps(functools.partial(collate, tokenizer=tokenizer)))
    expected = collate([pairs[0, 0]], tokenizer)["tokens"]
    assert torch.equal(batched([copy[0, 0]])["tokens"], expected)


@pytest.mark.parametrize("source", ["folder", "emoji"])
def test_workers_change_nothing(shapes, tokenizer, source):
    if source == "folder":
        settings = folder(shapes, templates=["a {}", "the {}"], augmentation={"rotate": 20})
    else:
        settings = EmojiData(source="emoji", task="captions", split="test")
    pairs = pairs_of(settings)
    batches = []
    for workers in (0, 1, 2):
        order = BatchOrder(24, 8, epochs=2, seed=0, start_step=1)
        torch.manual_seed(workers)
        batches.append(list(loader(pairs, order, tokenizer, workers)))
    assert len(batches[0]) == 5
    for other in batches[1:]:
        for one, two in zip(batches[0], other, strict=True):
            assert one.keys() == two.keys()
            for key in ("images", "tokens", "text_of", "groups", "own"):
                assert torch.equal(one[key], two[key]), key
