"""radapter runs show: a run that is finished, running, stopped, or half-written."""

import json
import shutil
import subprocess
import sys

import pytest
import tiny

from radapter import merging
from radapter.reporting.runs import run_facts
from radapter.run import Run
from radapter.training import Interrupted, train

MONITORED = ["data.hold_out=0.3", "monitor.every_epochs=1"]


@pytest.fixture(scope="module")
def _monitored(tiny_folder, shapes, tmp_path_factory):
    return train(tiny.recipe(tiny_folder, shapes, *MONITORED), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def monitored(_monitored, tmp_path):
    return Run(shutil.copytree(_monitored.path, tmp_path / "runs" / _monitored.name))


@pytest.fixture
def stopped(tiny_folder, shapes, tmp_path):
    calls = []
    recipe = tiny.recipe(tiny_folder, shapes, "optimisation.epochs=2")
    with pytest.raises(Interrupted) as caught:
        train(recipe, tmp_path / "runs", should_stop=lambda: calls.append(1) or len(calls) == 4)
    return caught.value.run


def test_a_finished_run(cli, monitored):
    merging.write_merged(monitored, 0.8)
    merging.write_merged(monitored, 0.5)
    outcome = cli("runs", "show")
    assert outcome.code == 0, outcome.err
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert lines[0] == monitored.name
    rows = {line[:14].strip(): line[14:] for line in lines[1 : lines.index("")]}
    steps = monitored.logged("loss")
    assert rows["recipe"] == "tiny"
    assert rows["method"] == "r-adapter"
    assert rows["training"].startswith("finished; 6 of 6 steps, ")
    assert "pairs/s" in rows["speed"]
    assert f"{steps[-1]['peak_memory_bytes'] / 1e9:.2f} GB (process)" in rows["speed"]
    assert rows["loss"].startswith(f"{steps[-1]['loss']:.3f}, learning rate ")
    assert rows["adapter"].startswith("adapter.safetensors, 0.0 MB, 5,120 trained parameters")
    assert rows["best adapter"] == "best.safetensors"
    assert rows["merged"] == "alpha-0.50 (present), alpha-0.80"
    (last,) = monitored.logged("validation")[-1:]
    value = f"{last['validation']['accuracy']:.1%}"
    assert rows["validation"].startswith(f"class accuracy {value} at step 6, best ")
    for title in ("loss", "learning rate", "validation accuracy, %"):
        assert title in lines
    # Every curve ends at the last step, under the one above.
    ends = [line for line in lines if line.split() == ["1", "6"]]
    assert len(ends) == 3
    assert len(set(ends)) == 1
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in outcome.out


def test_json_is_the_same_as_data(cli, monitored):
    merging.write_merged(monitored, 0.5)
    found = json.loads(cli("runs", "show", monitored.name, "--json").out)
    run = found["run"]
    steps, validations = monitored.logged("loss"), monitored.logged("validation")
    assert (run["training"], run["writer"], run["step"], run["steps"]) == ("finished", None, 6, 6)
    assert run["state"] == "merged at 0.50"
    assert run["adapter"]["trained_parameters"] == 2 * 2 * (32**2 + 16**2)
    assert run["start_share"] == pytest.approx(0.9**6)
    assert run["validation"]["best"] == max(v["validation"]["accuracy"] for v in validations)
    assert found["curves"]["loss"] == [[line["step"], line["loss"]] for line in steps]
    assert found["curves"]["validation accuracy"] == [
        [line["step"], 100 * line["validation"]["accuracy"]] for line in validations
    ]


def test_a_stopped_run_and_its_half_written_log(cli, stopped):
    outcome = cli("runs", "show", stopped.name)
    assert "stopped, no process holds the run; 4 of 6 steps" in outcome.out
    assert f"Next: radapter train --resume runs/{stopped.name}" in outcome.err.replace("\n", "")
    with stopped.metrics.open("a") as file:
        file.write('{"step": 5, "lo')
    assert cli("runs", "show", stopped.name).out == outcome.out
    assert run_facts(stopped)["step"] == 4
    assert "adapter" not in outcome.out.split("loss")[0].replace("r-adapter", "")


HOLDER = """
import sys
from pathlib import Path
from radapter.run import Run
with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_process_that_holds_the_run_is_seen(cli, stopped, monitored):
    for run, words in (
        (stopped, "running now; 4 of 6 steps"),
        (monitored, "finished; 6 of 6 steps"),
    ):
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, run.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "held\n"
            (line,) = [x for x in cli("runs", "show", run.name).out.splitlines() if words in x]
            assert f"written by pid {process.pid} on " in line
            process.stdin.close()
        assert run_facts(run)["writer"] is None
    with stopped.lock():  # looking has not left it locked
        pass


def test_a_run_without_anything_yet(cli, stopped):
    stopped.metrics.unlink()
    (stopped.path / ".lock").unlink()
    outcome = cli("runs", "show")
    assert outcome.code == 0, outcome.err
    assert "0 steps" in outcome.out
    assert stopped.curves() == {}
    assert not (stopped.path / ".lock").exists()  # looking leaves nothing


def test_an_adapter_that_is_damaged_is_said(cli, monitored):
    monitored.adapter.write_bytes(monitored.adapter.read_bytes()[:50])
    outcome = cli("runs", "show")
    assert outcome.code == 0, outcome.err
    assert "damaged" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("sow",), 2, "Unknown action 'sow'. Did you mean 'show'? Known: list, show."),
        (("show", "nowhere"), 4, "No run at nowhere"),
        (("list", "a-run"), 2, "radapter runs show a-run"),
    ],
)
def test_wrong_use(cli, arguments, code, words):
    outcome = cli("runs", *arguments)
    assert outcome.code == code
    assert words in outcome.err


# ------------------------------------------------------------------ merge --adapter


def test_merge_takes_the_best_or_the_last(cli, monitored):
    last = cli("merge", "--json")
    assert json.loads(last.out)["merged"].endswith("/merged/alpha-0.50")
    assert monitored.which() == "last"
    # Another adapter, so that the two differ.
    shutil.copy(monitored.adapter, monitored.best)
    data = bytearray(monitored.best.read_bytes())
    data[-1] ^= 1
    monitored.best.write_bytes(data)
    best = cli("merge", "--adapter", "best", "--json")
    assert best.code == 0, best.err
    assert json.loads(best.out)["merged"].endswith("/merged/alpha-0.50-best")
    facts = [
        json.loads((monitored.path / "merged" / name / "merged.json").read_text())
        for name in ("alpha-0.50", "alpha-0.50-best")
    ]
    assert facts[0]["weights_hash"] != facts[1]["weights_hash"]
    assert [f.get("adapter") for f in facts] == [None, "best"]
    assert monitored.which() == "best"
    assert merging.open_trained(monitored).which == "best"
    assert json.loads(cli("merge", "--adapter", "best", "--json").out)["written"] is False
    assert "alpha-0.50-best (present)" in cli("runs", "show").out
    assert cli("merge").code == 0
    assert monitored.which() == "last"


def test_merge_without_a_best(cli, trained):
    outcome = cli("merge", "--adapter", "best")
    assert outcome.code == 4
    assert "monitor.every_epochs" in outcome.err
    assert "best.safetensors" in outcome.err
