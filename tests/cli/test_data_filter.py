"""radapter data filter: scores by hand, lists that recipes read, stopped and gone on."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from radapter import models
from radapter import recipe as recipes
from radapter.data import open_data
from radapter.evaluation import encoding
from radapter.inference import filtering

WORDS = ["a red square", "a blue circle here", "red", "a red square"]


def shade(number):
    return (40 * number, 255 - 30 * number, 90)


@pytest.fixture
def listed(tmp_path, tiny_folder):
    """A recipe of a table of five pictures, the last one broken, the fourth a copy of the first."""
    for number in range(5):
        Image.new("RGB", (40, 32), shade(number)).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "3.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    rows = [f"{i}.png,{text}" for i, text in enumerate([*WORDS, "a green tree"])]
    (tmp_path / "list.csv").write_text("\n".join(["filepath,title", *rows]) + "\n")
    return write(tmp_path, tiny_folder, {"source": "table", "path": "list.csv"})


def write(folder, model, data):
    path = folder / "list.yaml"
    content = {"name": "list", "model": str(model), "method": {"name": "r-adapter"}}
    path.write_text(json.dumps(content | {"data": data | {"task": "captions"}}))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def cosine(loaded, pictures, text):
    """Of the mean of unit features and the text, in NumPy."""
    with torch.no_grad():
        pixels = torch.stack([loaded.preprocess(picture) for picture in pictures])
        own = loaded.model.encode_image(pixels).double().numpy()
        words = loaded.model.encode_text(loaded.tokenizer([text])).double().numpy()[0]
    mean = (own / np.linalg.norm(own, axis=1, keepdims=True)).mean(axis=0)
    return mean @ words / np.linalg.norm(mean) / np.linalg.norm(words)


def test_what_goes_what_stays_and_why(cli, listed, tmp_path, tiny_folder):
    outcome = cli("data", "filter", listed, "--out", "kept", "--drop", "words<2", "--json")
    assert outcome.code == 4
    report = json.loads(outcome.out)
    assert "1 of 5 pictures cannot be read" in report["error"]["message"]
    assert {why: of["count"] for why, of in report["dropped"].items()} == {
        "broken": 1, "copy": 1, "words<2": 1
    }  # fmt: skip
    assert (report["pairs"], report["pictures"]) == ({"all": 5, "kept": 2}, {"all": 5, "kept": 2})
    kept, dropped = lines(tmp_path / "kept" / "kept.jsonl"), lines(tmp_path / "kept/dropped.jsonl")
    assert [(row["filepath"], row["title"]) for row in kept] == [
        ("0.png", "a red square"), ("1.png", "a blue circle here")
    ]  # fmt: skip
    assert {row["filepath"]: row["reason"] for row in dropped} == {
        "2.png": "words<2", "3.png": "copy", "4.png": "broken"
    }  # fmt: skip
    loaded = models.load(tiny_folder)
    for number, row in enumerate(kept):
        by_hand = cosine(loaded, [Image.new("RGB", (40, 32), shade(number))], row["title"])
        assert row["score"] == pytest.approx(by_hand, abs=1e-5)
    changed = [f"{key}={value}" for key, value in report["changes"].items()]
    assert {entry.partition("=")[0] for entry in changed} == {"data.path", "data.root"}
    opened = open_data(recipes.load(listed, changed).data)
    assert (opened.keys, opened.captions) == (["0.png", "1.png"], [[t] for t in WORDS[:2]])
    opened.read(0)


def test_a_share_of_the_scores_and_a_dry_run(cli, listed, tmp_path):
    wanted = ("data", "filter", listed, "--drop", "score<60%", "--json")
    outcome = cli(*wanted, "--dry-run", "--sample", "4")
    assert outcome.code in (0, 4)
    assert json.loads(outcome.out)["pictures"]["all"] == 4
    assert not (tmp_path / "kept").exists()
    report = json.loads(cli(*wanted, "--out", "kept").out)
    rows = lines(tmp_path / "kept" / "kept.jsonl") + lines(tmp_path / "kept" / "dropped.jsonl")
    limit = report["limits"]["score<60%"]
    scored = [row for row in rows if "score" in row]
    below = [row for row in scored if row["score"] < limit - 1e-6]
    assert 1 <= len(below) <= 2  # of four: the copy ties with what it is of
    assert {row["filepath"] for row in below} == {
        row["filepath"] for row in rows if row.get("reason") == "score<60%"
    }
    assert sorted(row["score"] for row in scored)[2] == pytest.approx(limit, abs=1e-6)
    outcome = cli("data", "filter", listed, "--out", "kept", "--drop", "words<50")
    assert (outcome.code, "No pair of" in outcome.err, "words<50" in outcome.err) == (4, True, True)


def test_rewritten_captions_take_the_place_of_a_pictures_own(cli, listed, tmp_path):
    rewritten = [("2.png", "a large red square"), ("9.png", "nothing")]
    rows = [json.dumps({"filepath": key, "title": text}) for key, text in rewritten]
    (tmp_path / "new.jsonl").write_text("\n".join(rows))
    outcome = cli(
        "data", "filter", listed, "--out", "kept", "--captions", "new.jsonl", "--drop", "words<2"
    )
    texts = {row["filepath"]: row["title"] for row in lines(tmp_path / "kept" / "kept.jsonl")}
    assert texts == {"0.png": WORDS[0], "1.png": WORDS[1], "2.png": "a large red square"}
    assert "captions of 1 pictures" in outcome.out
    assert "9.png" in outcome.err


def test_clips_are_scored_by_the_mean_of_their_frames(cli, tmp_path, tiny_folder):
    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (32, 32), shade(number + 3 * (name == "b")))
            picture.save(tmp_path / "clips" / name / f"{number}.png")
    frames = {"a": ["2.png", "0.png"], "b": ["1.png"]}
    rows = [{"video": key, "caption": f"clip {key}", "files": frames[key]} for key in "ab"]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"source": "videos", "root": "clips", "path": "clips.jsonl", "frames_column": "files"}
    recipe = write(tmp_path, tiny_folder, data)
    outcome = cli("data", "filter", recipe, "--out", "kept", "--json")
    assert outcome.code == 0, outcome.err
    kept = lines(tmp_path / "kept" / "kept.jsonl")
    loaded = models.load(tiny_folder)
    pictures = [Image.new("RGB", (32, 32), shade(number)) for number in (2, 0)]
    assert kept[0].pop("score") == pytest.approx(cosine(loaded, pictures, "clip a"), abs=1e-5)
    assert kept[0] == rows[0]
    changed = [f"{key}={value}" for key, value in json.loads(outcome.out)["changes"].items()]
    assert open_data(recipes.load(recipe, changed).data).keys == ["a", "b"]


def test_a_stopped_command_goes_on(cli, listed, monkeypatch):
    monkeypatch.setattr(filtering, "PART", 2)
    encoded = []
    batches = encoding.encode_batches

    def counting(runtime, preprocess, read, places, **more):
        if len(encoded) == 1:
            raise KeyboardInterrupt
        encoded.append(len(places))
        yield from batches(runtime, preprocess, read, places, **more)

    monkeypatch.setattr(encoding, "encode_batches", counting)
    assert cli("data", "filter", listed, "--out", "kept").code == 130
    encoded[:] = [0, 0]
    assert cli("data", "filter", listed, "--out", "kept").code == 4
    assert encoded == [0, 0, 2, 1]  # the first two are in the cache


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"source": "emoji"}, "data.source emoji has no list that could be filtered"),
        ({"source": "videos", "root": "."}, "data.source videos has no list"),
    ],
)
def test_what_has_no_list_is_refused(cli, tmp_path, tiny_folder, data, said):
    outcome = cli("data", "filter", write(tmp_path, tiny_folder, data), "--out", "kept")
    assert (outcome.code, said in outcome.err) == (2, True), outcome.err
    assert "Name a recipe" in cli("data", "filter").err
