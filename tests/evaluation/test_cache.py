"""Kept features: the same bits as computed ones, found for equal things only, whole, bounded."""

import dataclasses
import gc
import multiprocessing
import os
import random
import time
import warnings
import weakref

import pytest
import tiny as tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_bundle import exported, tiny

from radapter import models
from radapter.data.dataset import Dataset
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import cache as caching
from radapter.evaluation.cache import Cache, user_cache
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.opened import from_loaded, with_runtime
from radapter.runtimes.pytorch import PyTorchRuntime

__all__ = ["exported", "tiny"]


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return models.load(tiny_folder)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 10**9)


@pytest.fixture
def table(tmp_path):
    """Pictures with a class, one of which cannot be read."""
    root = tiny_models.draw_shapes(tmp_path / "shapes", each=3)
    (root / "red_square" / "01.png").write_bytes(b"not a picture")
    rows = [f"{p.relative_to(root)},{p.parent.name}" for p in sorted(root.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["filepath,title", *rows]))
    return TableData(
        source="table",
        path=str(tmp_path / "t.csv"),
        root=str(root),
        split="all",
        broken_images=1,
    )


def suite_of(data, name="mine", tasks=("classification", "retrieval"), templates=("a {}", "{}")):
    facts = {"name": "set", "role": "in-distribution", "data": data}
    return Suite(name=name, templates=list(templates), tasks=list(tasks), datasets=[facts])


class Counting(PyTorchRuntime):
    """Says how many batches were encoded."""

    def __init__(self, loaded):
        super().__init__(loaded)
        self.pictures = self.texts = 0

    def encode_image(self, pixels):
        self.pictures += 1
        return super().encode_image(pixels)

    def encode_text(self, tokens):
        self.texts += 1
        return super().encode_text(tokens)


def score(loaded, suite, cache, **more):
    runtime = Counting(loaded)
    found = evaluate(suite, with_runtime(runtime, loaded), cache=cache, **more)
    return found, (runtime.pictures, runtime.texts)


def same(one, two):
    """Equal bit by bit: features, predictions and all that is reported."""
    assert one.result() == two.result()
    assert list(one.text_features) == list(two.text_features)
    pairs = [(values, two.text_features[key]) for key, values in one.text_features.items()]
    for name, ours in one.sets.items():
        theirs = two.sets[name]
        pairs += [(ours.image_features, theirs.image_features)]
        pairs += [(ours.predictions, theirs.predictions)] * (ours.predictions is not None)
        for metric, scored in ours.metrics.items():
            assert (scored.scores == theirs.metrics[metric].scores).all()
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    return True


def test_kept_features_are_the_computed_ones_bit_by_bit(loaded, table, cache):
    reports = []
    suite = suite_of(table)
    without, encoded = score(loaded, suite, None, batch_size=4)
    assert encoded == (3, 2)
    assert not cache.folder.exists()
    first, encoded = score(loaded, suite, cache, batch_size=4)
    assert encoded == (3, 2)
    again, encoded = score(
        loaded, suite, cache, batch_size=4, on_progress=lambda *now: reports.append(now)
    )
    assert encoded == (0, 0)
    assert reports == [(9, 9)]
    assert same(without, first)
    assert same(without, again)
    assert again.sets["set"].facts["broken"] == 1
    assert len(list(cache.folder.iterdir())) == 3  # pictures, captions, a head


def test_a_second_suite_encodes_nothing_again(loaded, table, cache):
    one = suite_of(table, tasks=["classification"])
    score(loaded, one, cache)
    other = suite_of(table, "other", tasks=["classification"], templates=["the {}"])
    assert score(loaded, other, cache)[1] == (0, 1)  # other prompts
    assert score(loaded, suite_of(table, "third"), cache)[1] == (0, 1)  # captions, and no prompts


def test_a_limit_on_broken_pictures_holds_for_kept_features_too(loaded, table, cache):
    score(loaded, suite_of(table), cache)
    strict = table.model_copy(update={"broken_images": 0})
    with pytest.raises(BrokenInput, match=r"red_square/01.png.*\n.*broken_images allows 0"):
        score(loaded, suite_of(strict), cache)


