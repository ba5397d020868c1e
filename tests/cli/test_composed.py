"""A suite of composed retrieval from its file to tables, results, `compare`, files for servers."""

import json

import pytest
import source_trees


@pytest.fixture
def suite_file(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("cirr", "circo", "fashioniq", "genecis"):
        getattr(source_trees, name)(data)
    found = {"cirr": {"source": "cirr"}, "circo": {"source": "circo"},
             "dress": {"source": "fashioniq", "category": "dress"},
             "object": {"source": "genecis", "condition": "focus_object"},
             "attribute": {"source": "genecis", "condition": "change_attribute"},
             "cirr-test": {"source": "cirr", "split": "test"},
             "circo-test": {"source": "circo", "split": "test"}}  # fmt: skip
    sets = [{"name": name, "role": "zero-shot", "data": own} for name, own in found.items()]
    sets[0]["weight_on"] = {"source": "cirr", "split": "train"}
    averages = {"genecis": ["object", "attribute"], "mixed": ["cirr", "dress"]}
    suite = {"name": "mine", "tasks": ["composed"], "datasets": sets, "averages": averages}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(suite))
    return path


def test_every_benchmark_has_its_own_measures_and_test_splits_their_files(
    cli, suite_file, tiny_folder, tmp_path
):
    more = ("--data-root", tmp_path / "data", "--model", tiny_folder, "--out", tmp_path / "r.json")
    outcome = cli("eval", "--suite", suite_file, *more)
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "r.json").read_text())
    (model,) = result["models"].values()
    sets = model["datasets"]
    assert (sets["cirr"]["edits"], sets["cirr"]["gallery"], sets["cirr"]["pictures"]) == (4, 7, 16)
    assert (sets["object"]["edits"], sets["object"]["gallery"]) == (3, 4)
    ways = {"composed", "picture_alone", "text_alone"}
    measured = {name: {m for m in facts if any(m.startswith(way) for way in ways)}
                for name, facts in sets.items()}  # fmt: skip
    assert measured["cirr"] == {
        f"{way}_{m}" for way in ways
        for m in ("r1", "r5", "r10", "r50", "subset_r1", "subset_r2", "subset_r3")
    }  # fmt: skip
    assert measured["dress"] == {f"{way}_r{k}" for way in ways for k in (10, 50)}
    assert not measured["cirr-test"]
    assert sets["cirr"]["composed_r1"]["chance"] == pytest.approx(1 / 7)
    assert sets["cirr"]["composed_subset_r1"]["chance"] == pytest.approx(1 / 3)
    assert sets["circo"]["weight_of_text"] == 0.5
    assert any("chosen on 4 other edits" in remark for remark in sets["cirr"]["remarks"])
    assert "composed_r1" in model["averages"]["genecis"]
    assert "composed_r10" in model["averages"]["mixed"]
    assert "composed_r1" not in model["averages"]["mixed"]

    shown = outcome.out.splitlines()
    assert any(line.split()[:3] == ["zero-shot:", "circo", "mAP@5"] for line in shown)
    assert sum("the right pictures are on a server" in line for line in shown) == 2
    assert "Edits in a gallery: cirr 4 in 7, circo 3 in 8, dress 3 in 8" in outcome.out
    files = [path for path in model["for_servers"] if path.endswith(".json")]
    assert [f"For the server, by tiny: {path}" in outcome.out for path in files] == [True] * 3
    recall, subset, circo = (json.loads((tmp_path / path).read_text()) for path in files)
    assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
    assert (subset.pop("version"), subset.pop("metric")) == ("rc2", "recall_subset")
    assert list(recall) == list(subset) == ["12060", "12061", "12062", "12063"]
    every = {f"test1-{i}-0-img{i % 2}" for i in range(8)}
    assert set(recall["12060"]) == every - {"test1-1-0-img1"}
    assert set(subset["12060"]) == {"test1-0-0-img0", "test1-2-0-img0", "test1-3-0-img1"}
    assert sorted(circo["0"]) == [243611 + 7919 * i for i in range(8)]


def test_a_run_is_compared_with_the_zero_shot_model(cli, suite_file, merged, tmp_path):
    without = [f"--without={name}" for name in ("circo", "dress", "circo-test", "cirr-test")]
    data = ("--data-root", tmp_path / "data", "--runtime", "torch")
    outcome = cli("eval", "--suite", suite_file, *without, *data)
    assert outcome.code == 0, outcome.err
    assert "picture alone" in outcome.out
    outcome = cli("compare", merged.path, "--json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)["runs"]
    assert [row["method"] for row in rows] == ["zero-shot", "r-adapter"]
    assert all({"composed_r1", "text_alone_r1"} <= {n["metric"] for n in row["numbers"]}
               for row in rows)  # fmt: skip
    outcome = cli("eval", "--suite", suite_file, "--alphas", "0:1:0.5", *without, *data[:2])
    assert outcome.code == 0, outcome.err


def test_what_is_not_there_is_said(cli, suite_file, tmp_path):
    data = tmp_path / "data"
    outcome = cli("data", "check", suite_file, "--data-root", data)
    assert outcome.code == 0, outcome.out
    assert "8 pictures, 4 edits" in outcome.out
    (data / "CIRR" / "cirr" / "captions" / "cap.rc2.train.json").unlink()  # of `weight_on`
    outcome = cli("data", "check", suite_file, "--data-root", data)
    assert outcome.code == 4
    assert "cap.rc2.train.json" in outcome.out + outcome.err
    (data / "CIRCO").rename(data / "elsewhere")
    outcome = cli("data", "check", suite_file, "--data-root", data)
    assert outcome.code == 4
    assert "CIRCO is not under" in outcome.out + outcome.err
