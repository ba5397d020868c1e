"""What commands leave out of the data is said, in words and in JSON, and kept in the run."""

import json
import os
import shutil

import pytest
import tiny
from PIL import Image

from radapter.run import find


@pytest.fixture
def messy(tmp_path):
    """Pictures with everything beside them that people have."""
    root = tiny.draw_shapes(tmp_path / "pictures", each=6)
    first = root / "red_square"
    (first / ".ipynb_checkpoints").mkdir()
    shutil.copy(first / "00.png", first / ".ipynb_checkpoints" / "00-checkpoint.png")
    shutil.copy(first / "00.png", first / "00 (1).png")
    shutil.copy(first / "00.png", root / "beside.png")
    (first / "x.heic").write_bytes(b"ftyp")
    (root / "single").mkdir()
    shutil.copy(first / "01.png", root / "single" / "01.png")
    return root


def test_training_ends_with_what_it_left_out(cli, messy, tiny_folder, tmp_path):
    (messy / "blue_circle" / "02.png").write_bytes(b"no picture")
    (tmp_path / "r.yaml").write_text(tiny.text(tiny_folder, messy))
    outcome = cli("train", "r.yaml", "data.broken_images=1", "--json")
    content = json.loads(outcome.out)
    account = content["data"]["train"]
    assert account["pictures"] == 20
    assert {why: facts["count"] for why, facts in account["left_out"].items()} == {
        "ending": 1,
        "hidden": 1,
        "in no class": 1,
        "broken": 1,
    }
    assert account["left_out"]["ending"]["endings"] == {".heic": 1}
    assert account["left_out"]["broken"]["first"][0].startswith(
        str(messy / "blue_circle" / "02.png")
    )
    run = find()
    kept = json.loads((run.path / "data.json").read_text())
    assert kept["train"] == account
    assert len(kept["broken"]) == 1
    # A finished run says it again.
    outcome = cli("train", "--resume")
    assert "left out: 1 broken (" in outcome.err
    assert "left out: 1 in no class (beside.png)" in outcome.err
    assert "left out: 1 in no class (beside.png)" in cli("runs", "show").out


def test_a_dry_run_says_it_with_copies_and_classes_too_small(cli, messy, tiny_folder, tmp_path):
    (tmp_path / "r.yaml").write_text(tiny.text(tiny_folder, messy))
    outcome = cli("train", "r.yaml", "data.hold_out=0.3", "--dry-run")
    assert outcome.code == 0
    assert "left out: 1 with endings that are not read: 1 .heic (red_square/x.heic)" in outcome.err
    assert "1 class has a single picture" in outcome.err
    assert "duplicates: " in outcome.err
    assert outcome.err.count("left out: 1 hidden") == 1
    plan = json.loads(cli("train", "r.yaml", "data.hold_out=0.3", "--dry-run", "--json").out)
    copies = plan["plan"]["data"]["copies"]
    assert sum(facts["count"] for facts in copies.values()) == 2


def test_init_says_it_too(cli, messy):
    outcome = cli("init", str(messy), "--name", "mine", "--json")
    assert outcome.code == 0, outcome.out
    said = outcome.out
    assert "1 class has a single picture" in said
    assert "duplicates: " in said


def test_the_data_of_a_recipe_is_checked(cli, messy, tiny_folder, tmp_path):
    (tmp_path / "r.yaml").write_text(tiny.text(tiny_folder, messy))
    outcome = cli("data", "check", "r.yaml")
    assert outcome.code == 0
    assert "train: 20 pictures of folder" in outcome.out
    assert "left out: 1 in no class (beside.png)" in outcome.out
    assert "duplicates: 2 are exact copies of others" in outcome.out
    content = json.loads(cli("data", "check", "r.yaml", "--json").out)
    assert content["data"]["copies"]["train"]["count"] == 2


def test_nothing_left_out_is_nothing_said(cli, tiny_folder, shapes, tmp_path):
    (tmp_path / "r.yaml").write_text(tiny.text(tiny_folder, shapes))
    outcome = cli("train", "r.yaml", "--dry-run")
    assert "left out" not in outcome.err
    assert "duplicates" not in outcome.err


def test_predict_embed_and_search_say_it(cli, messy, tiny_folder, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    model = ("--model", str(tiny_folder))
    outcome = cli("predict", str(messy), "--classes", "names.txt", *model)
    assert "left out: 1 hidden (red_square/.ipynb_checkpoints/00-checkpoint.png)" in outcome.err
    content = json.loads(cli("predict", str(messy), "--classes", "names.txt", *model, "--json").out)
    assert {why: facts["count"] for why, facts in content["left_out"].items()} == {
        "ending": 1,
        "hidden": 1,
    }
    embedded = cli("embed", str(messy), "--out", "f.safetensors", *model)
    assert "left out: 1 with endings" in embedded.err
    again = json.loads(cli("embed", str(messy), "--out", "f.safetensors", *model, "--json").out)
    assert again["left_out"] == content["left_out"]
    assert again["facts"]["reading"] == {"orientation": "apply", "transparency": "white"}
    found = cli("search", "a cat", "--in", "f.safetensors", *model)
    assert "f.safetensors: left out: 1 hidden" in found.err


def test_names_that_are_not_utf8_are_predicted_and_found(cli, tiny_folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    os.mkdir(tmp_path / "photos")
    try:
        os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + b"/photos/caf\xe9.png")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    model = ("--model", str(tiny_folder))
    for arguments in (
        ("predict", "photos", "--classes", "names.txt"),
        ("predict", "photos", "--classes", "names.txt", "--jsonl"),
        ("embed", "photos", "--out", "f.safetensors"),
        ("search", "a cat", "--in", "f.safetensors"),
    ):
        outcome = cli(*arguments, *model)
        assert outcome.code == 0, outcome.err
    assert "caf" in outcome.out
