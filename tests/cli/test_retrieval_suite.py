"""radapter data and radapter eval on the suite `retrieval`, and on one with small counts."""

import copy
import json
import re

import pytest
import trees
from rich.console import Console

from radapter import models
from radapter.reporting.result_tables import evaluation_tables

SPLITS = {
    "flickr30k": {"train": 12, "val": 4, "test": 4},
    "coco": {"train": 5, "restval": 5, "val": 5, "test": 5},
}
CAPTIONS = {"flickr30k": 20, "coco": {"vse++": 25, "clip-benchmark": 26}}


def described(name):
    sizes = SPLITS[name]
    data = {"source": "karpathy", "path": f"{name}/dataset_{name}.json", "split": "test"}
    published = {"pictures": sizes["test"], "captions": CAPTIONS[name], "splits": sizes,
                 "where": f"https://{name}", "licence": "test only", "folder": name}  # fmt: skip
    return {"name": name, "role": "zero-shot", "data": data, "published": published}


SUITE = {
    "name": "mine",
    "tasks": ["retrieval"],
    "identical_captions": "apart",
    "datasets": [described("flickr30k"), described("coco")],
}


@pytest.fixture
def root(tmp_path):
    trees.flickr30k(tmp_path / "data" / "flickr30k")
    trees.coco(tmp_path / "data" / "coco")
    return tmp_path / "data"


@pytest.fixture
def suite_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(SUITE))
    return path


# ------------------------------------------------------------------ data


def test_list_says_what_is_there(cli, root):
    (root / "coco").rename(root / "elsewhere")
    outcome = cli("data", "list", "retrieval", "--data-root", root)
    assert outcome.code == 0, outcome.err
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert (
        "partial  4 pictures, 20 captions, 5 each (published: 1,000 in flickr30k)"
        in (lines["flickr30k"])
    )
    assert "missing   (published: 5,000 in coco)" in lines["coco"]
    (root / "flickr30k" / "flickr30k-images" / f"{1000092795 + 7919 * 17}.jpg").unlink()
    outcome = cli("data", "list", "retrieval", "--data-root", root, "--json")
    found = json.loads(outcome.out)["suites"]["retrieval"]["datasets"]
    assert {name: facts["status"] for name, facts in found.items()} == {
        "flickr30k": "broken",  # one picture of four is gone
        "coco": "missing",
    }


def test_check_finds_everything_at_once(cli, root):
    path = root / "coco" / "dataset_coco.json"
    content = json.loads(path.read_text())
    test = [image for image in content["images"] if image["split"] == "test"]
    del test[1]["sentences"][3:]
    next(image for image in content["images"] if image["split"] == "val")["split"] = "restval"
    path.write_text(json.dumps(content))
    broken = root / "coco" / "val2014" / test[2]["filename"]
    broken.write_bytes(broken.read_bytes()[:200])
    outcome = cli("data", "check", "retrieval", "--data-root", root)
    assert outcome.code == 4
    lines = [line.strip() for line in outcome.out.splitlines()]
    few = f"val2014/{test[1]['filename']} (3)"
    assert f"5 of 5,000 pictures, 23 of 25,000 captions; fewer captions than 5: {few}" in lines
    assert "4 of 1,000 pictures, 20 of 5,000 captions" in lines
    assert any("restval 6 of 30,504, val 4 of 5,000, test 5 of 5,000" in line for line in lines)
    assert any(line.startswith(f"Picture cannot be read: {broken}") for line in lines)
    assert any(line.startswith("published: https://shannon.cs.illinois.edu") for line in lines)
    assert "licence:   pictures under Flickr's terms, captions CC BY 4.0" in lines
    assert "folder:    coco, under the data root" in lines
    assert "flickr30k, coco are not as published" in outcome.err


def test_check_of_what_is_right(cli, root, suite_file):
    outcome = cli("data", "check", suite_file, "--data-root", root)
    assert outcome.code == 0, outcome.out
    assert "All is as published; 9 pictures decoded." in outcome.out
    assert "coco       present  5 pictures, 25 captions, 5 each" in outcome.out
    found = json.loads(cli("data", "check", suite_file, "--data-root", root, "--json").out)
    facts = found["datasets"]["coco"]
    assert facts["captions_a_picture"] == {"5": 5}
    assert facts["splits"] == SPLITS["coco"]
    assert facts["protocol"]["captions"] == "vse++"
    assert facts["findings"] == []


def test_check_by_the_other_protocol(cli, root, suite_file):
    """A suite file may ask for all captions, of which one picture has six."""
    suite = json.loads(suite_file.read_text())
    suite["datasets"][1]["data"]["protocol"] = "clip-benchmark"
    suite_file.write_text(json.dumps(suite))
    outcome = cli("data", "check", suite_file, "--data-root", root)
    assert outcome.code == 0, outcome.out
    assert "coco       present  5 pictures, 26 captions, 5 to 6 each" in outcome.out
    suite["datasets"][1]["published"]["captions"] = 25
    suite_file.write_text(json.dumps(suite))
    outcome = cli("data", "check", suite_file, "--data-root", root)
    assert (outcome.code, "26 of 25 captions" in outcome.out) == (4, True)


# ------------------------------------------------------------------ eval


