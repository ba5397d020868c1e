"""What holds for every task of the registry, and that a new one is a file and a line."""

import sys
from typing import get_args

import pytest
import tiny
import trees

from radapter import merging, models
from radapter.data import Dataset
from radapter.data.settings import Data
from radapter.data.sources.folder import FolderData
from radapter.data.sources.genecis import GenecisData
from radapter.data.sources.moving_emoji import MovingEmojiData
from radapter.data.sources.scenes import ScenesData
from radapter.data.sources.table import TableData
from radapter.errors import RadapterError
from radapter.evaluation import of_run
from radapter.evaluation.evaluate import evaluate, protocol
from radapter.evaluation.scores import main_metrics, metric_of, metrics, name_of, task_for, tasks_of
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.registry import TASKS, load
from radapter.reporting import comparison, comparison_tables, result_tables
from radapter.runtimes.opened import from_loaded
from radapter.training import train

TOY = '''
"""How wide a feature is."""
import numpy as np
from radapter.evaluation.scores import Metric, Scored, Scores

METRICS = {"first_above": Metric("first number above 0", headline=True),
           "spread": Metric("spread of features", better="smaller", share=False, headline=True)}
DATA = "classification"

def needs(dataset, described):
    return dataset

def asks(dataset, templates):
    return "texts", []

def protocol(suite):
    return {"toy": "the first number"}

def score(dataset, features, texts, *, suite, described, clusters):
    above = (features[:, 0] > 0).numpy()
    spread = features.std(dim=1).double().numpy()
    return Scores({"first_above": Scored(above, clusters, 0.5),
                   "spread": Scored(spread, clusters, 0.0)}, facts={"width": features.shape[1]})
'''


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return models.load(tiny_folder)


@pytest.fixture(scope="module")
def data(shapes, tmp_path_factory):
    """By a data section's `task`, some that has what it says."""
    table = tmp_path_factory.mktemp("captions") / "captions.csv"
    rows = [f"{path},a {path.parent.name} {path.stem}" for path in sorted(shapes.rglob("*.png"))]
    table.write_text("\n".join(["filepath,title", *rows]))
    captions = TableData(source="table", path=str(table), split="all", task="captions")
    folder = FolderData(source="folder", root=str(shapes), split="all")
    scenes = ScenesData(source="scenes", pictures=3)
    root = trees.genecis(tmp_path_factory.mktemp("edits")) / "GeneCIS"
    edits = GenecisData(source="genecis", root=str(root), condition="focus_object")
    known = {"classification": folder, "captions": captions, "segmentation": scenes}
    return known | {"edits": edits}


def suite_of(data, *tasks):
    described = SuiteDataset(name="set", role="in-distribution", data=data)
    return Suite(name="mine", tasks=list(tasks), datasets=[described])


MOVING = MovingEmojiData(source="moving-emoji", concepts=2, frames=2, split="test")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_scores_what_its_metrics_say(task, data, loaded):
    module = load(TASKS, task)
    assert module.DATA in get_args(Data.model_fields["task"].annotation)
    own = MOVING if task == "motion" else data[module.DATA]
    found = evaluate(suite_of(own, task), from_loaded(loaded))
    result = found.sets["set"]
    assert list(result.metrics) == [name for name in module.METRICS if name in result.metrics]
    assert main_metrics()[task] in result.metrics
    for name, scored in result.metrics.items():
        assert len(scored.scores) == len(scored.clusters) > 0
        if module.METRICS[name].share:
            assert 0 <= scored.chance <= 1
            assert 0 <= result.value(name) <= 1
    if result.predictions is not None:
        assert len(result.predictions) == len(result.pictures)
    assert tasks_of(found.result()["datasets"]["set"]) == [task]
    assert not set(result.facts) & set(result.metrics)
    assert module.protocol(found.suite).items() <= protocol(found.suite, {}).items()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_words_for_its_metrics_and_one_that_stands_for_it(task):
    module = load(TASKS, task)
    titles = [metric.title for metric in module.METRICS.values()]
    assert len(set(titles)) == len(titles)
    assert all(name_of(name) == metric.title for name, metric in module.METRICS.items())
    assert module.METRICS[main_metrics()[task]].headline
    assert task_for(module.DATA) in TASKS


def test_no_two_tasks_have_a_metric_of_one_name():
    assert len(metrics()) == sum(len(load(TASKS, task).METRICS) for task in TASKS)
    assert metric_of("of_yesterday").title == "of yesterday"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_refuses_data_without_what_it_needs_in_one_sentence(task, data):
    described = SuiteDataset(
        name="set", role="in-distribution", data=data["classification"], classes=["a cat"]
    )
    bare = Dataset("bare", ["a"], read=None, groups=[0], captions=[[]])
    with pytest.raises(RadapterError, match=r"^bare has no [^\n]*\.$"):
        load(TASKS, task).needs(bare, described)


def test_an_unknown_task_or_metric_is_refused(data):
    with pytest.raises(ValueError, match="Input should be '") as refused:
        suite_of(data["classification"], "no-such-task")
    assert all(repr(task) in str(refused.value) for task in TASKS)


def test_a_new_task_is_a_file_and_a_line(data, tiny_folder, shapes, tmp_path, monkeypatch):
    """It is in a suite, in the tables, ranked by `compare` the way it says."""
    (tmp_path / "toy_task.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TASKS, "toy", "toy_task")
    suite = suite_of(data["classification"], "classification", "toy")
    run = train(tiny.recipe(tiny_folder, shapes), tmp_path)
    merging.write_merged(run, 0.5)
    result = of_run.evaluate_run(run, suite, "torch")
    assert result["models"]["zero-shot"]["datasets"]["set"]["width"] == 16
    assert result["protocol"]["toy"] == "the first number"
    printed = tiny.printed(result_tables.evaluation_tables(result))
    assert any(line.startswith("first number above 0, % (chance 50.0)") for line in printed)
    assert any(line.startswith("spread of features (chance 0.000)") for line in printed)
    compared = comparison.compare_runs([run])
    text = comparison_tables.to_markdown(compared)
    assert "**mine: spread of features**" in text
    one, other = (row.numbers["mine", "in-distribution", "spread"] for row in compared.rows)
    for number, value in ((one, 0.1), (other, 0.2)):
        number.value, number.interval, number.mark = value, (value - 0.01, value + 0.01), ""
    comparison._rank([one, other], -1)
    assert (one.mark, other.mark) == ("best", "")
    del sys.modules["toy_task"]


def test_choices_are_made_by_metrics_of_which_a_larger_one_is_better():
    assert all(metrics()[name].better == "larger" for name in main_metrics().values())