def test_what_could_not_be_read_is_looked_at_again(loaded, table, cache, tmp_path, monkeypatch):
    """As when a disk was away: the picture is back, and neither sizes nor times tell."""
    monkeypatch.setattr(caching, "SAMPLE", 1)
    root, suite = tmp_path / "shapes" / "red_square", suite_of(table)
    opened = {
        task: dataclasses.replace(dataset, stamp=lambda index: (1, 1, 1))
        for task, dataset in suite.open()["set"].items()
    }
    score(loaded, suite, cache, opened={"set": opened})
    assert score(loaded, suite, cache, opened={"set": opened})[1] == (0, 0)
    (root / "01.png").write_bytes((root / "00.png").read_bytes())
    found, encoded = score(loaded, suite, cache, opened={"set": opened})
    assert encoded == (1, 0)
    assert (found.sets["set"].facts["broken"], found.sets["set"].facts["pictures"]) == (0, 9)
    assert score(loaded, suite, cache, opened={"set": opened})[1] == (0, 0)


@pytest.mark.parametrize(
    "change", ["content", "unsampled", "time", "size", "name", "order", "fewer"]
)
def test_other_pictures_are_encoded(loaded, table, cache, tmp_path, change, monkeypatch):
    if change == "unsampled":
        monkeypatch.setattr(caching, "SAMPLE", 1)
    score(loaded, suite_of(table), cache)
    number = "02" if change == "unsampled" else "00"
    path = tmp_path / "shapes" / "blue_circle" / f"{number}.png"
    lines = (tmp_path / "t.csv").read_text().splitlines()
    facts = path.stat()
    if change in ("content", "unsampled"):  # a sample of pixels sees it, or the time of the file
        other = path.with_name("01.png").read_bytes()
        content = path.read_bytes()
        path.write_bytes(other[: len(content)].ljust(len(content), b"\0"))
        os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
        assert path.stat().st_size == facts.st_size
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    elif change == "name":
        path.rename(path.with_name("zero.png"))
        lines = [line.replace("blue_circle/00", "blue_circle/zero") for line in lines]
    elif change == "order":
        lines[1:3] = [lines[2], lines[1]]
    elif change == "fewer":
        lines = lines[:-1]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found, encoded = score(loaded, suite_of(table), cache)
    assert encoded[0] == 1
    assert same(found, score(loaded, suite_of(table), None)[0])


def test_pictures_that_were_moved_are_the_same(loaded, table, cache, tmp_path):
    score(loaded, suite_of(table), cache)
    (tmp_path / "shapes").rename(tmp_path / "moved")
    moved = table.model_copy(update={"root": str(tmp_path / "moved")})
    assert score(loaded, suite_of(moved), cache)[1] == (0, 0)


def with_config(loaded, **parts):
    """The same weights, used in another way."""
    config = {name: loaded.config[name] | parts.get(name, {}) for name in loaded.config}
    return dataclasses.replace(loaded, config=config)


OTHERS = {
    "another tokenizer": (0, 2),
    "another preprocessing": (1, 0),
    "another architecture": (1, 2),
    "other weights": (1, 2),
    "another batch size": (2, 0),
    "another number of threads": (1, 2),
    "another version": (1, 2),
    "another encoder": (1, 2),
}


@pytest.mark.parametrize("change", OTHERS)
def test_what_the_bits_depend_on_is_in_the_key(loaded, table, cache, monkeypatch, change):
    score(loaded, suite_of(table), cache)
    other, more = loaded, {}
    if change == "another tokenizer":
        other = dataclasses.replace(
            loaded, tokenizer=lambda texts: loaded.tokenizer([text.upper() + "!" for text in texts])
        )
    elif change == "another preprocessing":
        other = with_config(loaded, preprocess_cfg={"interpolation": "bilinear"})
    elif change == "another architecture":
        other = with_config(loaded, model_cfg={"quick_gelu": True})
    elif change == "other weights":
        other = tiny_models.build(seed=5)
    elif change == "another batch size":
        more = {"batch_size": 8}
    elif change == "another number of threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 31)
    elif change == "another version":
        found = caching.versions() | {"Pillow": "0"}
        monkeypatch.setattr(caching, "versions", lambda: found)
    elif change == "another encoder":
        monkeypatch.setattr(caching, "ENCODER", 99)
    assert score(other, suite_of(table), cache, **more)[1] == OTHERS[change]
    assert score(other, suite_of(table), cache, **more)[1] == (0, 0)


