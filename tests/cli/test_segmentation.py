"""A run on scenes: zero-shot, tuned and its exported engine, by patches and by windows."""

import json

import pytest
import yaml


@pytest.mark.slow
def test_a_run_with_its_engine_on_scenes(cli, merged, tmp_path):
    scenes = {"source": "scenes", "pictures": 3, "words": 5, "size": 32}
    names = ("values", "windows", "regions")
    sets = [{"name": by, "role": "zero-shot", "data": scenes, "dense": {"by": by}} for by in names]
    suite = {"name": "mine", "tasks": ["segmentation"], "datasets": sets, "seen": {"other": "all"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(suite))
    recipe = yaml.safe_load((merged.path / "recipe.yaml").read_text())
    recipe |= {"suites": ["mine.yaml"]}
    (merged.path / "recipe.yaml").write_text(json.dumps(recipe))
    outcome = cli("export", "--precision", "fp32")
    assert outcome.code == 0, outcome.err
    outcome = cli("eval", "--suite", "mine.yaml")
    assert outcome.code == 0, outcome.err
    assert "onnx, values: onnx has no patch model in fp32" in " ".join(outcome.out.split())
    (path,) = merged.evaluations.glob("mine-*.json")
    result = json.loads(path.read_text())
    (verdict,) = result["parity"]
    assert verdict["passed"]
    assert {row["dataset"] for row in verdict["metrics"]} == {"windows", "regions", "mean of 2"}
    assert "miou" not in result["models"]["onnx"]["datasets"]["values"]
    # Random weights are far off in int8.
    loose = [f"{name}.{key}" for name in ("int8", "int8-qdq")
             for key in ("cosine=0", "metric=1", "agreement=0")]  # fmt: skip
    tolerances = [word for of in loose for word in ("--tolerance", of)]
    outcome = cli("export", "--patches", "--precision", "fp32", "--precision", "int8", *tolerances)
    assert outcome.code == 0, outcome.err
    outcome = cli("eval", "--suite", "mine.yaml", *tolerances)
    assert outcome.code == 0, outcome.err
    for words in ("mIoU without background", "mIoU with background", "one class everywhere"):
        assert words in outcome.out
    (path,) = merged.evaluations.glob("mine-*.json")
    result = json.loads(path.read_text())
    kinds = [model["kind"] for model in result["models"].values()]
    assert kinds == ["zero-shot", "tuned", "engine", "engine"]
    whole, small = result["parity"]
    assert {row["metric"] for row in whole["metrics"]} >= {"miou", "miou_background"}
    assert {row["dataset"] for row in whole["metrics"]} == {*names, "mean of 3"}
    assert whole["passed"]
    assert "values" not in {row["dataset"] for row in small["metrics"]}
