"""The whole promise through the real command, outside of a clone, on the built-in model."""

import json
import subprocess
import sys

import pytest

from radapter_cli.demo import ROWS


def radapter(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "radapter_cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three minutes on two quiet cores without bf16; other tests are on them
def test_demo(tmp_path):
    done = radapter(tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    for command in ("train icons-demo", "merge", "export", "eval --runtime all"):
        assert f"$ radapter {command}" in done.stderr
    assert "Next: radapter report" in done.stderr
    assert "Next: radapter merge" not in done.stderr
    # One screen: zero-shot, tuned and merged, a row a data set with its size; the engine in a line.
    lines = done.stdout.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) < 120 + len(str(tmp_path))
    for words in ROWS.values():
        (row,) = [line for line in lines if line.startswith(f"{words} ")]
        assert len(row.removeprefix(words).split()) == 4
    assert "engine agrees with PyTorch" in done.stdout
    (run,) = (tmp_path / "runs").iterdir()
    files = {path.name for path in (run / "eval").iterdir()}
    names = {f"icons-demo-{name}" for name in ("alpha-0.50.json", "alphas.json", "alphas.png")}
    assert files == {"answers", *names}
    result = json.loads((run / "eval" / "icons-demo-alpha-0.50.json").read_text())
    assert all(verdict["passed"] for verdict in result["parity"])
    assert set(result["models"]) == {"zero-shot", "alpha 0.50", "onnx"}
    scored = result["models"]["zero-shot"]["datasets"]
    assert set(scored) == set(ROWS)
    # The shipped base knows more than chance: what it knows exactly is not for a test.
    for name in ("line", "solid", "novel", "noto"):
        accuracy = scored[name]["accuracy"]
        assert accuracy["interval"][0] > accuracy["chance"]

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
