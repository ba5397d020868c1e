"""A run on scenes: zero-shot, tuned and its exported engine, by patches and by windows."""

import json

import pytest


@pytest.mark.slow
def test_a_run_with_its_engine_on_scenes(cli, merged, tmp_path):
    scenes = {"source": "scenes", "pictures": 3, "words": 5, "size": 32}
    sets = [{"name": by, "role": "zero-shot", "data": scenes, "dense": {"by": by}}
            for by in ("values", "windows", "regions")]  # fmt: skip
    suite = {"name": "mine", "tasks": ["segmentation"], "datasets": sets, "seen": {"other": "all"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(suite))
    outcome = cli("export", "--no-verify")
    assert outcome.code == 0, outcome.err
    outcome = cli("eval", "--suite", "mine.yaml")
    assert outcome.code == 2
    assert "export it with --patches" in outcome.err
    outcome = cli("export", "--patches", "--no-verify")
    assert outcome.code == 0, outcome.err
    outcome = cli("eval", "--suite", "mine.yaml")
    assert outcome.code == 0, outcome.err
    for words in ("mIoU without background", "mIoU with background", "one class everywhere"):
        assert words in outcome.out
    (path,) = merged.evaluations.glob("mine-*.json")
    result = json.loads(path.read_text())
    kinds = [model["kind"] for model in result["models"].values()]
    assert kinds == ["zero-shot", "tuned", "engine"]
    (verdict,) = result["parity"]
    assert {row["metric"] for row in verdict["metrics"]} >= {"miou", "miou_background"}
    assert verdict["passed"]