def test_the_same_model_opened_in_another_way_shares_features(loaded, table, cache, tiny_folder):
    from radapter.inference import open_model

    score(loaded, suite_of(table), cache)
    opened = open_model(tiny_folder)
    before = sorted(cache.folder.iterdir())
    evaluate(suite_of(table), opened, cache=cache)
    assert sorted(cache.folder.iterdir()) == before


def test_a_set_that_cannot_say_what_it_is_read_from_is_not_kept(loaded, cache, shapes):
    picture = Dataset("memory", ["a"], lambda i: tiny_models.Image.new("RGB", (40, 40)), groups=[0])
    (key,) = caching.pictures_keys(
        [PyTorchRuntime(loaded)], loaded.config["preprocess_cfg"], [("a", picture, 0)], 64
    )
    assert key is None
    caching.write(cache, key, torch.ones(1, 1))
    assert caching.read(cache, key) is None
    assert not cache.folder.exists()


def test_an_exported_engine_is_measured_each_time(exported, tiny, table, cache, monkeypatch):
    """Parity compares what the engine gives: an answer from a cache would vouch for itself."""
    suite = suite_of(table)
    evaluate(suite, from_loaded(tiny), cache=cache)
    kept = {path: path.read_bytes() for path in cache.folder.iterdir()}
    asked, runs = [], []
    monkeypatch.setattr(caching, "read", lambda cache, key: asked.append(key))
    engine = OnnxRuntime(exported)
    pictures, texts = engine.encode_image, engine.encode_text
    monkeypatch.setattr(engine, "encode_image", lambda x: runs.append("image") or pictures(x))
    monkeypatch.setattr(engine, "encode_text", lambda x: runs.append("text") or texts(x))
    for _ in range(2):
        evaluate(suite, with_runtime(engine, tiny), cache=cache)
    assert runs == ["image", "text", "text"] * 2
    assert set(asked) == {None}
    assert {path: path.read_bytes() for path in cache.folder.iterdir()} == kept


