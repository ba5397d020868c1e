"""The whole promise through the real command, outside of a clone, on the built-in model."""

import json
import subprocess
import sys

import pytest

from radapter.reporting import study


def radapter(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "radapter_cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_demo(tmp_path):
    done = radapter(tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    for command in ("train emoji", "merge", "export", "eval --runtime all"):
        assert f"$ radapter {command}" in done.stderr
    assert "parity with pytorch fp32" in done.stdout
    assert "in all" in done.stdout
    # This run beside the study, which says which base model it was made on.
    assert "this run" in done.stdout
    assert "study" in done.stdout
    assert study.table("emoji")["runs"]
    (run,) = (tmp_path / "runs").iterdir()
    files = sorted(path.name for path in (run / "eval").iterdir())
    assert files == [
        "answers",
        "beside-the-study.png",
        "emoji-shifts-alpha-0.50.json",
        "emoji-shifts-alphas.json",
        "emoji-shifts-alphas.png",
    ]
    result = json.loads((run / "eval" / "emoji-shifts-alpha-0.50.json").read_text())
    assert all(verdict["passed"] for verdict in result["parity"])
    assert set(result["models"]) == {"zero-shot", "alpha 0.50", "onnx"}
    roles = result["models"]["zero-shot"]["roles"]
    assert set(roles) == {"in-distribution", "unseen", "seen"}
    # The shipped base knows more than chance: what it knows exactly is not for a test.
    for role in roles.values():
        assert role["text_to_image_r1"]["interval"][0] > role["text_to_image_r1"]["chance"]

    # The four commands go on from there, each on the newest run.
    assert radapter(tmp_path, "merge", "--alpha", "0").returncode == 0
    stale = radapter(tmp_path, "eval")
    assert stale.returncode == 0
    assert "the bundle is left out" in stale.stderr
    zero = radapter(tmp_path, "eval", "--runtime", "torch", "--json")
    (result,) = json.loads(zero.stdout)["results"]
    base, merged = result["models"]["zero-shot"], result["models"]["alpha 0.00"]
    assert base["datasets"] == merged["datasets"]
    assert base["provenance"]["weights_hash"] == merged["provenance"]["weights_hash"]