def test_a_model_by_both_protocols(cli, root, suite_file, tiny_folder, tmp_path):
    arguments = ("eval", "--suite", suite_file, "--model", tiny_folder, "--data-root", root)
    outcome = cli(*arguments)
    assert outcome.code == 0, outcome.err
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert lines[lines.index("zero-shot: coco") + 1] == "  5 pictures, 25 captions"
    assert lines[lines.index("zero-shot: flickr30k") + 1] == "  4 pictures, 20 captions"
    assert re.search(r"R@1 .*median +mean$", "\n".join(lines), re.MULTILINE)
    for text in ("R@1", "R@5", "R@10", "median", "sum of the six", "picture to caption"):
        assert text in outcome.out
    assert "All: captions: vse++." in outcome.out
    assert "a tie counts as a miss" in " ".join(outcome.out.split())
    assert "coco: 25 of 25 captions have the tokens of another picture's." in outcome.out
    outcome = cli(*arguments, "--protocol", "coco=clip-benchmark")
    assert outcome.code == 0, outcome.err
    assert "  5 pictures, 26 captions" in outcome.out
    assert "coco: captions: clip-benchmark." in outcome.out
    assert "flickr30k: captions: vse++." in outcome.out
    saved = json.loads(next((tmp_path / "eval").glob("mine-coco-clip-*.json")).read_text())
    (model,) = saved["models"].values()
    assert model["datasets"]["coco"]["protocol"]["captions"] == "clip-benchmark"
    assert "texts of the same tokens are captions of their own" in saved["protocol"]["retrieval"]
    outcome = cli(*arguments, "--protocol", "coco=five")
    assert (outcome.code, "coco has no protocol 'five'" in outcome.err) == (2, True)


def test_what_is_not_there_can_be_left_out(cli, root, tiny_folder):
    (root / "coco").rename(root / "elsewhere")
    arguments = ("eval", "--suite", "retrieval", "--model", tiny_folder, "--data-root", root)
    outcome = cli(*arguments)
    assert outcome.code == 4
    assert "add --without coco" in outcome.err
    outcome = cli(*arguments, "--without", "coco")
    assert outcome.code == 0, outcome.err
    assert "flickr30k (partial)" in outcome.out


def test_published_numbers_stand_under_ours(cli, root, suite_file, monkeypatch, tiny_folder):
    """A model of a known name, here with weights of our own, so that it is far from them."""
    recalls = ["image_to_text_r1", "text_to_image_r10"]
    anchors = [
        {"source": "a table", "tolerance": 0.15, "metrics": recalls,
         "protocols": {"coco": "clip-benchmark"},
         "scores": {"ViT-B-32:openai": {"flickr30k": [78.9, 90.02], "coco": [50.12, 66.87]}}}
    ]  # fmt: skip
    suite_file.write_text(json.dumps({**SUITE, "anchors": anchors}))
    load = models.load
    monkeypatch.setattr(models, "load", lambda name: load(tiny_folder))
    arguments = ("--suite", suite_file, "--model", "ViT-B-32:openai", "--data-root", root)
    outcome = cli("eval", *arguments)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    published = [i for i, line in enumerate(lines) if line.startswith("      published")]
    assert [lines[i].split() for i in published] == [["published", "78.90"], ["published", "90.02"]]
    ours = float(lines[published[0] - 1].split()[1])
    difference = float(lines[published[0] + 1].split()[1])
    assert difference == pytest.approx(ours - 78.9, abs=0.06)
    assert "50.12" not in outcome.out  # found with the other protocol
    assert "published for coco by another protocol alone: --protocol coco=clip-benchmark." in (
        outcome.out
    )
    assert "published: a table; NOT within: flickr30k 0.15 points." in outcome.out
    outcome = cli("eval", *arguments, "--protocol", "coco=clip-benchmark")
    assert "50.12" in outcome.out


def test_a_run_of_another_task(cli, root, suite_file, merged):
    """Zero-shot and merged model under each other, and over alpha."""
    arguments = ("eval", "--suite", suite_file, "--data-root", root)
    outcome = cli(*arguments, "--runtime", "torch")
    assert outcome.code == 0, outcome.err
    rows = [line for line in outcome.out.splitlines() if line.startswith("    ")]
    for label in ("zero-shot", "alpha 0.50"):
        assert sum(row.startswith(f"    {label} ") for row in rows) == 6  # two ways and a sum
    outcome = cli(*arguments, "--alphas", "0:1:0.5", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert [list(point["datasets"]) for point in result["points"]] == [["flickr30k", "coco"]] * 3


def test_an_engine_stands_beside_pytorch(cli, root, suite_file, merged):
    outcome = cli("eval", "--suite", suite_file, "--data-root", root, "--runtime", "torch")
    assert outcome.code == 0, outcome.err
    result = json.loads((merged.evaluations / "mine-alpha-0.50-torch.json").read_text())
    models = result["models"]
    models["onnx"] = copy.deepcopy(models["alpha 0.50"]) | {"kind": "engine"}
    models["onnx"]["datasets"]["coco"]["image_to_text_r5"]["value"] += 0.0012
    console = Console(width=120)
    with console.capture() as captured:
        for part in evaluation_tables(result):
            console.print(part)
    rows = [line for line in captured.get().splitlines() if "onnx - alpha" in line]
    assert [row.split()[3:] for row in rows] == [
        ["+0.00", "+0.00", "+0.00"],
        ["+0.00", "+0.00", "+0.00"],
        ["+0.00", "+0.12", "+0.00"],
        ["+0.00", "+0.00", "+0.00"],
    ]
