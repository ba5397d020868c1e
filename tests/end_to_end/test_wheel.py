"""What `pip install` brings: the wheel alone, without the clone it was made from."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_works_without_the_clone(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        sizes = {info.filename: info.compress_size for info in content.infolist()}
        content.extractall(tmp_path / "site")
    assert sizes["radapter/models/pictogram_clip/open_clip_model.safetensors"] < 24e6
    assert sum(sizes.values()) < 45e6
    clips = sizes.pop("radapter/data/emoji_video/clips.tar")
    assert clips < 5e6
    assert sum(size for name, size in sizes.items() if name.endswith(".tar")) < 10e6
    for name in ("NOTICE.md", "LICENSES.txt"):
        assert f"radapter/data/emoji/{name}" in sizes
        assert f"radapter/data/emoji_video/{name}" in sizes
        assert f"radapter/data/icons/{name}" in sizes
    assert sizes["radapter/data/icons/pictures.zip"] < 10e6
    assert not [name for name in sizes if name.startswith(("tests", "runs"))]

    def radapter(*arguments):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "radapter_cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-P", "-c", "import radapter; print(radapter.__file__)"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    assert str(tmp_path) in subprocess.check_output(where, cwd=tmp_path, env=env, text=True)
    for name in ("emoji", "own-data", "pretrain/pictogram-clip"):
        assert name in radapter("recipes")
    radapter("train", "emoji", "optimisation.epochs=1")
    radapter("merge")
    assert "class accuracy" in radapter("eval", "--suite", "emoji-shifts")
