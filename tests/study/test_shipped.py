"""The studies that ship name what there is; those of one kind of data run whole on a miniature."""

import json
import shutil

import pytest
import video_trees

from radapter.evaluation.suite import shipped_suites
from radapter.recipe_yaml import read_file
from radapter.study import running, schema
from radapter.study.planning import Plan
from radapter.study.results import Folder
from radapter.study.table import summarise


@pytest.mark.parametrize("name", schema.shipped_studies())
def test_a_study_has_a_plan(name):
    place = schema.locate(name)
    plan = Plan(schema.load(place), str(place))
    assert plan.study.name == name
    assert plan.study.baseline in plan.study.methods


def own_videos(root, shapes):
    """What recipes/m2-raap.yaml reads, and one of the sets that it is scored on."""
    video_trees.msr_vtt(root / "msr-vtt")
    own = root / "m2-raap"
    for name in ("captions", "validation"):
        rows = [f"{name}-{number},clip {number}" for number in range(4)]
        for folder in ("videos", "frames"):
            for row in rows:
                shutil.copytree(shapes / "red_square", own / folder / row.partition(",")[0])
        (own / f"{name}.csv").write_text("\n".join(["video,caption", *rows]), encoding="utf-8")
    (own / "filtered").mkdir()
    kept = [f'{{"video": "captions-{number}", "caption": "clip {number}"}}' for number in range(3)]
    (own / "filtered" / "kept.jsonl").write_text("\n".join(kept), encoding="utf-8")


def small_suite(folder, name, keep):
    """A shipped suite, of few data sets and things."""
    tree = json.loads(json.dumps(read_file(shipped_suites()[name])))
    tree["datasets"] = [own for own in tree["datasets"] if own["name"] in keep]
    tree.pop("averages", None)
    for own in tree["datasets"]:
        if own["data"]["source"] == "moving-emoji":
            own["data"] = {**own["data"], "concepts": 2}
        if own["data"]["source"] == "scenes":
            own["data"] = {**own["data"], "pictures": 3, "words": 5, "size": 32}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(tree))
    return str(path)


FEWER = [
    "line",
    "udcdr-solid",
    "noto",
    "white-windows",
    "clips",
    "clips-first-frame",
    "fixed",
    "fixed-shuffled",
    "msr-vtt",
    "msr-vtt-first-frame",
]
ONE_SHOT = {"data.shots": 1}
CHANGES = {
    "m2-raap": {},
    "video": {"data.concepts": 2, "validation.concepts": 2},
    "emoji-video": {},
    "segmentation": {"data.scenes.pictures": 12, "data.scenes.words": 3},
    "composed": {"method.hidden": 1},
    **dict.fromkeys(("methods", "candidates", "image-text", "few-shot-heads", "ucdr"), ONE_SHOT),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_study_runs_whole(name, small, tiny_folder, shapes, monkeypatch):
    monkeypatch.setenv("RADAPTER_DATA", str(small.place))
    own_videos(small.place, shapes)
    tree = json.loads(json.dumps(read_file(schema.locate(name))))
    tree["suites"] = [small_suite(small.place, suite, FEWER) for suite in tree["suites"]]
    tree["set"] = tree.get("set", {}) | CHANGES[name] | {
        "model": str(tiny_folder), "device": "cpu", "workers": 0, "precision": "fp32",
        "optimisation.batch_size": 16, "optimisation.micro_batch": None,
    }  # fmt: skip
    # A model that has learned nothing has no right answers to measure a distance from.
    kept = {
        k: own for k, own in tree["methods"].items() if own.get("merge", {}).get("rule") != "vrf"
    }
    tree["methods"] = kept
    for label, method in tree["methods"].items():
        if "STAN" in label:
            method["set"] = method.get("set", {}) | {"method.depth": 2}
    path = small.place / "study.yaml"
    path.write_text(json.dumps(tree))
    plan = Plan(schema.load(path), str(path), smoke=True)
    folder = Folder(small.place / "results" / name)
    assert running.run_study(plan, folder, runs=small.place / "runs") == []
    summary = summarise(folder)
    assert [row["label"] for row in summary["methods"]] == list(tree["methods"])
    assert summary["incomplete"] == []
