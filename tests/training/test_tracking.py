import json
import sys

import pytest
import tiny

from radapter.errors import MissingDependency
from radapter.training import Interrupted, plan, resume, tracking, train

MONITORED = ["data.hold_out=0.3", "optimisation.epochs=4", "monitor.every_steps=3"]  # 8 steps


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *MONITORED, *overrides)


class Recorder:
    def __init__(self):
        self.calls = []

    def start(self, run, recipe, step):
        self.calls.append(("start", run.path, recipe.name, step))

    def log(self, step, metrics):
        self.calls.append(("log", step, metrics.get("loss", metrics.get("validation"))))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture
def recorder(monkeypatch):
    """Another tracker, under the name that recipes know."""
    made = []
    monkeypatch.setitem(
        tracking.TRACKERS, "tensorboard", lambda: made.append(Recorder()) or made[-1]
    )
    return made


def stop_at(step):
    calls = []
    return lambda: calls.append(1) or len(calls) == step


def logged(run):
    return [
        ("log", line["step"], line.get("loss", line.get("validation"))) for line in run.logged()
    ]


def test_a_tracker_gets_what_the_file_gets(recipe, tmp_path, recorder):
    run = train(recipe("trackers=[tensorboard]"), tmp_path)
    (one,) = recorder
    assert one.calls[0] == ("start", run.path, "tiny", 0)
    assert one.calls[-1] == ("finish",)
    assert one.calls[1:-1] == logged(run)
    kinds = [(step, type(value)) for _, step, value in one.calls[1:-1]]
    assert kinds == [
        (step, kind)
        for step in range(1, 9)
        for kind in ((float, dict) if step in (3, 6, 8) else (float,))
    ]


def test_a_tracker_is_finished_however_training_ends(recipe, tmp_path, recorder):
    with pytest.raises(Interrupted) as caught:
        train(recipe("trackers=[tensorboard]"), tmp_path, should_stop=stop_at(2))
    resume(caught.value.run)
    first, second = recorder
    assert first.calls[-1] == second.calls[-1] == ("finish",)
    assert second.calls[0][-1] == 2
    assert second.calls[1][:2] == ("log", 3)


def test_no_tracker_no_package(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = train(recipe(), tmp_path)
    assert not (run.path / "tensorboard").exists()


def test_a_missing_package_is_said_before_anything_is_written(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    settings = recipe("trackers=[tensorboard]")
    for act in (lambda: train(settings, tmp_path / "runs"), lambda: plan(settings)):
        with pytest.raises(MissingDependency, match=r'pip install "radapter\[tensorboard\]"'):
            act()
    assert not (tmp_path / "runs").exists()


def events(run):
    """Scalars as TensorBoard reads them: tag -> [(step, value)]."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    read.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value, rel=1e-6)) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def of_file(run, key, kind="loss"):
    return [(line["step"], line.get(kind)[key] if kind != "loss" else line[key])
            for line in run.logged(kind)]  # fmt: skip


@pytest.mark.slow
def test_tensorboard_reads_back_what_was_logged(recipe, tmp_path):
    run = train(recipe("trackers=[tensorboard]"), tmp_path)
    found = events(run)
    for key in ("loss", "lr", "start_share", "seconds", "peak_memory_bytes"):
        assert of_file(run, key) == found[f"train/{key}"], key
    assert of_file(run, "accuracy", "validation") == found["validation/accuracy"]
    assert {tag.split("/")[0] for tag in found} == {"train", "validation"}
    assert not {"train/step", "train/steps"} & set(found)


@pytest.mark.slow
def test_a_resumed_run_hides_the_events_of_steps_done_again(recipe, tmp_path):
    settings = recipe("trackers=[tensorboard]", "checkpoints={keep: 9, every_seconds: 1e-9}")
    with pytest.raises(Interrupted) as caught:
        train(
            settings, tmp_path, should_stop=stop_at(6)
        )  # a question a step, and two of validation
    run = caught.value.run
    last = max(line["step"] for line in run.logged())
    newest = sorted(run.checkpoints.glob("step-*"))
    for folder in newest[1:]:  # as if they had not been written yet: it goes on from the first
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    events_before = events(run)["train/loss"]
    assert [step for step, _ in events_before] == list(range(1, last + 1))
    assert last > 2
    resume(run)
    assert [step for step, _ in events(run)["train/loss"]] == list(range(1, 9))
    assert of_file(run, "loss") == events(run)["train/loss"]
    assert of_file(run, "accuracy", "validation") == events(run)["validation/accuracy"]


def test_a_half_written_log_is_read_up_to_there(recipe, tmp_path):
    run = train(recipe(), tmp_path)
    whole = run.metrics.read_text()
    lines = whole.splitlines()
    run.metrics.write_text(whole[: -len(lines[-1]) // 2])
    assert run.logged() == [json.loads(line) for line in lines[:-1]]
    assert all("validation" not in line for line in run.logged("loss"))
    run.metrics.unlink()
    assert run.logged() == []
