"""SIGKILL at random moments in train, merge, soup and export: every finished file stays whole, and
going on, or the same command again, ends in the same result.

RADAPTER_KILLS=1000 RADAPTER_KILLS_SEED=7 pytest -s tests/end_to_end/test_kills.py
kills more often, at other moments.
"""

import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from radapter import files
from radapter import run as runs
from radapter.training import checkpoints

KILLS = int(os.environ.get("RADAPTER_KILLS", "72"))
SEED = int(os.environ.get("RADAPTER_KILLS_SEED", "1"))
STARTED = time.monotonic()
KILLED = -signal.SIGKILL
OFTEN = "checkpoints.every_seconds=1e-9"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300 + 4 * KILLS),
    pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch"),
    pytest.mark.filterwarnings("error"),
]


class Commands:
    """radapter's command line in forks of one warm process."""

    def __init__(self, process):
        self.process = process

    def __call__(self, cwd, *argv, **order):
        """What became of a command; see killing.py."""
        self.process.stdin.write(json.dumps({"argv": argv, "cwd": str(cwd), **order}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def done(self, cwd, *argv, **order):
        """The same, which has to succeed."""
        answer = self(cwd, *argv, **order)
        assert answer["code"] == 0, Path(f"{cwd}.log").read_text()
        return answer


@pytest.fixture(scope="module")
def radapter(tmp_path_factory):
    here = Path(__file__).parent
    paths = [str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, str(here / "killing.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield Commands(process)
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(radapter, tmp_path_factory, tiny_folder, shapes):
    """A folder in which nothing was killed, with two merged models."""
    root = tmp_path_factory.mktemp("whole") / "work"
    root.mkdir()
    (root / "tiny.yaml").write_text(tiny.text(tiny_folder, shapes))
    radapter.done(root, "train", "tiny.yaml", OFTEN)
    radapter.done(root, "merge", "--alpha", "0.3")
    radapter.done(root, "merge")
    return root


def the_run(root):
    found = runs.all_runs(root / "runs")
    return found[0] if found else None


def the_bundle(root):
    (found,) = (p for p in (the_run(root).path / "bundles").iterdir() if p.name[0] != ".")
    return found


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


TIMES = ("seconds", "pairs_per_second", "data_wait_share", "peak_memory_bytes")


def metrics(run):
    kept = []
    for line in run.metrics.read_text().splitlines():
        facts = json.loads(line)
        kept.append({k: v for k, v in facts.items() if k not in TIMES})
    return kept


def finished_are_whole(root, whole):
    """Whatever has its own name in a run folder is whole."""
    run, same = the_run(root), the_run(whole)
    if run is None:
        return
    run.recipe()
    for name in ("adapter.safetensors", "classes.json"):
        if (run.path / name).exists():
            assert (run.path / name).read_bytes() == (same.path / name).read_bytes()
    if (run.path / "environment.json").exists():
        json.loads((run.path / "environment.json").read_text())
    for path in run.checkpoints.glob("[!.]*/"):
        facts = json.loads((path / "state.json").read_text())
        assert files.file_hash(path / "state.safetensors") == facts["sha256"]
    if (run.checkpoints / "newest").exists():
        assert (run.checkpoints / (run.checkpoints / "newest").read_text().strip()).is_dir()
    if run.metrics.is_file():  # every line but the last, which may be half
        for line in run.metrics.read_text().splitlines()[:-1]:
            json.loads(line)
    if (run.path / "merged" / "current").exists():
        assert contents(run.merged()) == contents(same.path / "merged" / run.merged().name)
    for path in (run.path / "bundles").glob("[!.]*"):
        assert contents(path) == contents(the_bundle(whole))


def half_done(root):
    return [p for p in root.rglob(".*") if p.suffix in (".tmp", ".old")]


def moments(draw, whole_command):
    """For ever: at a random operation on a file, or after a random time."""
    while True:
        if draw.random() < 0.7:
            yield {"at": draw.randint(1, whole_command["operations"])}
        else:
            yield {"after": draw.uniform(0, whole_command["seconds"])}


def report(what, where, started):
    kills = sum(where.values())
    parts = ", ".join(f"{number} {name}" for name, number in sorted(where.items()))
    print(f"\n{what}: {kills} kills in {time.monotonic() - started:.1f} s ({parts}), seed {SEED}")
    return kills


def test_train(radapter, whole, tmp_path, tiny_folder, shapes):
    draw, where, started = random.Random(SEED), collections.Counter(), time.monotonic()
    expected, lines = the_run(whole).adapter.read_bytes(), metrics(the_run(whole))
    (tmp_path / "measured").mkdir()
    shutil.copy(whole / "tiny.yaml", tmp_path / "measured")
    a_whole_one = radapter.done(tmp_path / "measured", "train", "tiny.yaml", OFTEN)
    moment = moments(draw, a_whole_one)
    while sum(where.values()) < KILLS // 2:
        root = tmp_path / "killed"
        root.mkdir()
        shutil.copy(whole / "tiny.yaml", root)
        for _ in range(draw.randint(1, 4)):
            argv = ("train", "--resume") if the_run(root) else ("train", "tiny.yaml", OFTEN)
            answer = radapter(root, *argv, **next(moment))
            if answer["code"] == 0:  # it was done before
                break
            assert answer["code"] == KILLED, Path(f"{root}.log").read_text()
            finished_are_whole(root, whole)
            run = the_run(root)
            where[
                "before there was a run"
                if run is None
                else "after the adapter was written"
                if run.adapter.is_file()
                else "within a write"
                if half_done(root)
                else "before the first checkpoint"
                if not checkpoints.newest(run.checkpoints)
                else "between writes"
            ] += 1
        if the_run(root) is None:
            radapter.done(root, "train", "tiny.yaml", OFTEN)
        else:
            radapter.done(root, "train", "--resume")
        run = the_run(root)
        assert run.adapter.read_bytes() == expected
        assert metrics(run) == lines
        with run.lock():  # as every command does: it clears what a kill after the adapter left
            pass
        assert not half_done(run.path)
        assert not run.checkpoints.exists()
        assert len(runs.all_runs(root / "runs")) == 1
        shutil.rmtree(root)
    assert report("train", where, started) >= KILLS // 2
    assert where["within a write"] > KILLS // 30


@pytest.fixture
def merging_again(whole, tmp_path):
    """A run whose present merge is another one, and whose wanted one is there but damaged."""

    @contextlib.contextmanager
    def make():
        root = tmp_path / "killed"
        shutil.copytree(whole, root)
        run = the_run(root)
        files.write_atomic(run.path / "merged" / "current", "alpha-0.30\n")
        (run.path / "merged" / "alpha-0.50" / "merged.json").write_text("{}")
        state = run.path / "merged" / "alpha-0.50" / "open_clip_model.safetensors"
        state.write_bytes(state.read_bytes()[:-4])
        yield root
        shutil.rmtree(root)

    return make


def test_merge(radapter, whole, tmp_path, merging_again):
    draw, where, started = random.Random(SEED + 1), collections.Counter(), time.monotonic()
    expected = contents(the_run(whole).path / "merged")
    with merging_again() as root:
        moment = moments(draw, radapter.done(root, "merge"))
        assert contents(the_run(root).path / "merged") == expected
    while sum(where.values()) < KILLS // 3:
        with merging_again() as root:
            run = the_run(root)
            for _ in range(draw.randint(1, 4)):
                answer = radapter(root, "merge", **next(moment))
                if answer["code"] == 0:
                    break
                assert answer["code"] == KILLED
                finished_are_whole(root, whole)
                where["within a write" if half_done(root) else "before or after one"] += 1
            radapter.done(root, "merge")
            assert contents(run.path / "merged") == expected
            assert not half_done(root)
    report("merge", where, started)
    assert where["within a write"] > KILLS // 30


def test_soup(radapter, whole, tmp_path):
    """A new run folder: it is there whole, or not at all."""
    draw, where, started = random.Random(SEED + 3), collections.Counter(), time.monotonic()
    root = tmp_path / "killed"
    shutil.copytree(whole, root)
    first = the_run(root).path
    second = first.with_name(f"{first.name}-b")
    shutil.copytree(first, second)
    argv = ("soup", first.name, second.name, "--rule", "model-stock")

    def made():
        return [run for run in runs.all_runs(root / "runs") if run.soup()]

    def known(run):
        return {p.name: p.read_bytes() for p in run.path.iterdir()}

    moment = moments(draw, radapter.done(root, *argv))
    (expected,) = map(known, made())
    assert set(expected) == {"adapter.safetensors", "classes.json", "recipe.yaml", "soup.json"}
    while sum(where.values()) < KILLS // 6:
        answer = radapter(root, *argv, **next(moment))
        assert answer["code"] in (0, KILLED)
        assert len(runs.all_runs(root / "runs")) == 2 + len(made())
        for run in made():
            assert known(run) == expected
            shutil.rmtree(run.path)
        where["within a write" if half_done(root) else "before or after one"] += 1
        for leftover in (root / "runs").glob(".*.tmp"):
            shutil.rmtree(leftover)
    report("soup", where, started)
    assert where["within a write"] > KILLS // 30


def test_export(radapter, whole, tmp_path):
    """A bundle that takes the place of another. Twice while the model is converted; then the ONNX
    files are copied, for what is left are the writes."""
    draw, where, started = random.Random(SEED + 2), collections.Counter(), time.monotonic()
    root, kept = tmp_path / "killed", tmp_path / "kept"
    argv = ("export", "--no-verify", "--force")
    radapter.done(whole, *argv)
    shutil.copytree(the_bundle(whole), kept)
    shutil.copytree(whole, root)

    def kill(**order):
        answer = radapter(root, *argv, **order)
        if answer["code"] == 0:
            return False
        assert answer["code"] == KILLED
        finished_are_whole(root, whole)
        where["within a write" if half_done(root) else "before or after one"] += 1
        return True

    def finish(**order):
        answer = radapter.done(root, *argv, **order)
        assert contents(the_bundle(root)) == contents(kept)
        assert not half_done(root)
        return answer

    for _ in range(max(2, KILLS // 100)):
        kill(after=draw.uniform(0.3, 5.0))
    finish()
    moment = moments(draw, finish(bundle=str(kept)))
    while sum(where.values()) < KILLS // 6:
        if draw.random() < 0.3:
            shutil.rmtree(the_run(root).path / "bundles")  # a first one
        for _ in range(draw.randint(1, 4)):
            if not kill(bundle=str(kept), **next(moment)):
                break
        finish(bundle=str(kept))
    report("export", where, started)
    assert where["within a write"] > KILLS // 30