# ---------------------------------------------------------------- entries


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def features(path):
    return load_file(path)["features"].clone()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "a longer one": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 8),
    "no safetensors": lambda path: path.write_bytes(b"\x80\x04 a pickle, say"),
    "a huge header": lambda path: path.write_bytes(b"\xff" * 64),
    "a flipped bit of a feature": lambda path: flip(path, -3),
    "a flipped bit of the key": lambda path: flip(path, path.read_bytes().index(b"batch") + 1),
    "another dtype": lambda path: save_file(
        {"features": features(path).half()}, path, metadata={"radapter": "{}"}
    ),
    "no metadata": lambda path: save_file({"features": features(path)}, path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_said_and_made_anew(loaded, table, cache, damage):
    suite = suite_of(table)
    expected, _ = score(loaded, suite, cache)
    (path,) = [p for p in cache.folder.iterdir() if b'\\"pictures\\"' in p.read_bytes()[:4000]]
    whole = features(path)
    DAMAGE[damage](path)
    with pytest.warns(UserWarning, match=f"{path.name} was damaged .*computed again"):
        found, encoded = score(loaded, suite, cache)
    assert encoded == (1, 0)
    assert same(found, expected)
    assert torch.equal(features(path), whole)
    assert score(loaded, suite, cache)[1] == (0, 0)


def test_another_whole_entry_is_not_taken_for_it(cache):
    caching.write(cache, {"a": 1}, torch.ones(2, 3))
    caching.write(cache, {"a": 2}, torch.zeros(2, 3))
    paths = [caching._path(cache, {"a": number}) for number in (1, 2)]
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.warns(UserWarning, match="damaged"):
        assert caching.read(cache, {"a": 1}) is None
    assert not paths[0].exists()
    assert torch.equal(caching.read(cache, {"a": 2})[0], torch.zeros(2, 3))


def test_the_least_recently_used_go_first(tmp_path):
    size = 4 * 1000 + 400
    cache = Cache(tmp_path, 3 * size)
    keys = [{"entry": number} for number in range(5)]

    def there():
        return [caching._path(cache, key).exists() for key in keys]

    for age, key in zip((30, 20, 10), keys, strict=False):
        caching.write(cache, key, torch.full((1000, 1), float(age)))
        os.utime(caching._path(cache, key), (time.time() - age,) * 2)
    assert there() == [True, True, True, False, False]
    assert caching.read(cache, keys[0]) is not None  # now the last used
    caching.write(cache, keys[3], torch.ones(1000, 1))
    assert there() == [True, False, True, True, False]
    caching.write(cache, keys[4], torch.ones(5000, 1))  # larger than all that is allowed
    assert there() == [True, False, True, True, False]
    caching.write(cache, keys[4], torch.ones(2000, 1))
    assert there() == [False, False, False, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.limit


def test_what_a_killed_process_left_goes(cache):
    caching.write(cache, {"a": 1}, torch.ones(1, 1))
    old, new = cache.folder / ".x.safetensors.aa.tmp", cache.folder / ".y.safetensors.bb.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    caching.write(cache, {"a": 2}, torch.ones(1, 1))
    assert not old.exists()
    assert new.exists()  # another process may be writing it


def test_a_folder_that_cannot_be_written_is_a_warning(loaded, table, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.warns(UserWarning, match="Not cached in"):
            found, _ = score(loaded, suite_of(table), Cache(folder, 10**9))
        assert same(found, score(loaded, suite_of(table), None)[0])


def use(cache, seed):
    """Read, write and trim the same few entries as others do meanwhile."""
    warnings.simplefilter("error")
    chosen, found = random.Random(seed), 0
    for _ in range(300):
        number = chosen.randrange(10)
        key, features = {"entry": number}, torch.full((10_000, 1), float(number))
        kept = caching.read(cache, key)
        if kept is None:
            caching.write(cache, key, features, {"broken": [number]})
        else:
            assert torch.equal(kept[0], features)
            assert kept[1] == {"broken": [number]}
            found += 1
    assert found > 40


def test_several_processes_at_once(tmp_path):
    """None fails, and none sees half an entry."""
    cache = Cache(tmp_path / "cache", 5 * 45_000)
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=use, args=(cache, seed)) for seed in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
    assert [process.exitcode for process in started] == [0, 0, 0]
    files = list(cache.folder.iterdir())
    assert all(path.suffix == ".safetensors" for path in files)
    assert 0 < sum(path.stat().st_size for path in files) <= cache.limit


# ---------------------------------------------------------------- where it is


def test_where_the_users_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("RADAPTER_CACHE", str(tmp_path / "own"))
    assert user_cache() == Cache(tmp_path / "own", 8 * 10**9)
    monkeypatch.setenv("RADAPTER_CACHE_GB", "0.5")
    assert user_cache().limit == 5 * 10**8
    monkeypatch.setenv("RADAPTER_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache().folder == tmp_path / "radapter"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert user_cache().folder == tmp_path / "me" / ".cache" / "radapter"
    monkeypatch.setenv("RADAPTER_CACHE_GB", "0")
    assert user_cache() is None
    for wrong in ("many", "-1", "inf", "nan"):
        monkeypatch.setenv("RADAPTER_CACHE_GB", wrong)
        with pytest.raises(UsageError, match=f"RADAPTER_CACHE_GB.*'{wrong}'"):
            user_cache()


def test_tests_have_a_cache_of_their_own():
    folder = user_cache().folder
    assert not folder.is_relative_to(os.path.expanduser("~/.cache"))


def test_another_way_of_reading_is_another_key_where_no_sampled_picture_shows_it(
    loaded, table, cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(caching, "SAMPLE", 1)
    path = tmp_path / "shapes" / "red_square" / "02.png"  # not the first, which alone is sampled
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(path)
    picture.putpixel((0, 0), (0, 0, 0))
    picture.save(path, exif=exif)
    found = {
        how: score(loaded, suite_of(table.model_copy(update={"orientation": how})), cache)
        for how in ("apply", "ignore")
    }
    assert found["ignore"][1][0] > 0  # pictures were encoded again
    apply, ignore = (found[how][0].sets["set"].image_features for how in ("apply", "ignore"))
    assert not torch.equal(apply, ignore)


def test_prompts_are_tokenized_once_for_all_forms_of_a_model_and_keep_none_alive(tiny_folder):
    loaded = models.load(tiny_folder)
    calls = []
    tokenizer = loaded.tokenizer
    loaded.tokenizer = lambda texts: calls.append(texts) or tokenizer(texts)
    for _ in range(3):
        opened = from_loaded(loaded)
        caching.texts_key(opened.runtime, opened.tokenizer, ["a cat"])
    assert len(calls) == 1
    gone = weakref.ref(loaded.model)
    del loaded, opened
    gc.collect()
    assert gone() is None
