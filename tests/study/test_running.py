"""Both stages of a study on a tiny model: what is run, what is not run again, and what fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radapter import recipe as recipes
from radapter.errors import UsageError
from radapter.evaluation.alphas import ALPHAS
from radapter.evaluation.evaluate import evaluate
from radapter.merging import load_merged
from radapter.run import Run
from radapter.runtimes.opened import from_loaded
from radapter.study import running, schema
from radapter.study.estimate import estimate
from radapter.study.planning import Plan, agrees, key_of
from radapter.study.results import Folder, share_of
from radapter.study.table import summarise


def trained(small):
    """The folders of trainings."""
    return sorted(path.parent for path in small.place.glob("runs/*/*/adapter.safetensors"))


def test_trials_choose_and_finalists_run_with_every_seed(small):
    assert small.run() == []
    outline = small.folder.read_study()
    full, interpolated = outline["methods"]["full"], outline["methods"]["WiSE-FT"]
    assert len(full["trials"]) == 2
    assert [own["seed"] for own in full["finalists"]] == [0, 1]
    # One recipe is trained once, whichever method and stage wants it.
    wanted = {r["run"] for m in (full, interpolated) for r in (*m["trials"], *m["finalists"])}
    assert len(trained(small)) == len(wanted)
    for method, rule in ((full, 1.0), (interpolated, None)):
        scores = []
        for trial in method["trials"]:
            held_out = small.folder.read_run(trial["run"])["held_out"]
            at = held_out["auto"] if rule is None else rule
            scores.append(next(p["accuracy"] for p in held_out["points"] if p["alpha"] == at))
        assert method["chosen"] == scores.index(max(scores))
    # No trial has seen a suite, unless it is a finalist too.
    finalists = {own["run"] for method in (full, interpolated) for own in method["finalists"]}
    for name in wanted:
        assert bool(small.folder.read_run(name)["suites"]) == (name in finalists)


def test_curves_of_training_are_kept(small):
    """Those of a run, of at most so many points; they come back where they are missing."""
    small.run()
    run = small.folder.read_study()["methods"]["full"]["finalists"][0]["run"]
    kept = small.folder.read_run(run)
    key = kept["key"][:16]
    (folder,) = (path for path in trained(small) if path.parent.name.startswith(key))
    logged = Run(folder).curves()
    assert kept["curves"].keys() == logged.keys() - {"lr"}
    for name, points in kept["curves"].items():
        assert [step for step, _ in points] == [step for step, _ in logged[name]]
        values = [value for _, value in points]
        assert values == pytest.approx([value for _, value in logged[name]], rel=1e-4)
    assert len(Run(folder).curves(2)["loss"]) == min(2, len(logged["loss"]))
    zero_shot = small.folder.read_study()["methods"]["zero-shot"]["finalists"][0]["run"]
    assert small.folder.read_run(zero_shot)["curves"] == {}
    small.folder.write_run(run, {key: own for key, own in kept.items() if key != "curves"})
    small.run(alphas=[0, 0.3, 1])
    assert small.folder.read_run(run)["curves"] == kept["curves"]


def test_runs_are_scored_where_their_methods_look(small):
    """`full` and `WiSE-FT` share trainings, and one takes `auto`; alone `full` needs its own
    alpha."""
    plan = small.plan()
    job = plan.finalists("full")[0]
    assert set(plan.held_out_alphas(job)) == {*ALPHAS}
    assert 0.7 in plan.suite_alphas(job, 0.7)
    plan.study.methods.pop("WiSE-FT")
    assert plan.held_out_alphas(job) == [1.0]
    assert plan.suite_alphas(job, None) == sorted({*plan.study.alphas, 1.0})


def test_what_is_there_is_not_run_again(small):
    small.run()
    before = trained(small)
    small.done.clear()
    assert small.run() == []
    assert small.done == []
    # Another study over the same recipes scores, and trains nothing.
    other = Folder(small.place / "results" / "other")
    assert running.run_study(small.plan(name="other"), other, runs=small.place / "runs") == []
    assert small.done
    assert trained(small) == before
    # A new alpha of the curves is scored in finalists alone.
    small.done.clear()
    small.write(name="small")
    small.run(alphas=[0, 0.3, 1])
    assert {path.stem for path in small.folder.path.glob("*-seed*")} > set(small.done)
    assert trained(small) == before
    assert {p["alpha"] for p in summarise(small.folder)["methods"][0]["curve"]} == {0.0}
    assert {0.0, 0.3, 1.0} <= {p["alpha"] for p in summarise(small.folder)["methods"][1]["curve"]}


def test_a_result_of_another_recipe_or_other_weights_is_replaced(small):
    small.run()
    (job, *_) = small.plan().trials("full")[0]
    kept = small.folder.read_run(job.name)
    for change in ({"base_hash": "0" * 64}, {"recipe": kept["recipe"] | {"precision": "bf16"}}):
        small.folder.write_run(job.name, kept | change)
        small.done.clear()
        small.run()
        assert small.done[0] == job.name
        again = small.folder.read_run(job.name)
        assert {**again, "cost": 0} == {**kept, "cost": 0}


def test_a_result_whose_terms_have_settings_since_is_kept():
    """Of an objective that is a list, as of other sections; and none of its terms may be gone."""
    kept = {"seed": 1, "objective": [{"name": "mpm-nce", "margin": 0.0}, {"name": "l2-sp"}]}
    terms = [{"name": "mpm-nce", "margin": 0.0, "new": 1}, {"name": "l2-sp"}]
    assert agrees(kept, {"seed": 1, "objective": terms})
    assert not agrees(kept, {"seed": 1, "objective": terms[:1]})
    assert not agrees(kept, {"seed": 1, "objective": [terms[0] | {"margin": 0.1}, terms[1]]})


def test_one_alpha_that_auto_does_not_look_at(small):
    assert 0.33 not in ALPHAS
    methods = {"zero-shot": {"alpha": 0}, "a third": FULL | {"grid": {}, "alpha": 0.33}}
    assert small.run(methods=methods) == []
    (row,) = (m for m in summarise(small.folder)["methods"] if m["label"] == "a third")
    assert {run["alpha"] for run in row["runs"]} == {0.33}


def test_a_process_that_something_else_stopped_is_a_failure(small, monkeypatch):
    monkeypatch.setattr(running.Workers, "call", lambda self, order: (running.INTERRUPTED, ""))
    failed = small.run()
    assert failed
    assert {failure.code for failure in failed} == {130}
    assert "something else than the study asked its process to stop" in failed[0].message


def test_keys_follow_what_is_trained_alone(small):
    plan = small.plan()
    (job, *_) = plan.trials("full")[0]
    same = {"description": "x", "alpha": 0.7, "workers": 0, "suites": ["few-shot"]}
    assert key_of(job.recipe.model_copy(update=same), False) == job.key
    for change in ({"seed": 5}, {"precision": "bf16"}, {"model": "pictogram-clip"}):
        assert key_of(job.recipe.model_copy(update=change), False) != job.key
    # The zero-shot model has no seed and no method.
    assert key_of(job.recipe, True) == key_of(plan.trials("full")[1][0].recipe, True)


def test_a_failed_run_is_named_and_the_rest_goes_on(small, cli):
    methods = {
        "zero-shot": {"alpha": 0},
        "full": {"set": {"method": {"name": "full"}, "optimisation.clip_norm": None},
                 "grid": {"optimisation.lr": [1e-3, 1e30]}, "alpha": 1},
    }  # fmt: skip
    small.write(methods=methods)
    outcome = cli("study", "small.yaml", "--runs", "runs")
    assert outcome.code == 3
    assert "1 of the study's runs failed" in outcome.err
    assert "full, optimisation.lr=1e+30, fold 0, seed 0: The loss" in outcome.err
    assert "small" in outcome.out  # the table, of what is there
    assert small.folder.table.is_file()
    assert small.folder.read_study()["methods"]["full"]["chosen"] == 0
    assert {m["label"] for m in summarise(small.folder)["methods"]} == {"zero-shot", "full"}
    assert cli("study", "small.yaml", "--tables").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"choose": {"on": "others"}},
            r"small.yaml:\d+:\d+: choose.on: settings are chosen on held",
        ),
        ({"choose": {"metric": "acuracy"}}, r"small.yaml:\d+:\d+: choose.metric"),
        ({"baseline": "ful"}, "baseline 'ful' is not one of the methods. Did you mean 'full'"),
        ({"compare": ["other"]}, "nothing of the suites is called 'other'. Did you mean 'others'"),
        ({"set": {}}, "methods.*: the recipe has no held-out data"),
        ({"set": {"data.hold_out": 0.3, "start": "tiny"}}, "name the method of the study that it"),
        ({"set": {"data.hold": 1}}, "methods.*: override data.hold"),
        ({"metrics": ["text_to_image_r5"]}, "text_to_image_r5 is in no table"),
        (
            {
                "metrics": ["accuracy"],
                "methods": {"zero-shot": {"alpha": 0, "shows": {"acc": "r1"}}},
            },
            r"methods.zero-shot.shows",
        ),
        (
            {
                "metrics": ["accuracy"],
                "methods": {"zero-shot": {"alpha": 0, "shows": {"composed_r1": "accuracy"}}},
            },
            "method 'zero-shot' shows 'composed_r1', not in `metrics`",
        ),
        (
            {
                "methods": {
                    "zero-shot": {"alpha": 0},
                    "LinCIR": {
                        "set": {"method": {"name": "inversion"}, "objective": [{"name": "lincir"}]}
                    },
                }
            },
            "inversion changes no feature",
        ),
        ({"finalists": {"seeds": [1, 1]}}, "finalists.seeds: a seed is there twice"),
    ],
)
def test_what_is_wrong_is_refused(small, change, message):
    with pytest.raises(UsageError, match=message):
        small.plan(**change)


def test_methods_need_as_many_trials_unless_a_reason_is_given(small):
    methods = {
        "full": {"set": {"method": {"name": "full"}}, "grid": {"optimisation.lr": [1e-3, 1e-2]}},
        "lora": {"set": {"method": {"name": "lora"}}, "trials": [["optimisation.lr=1e-3"]]},
    }
    with pytest.raises(UsageError, match=r"different numbers of trials \(full 2, lora 1\)"):
        small.plan(methods=methods, baseline="full")
    plan = small.plan(methods=methods, baseline="full", unequal_trials="lora's is published")
    # One setting has nothing to be chosen from.
    assert [len(plan.trials(label)) for label in methods] == [2, 0]


def test_held_out_data_that_is_a_shift_of_the_suites_is_refused(small, other_shapes):
    section = {"source": "folder", "root": str(other_shapes), "split": "all", "hold_out": 0.0}
    with pytest.raises(UsageError, match="the held-out data of the recipe is others of shapes-sh"):
        small.plan(set={"data.hold_out": 0.3, "validation": section})


def test_unlabelled_pictures_that_are_tested_or_chosen_on_are_refused(small, shapes, other_shapes):
    section = {"source": "folder", "root": str(other_shapes)}
    with pytest.raises(UsageError, match="unlabelled: it has test pictures of others of the suite"):
        small.plan(set={"data.hold_out": 0.3, "unlabelled": section})
    held_out = {"data.hold_out": 0.3, "unlabelled": section | {"root": str(shapes)}}
    with pytest.raises(UsageError, match=r"methods\..*: unlabelled: \d+ of its pictures are held"):
        small.plan(set=held_out)


def test_held_out_data_that_is_the_test_data_is_refused(small, shapes):
    section = {"source": "folder", "root": str(shapes), "split": "all", "hold_out": 0.0}
    with pytest.raises(UsageError, match="is shapes of shapes-shift, the test data"):
        small.plan(set={"validation": section})


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({"kinds": ["solid"], "split": "validation", "shots": 16}, "solid of .* which is shifted"),
        ({"kinds": ["line", "pixel"], "drawing": "anew"}, "pixel of .*, which is shifted"),
        ({"kinds": ["line"], "split": "test", "shots": 4}, "line of .*, the test data"),
    ],
)
def test_what_is_drawn_of_a_set_does_not_hide_which_it_is(validation, message):
    study = schema.load(schema.locate("icons"))
    changed = {"validation": {"source": "icons", "split": "validation"} | validation}
    with pytest.raises(UsageError, match=message):
        Plan(study.model_copy(update={"set": changed}), "icons")


def test_seeds_go_through_the_folds(small):
    plan = small.plan(
        folds=[["data.hold_out=0.3"], ["data.hold_out=0.4"]], finalists={"seeds": [5, 6, 7]}
    )
    jobs = plan.finalists("full")
    assert [(job.fold, job.seed, job.recipe.data.hold_out) for job in jobs] == [
        (0, 5, 0.3), (1, 6, 0.4), (0, 7, 0.3),
    ]  # fmt: skip
    zero_shot = plan.finalists("zero-shot")
    assert [job.seed for job in zero_shot] == [5, 5, 5]
    assert zero_shot[0].key == zero_shot[2].key != zero_shot[1].key


FULL = {"set": {"method": {"name": "full"}}, "grid": {"optimisation.lr": [1e-3, 1e-2]}, "alpha": 1}


def test_a_soup_is_of_runs_that_no_other_soup_has(small):
    soup = {"soup": {"of": "full", "rule": "uniform", "members": 2}, "alpha": 1}
    methods = {"zero-shot": {"alpha": 0}, "soup": soup, "full": FULL}
    plan = small.plan(methods=methods)
    assert plan.study.levels() == [["zero-shot", "full"], ["soup"]]
    assert small.run(methods=methods) == []
    outline = small.folder.read_study()["methods"]
    assert outline["soup"]["trials"] == []
    plan.choose(small.folder)
    # To train were two trials, a finalist more, and for each soup one more.
    none = Folder(small.place / "none")
    assert estimate(small.plan(methods=methods), none, 1).trainings_missing == 2 + 1 + 2
    for seed, job in zip((0, 1), plan.finalists("soup"), strict=True):
        assert [need.seed for need in job.needs] == [seed, 1000 + seed]
        made = [
            next(small.place.glob(f"runs/{need.key[:16]}-*/*/adapter.safetensors"))
            for need in (*job.needs, job)
        ]
        *members, mean = [load_file(path) for path in made]
        for name, tensor in mean.items():
            assert torch.allclose(tensor, (members[0][name] + members[1][name]) / 2, atol=1e-6)
        cost = small.folder.read_run(job.name)["cost"]
        alone = small.folder.read_run(outline["full"]["finalists"][seed]["run"])["cost"]
        assert cost["seconds"] > alone["seconds"]  # of both its runs
    small.done.clear()
    assert small.run() == []
    assert small.done == []


def test_scores_may_be_computed_in_half_precision(small, monkeypatch):
    monkeypatch.setattr("radapter.precision.cpu_has_bf16", lambda: True)
    methods = {"zero-shot": {"alpha": 0}, "full": FULL | {"grid": {}}}
    small.run(methods=methods, finalists={"seeds": [0]})
    before = small.folder.read_run(small.plan().finalists("full")[0].name)
    small.done.clear()
    small.run(precision="bf16")
    assert len(small.done) == 2  # scored again, and not trained again
    after = small.folder.read_run(small.plan().finalists("full")[0].name)
    assert after["cost"]["seconds"] == before["cost"]["seconds"]
    assert (before["held_out"]["precision"], after["held_out"]["precision"]) == ("fp32", "bf16")
    of = [own["suites"]["shapes-shift"]["definition"] for own in (before, after)]
    assert of[0] != of[1]
    small.done.clear()
    small.run()
    assert small.done == []
    monkeypatch.setattr("radapter.precision.cpu_has_bf16", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.warns(UserWarning, match="scores are computed in fp32"):
        small.run()
    now = small.folder.read_run(small.plan().finalists("full")[0].name)
    assert now["held_out"] == before["held_out"]


def test_a_run_is_merged_by_rules_that_learn_on_held_out_data(small):
    def by(rule, **settings):
        return {"merge": {"of": "full", "rule": rule, "settings": settings}, "alpha": 1}

    rules = {"TPGM": by("tpgm", steps=3), "l2": by("tpgm", norm="l2", steps=3), "VRF": by("vrf")}
    rules["per tower"] = by("per-tower")
    methods = {"zero-shot": {"alpha": 0}, **rules, "full": FULL}
    assert small.run(methods=methods) == []
    plan = small.plan()
    plan.choose(small.folder)
    # Two trials and a finalist more were trained, and nothing for the rules.
    none = Folder(small.place / "none")
    assert estimate(small.plan(), none, 1).trainings_missing == 2 + 1
    for label, folder in (
        ("TPGM", "tpgm"),
        ("l2", "tpgm-l2"),
        ("VRF", "vrf"),
        ("per tower", "image-*"),
    ):
        for job, full in zip(plan.finalists(label), plan.finalists("full"), strict=True):
            assert job.needs == (full,)
            (of,) = small.place.glob(f"runs/{full.key[:16]}-*/*/merged/{folder}")
            merged, tuned = (small.folder.read_run(j.name)["cost"]["seconds"] for j in (job, full))
            assert merged > tuned  # the merge took its time too
            suite = plan.suites["shapes-shift"]
            scored = evaluate(suite, from_loaded(load_merged(of)))
            own = small.folder.read_run(job.name)["suites"]["shapes-shift"]
            assert own["alphas"] == [1]
            for name, found in scored.sets.items():
                right = own["datasets"][name]["metrics"]["accuracy"]
                assert share_of(right, 0) == pytest.approx(found.metrics["accuracy"].scores.mean())
    found = summarise(small.folder)
    assert {m["label"] for m in found["methods"]} == methods.keys()
    assert [note for note in found["notes"] if note.startswith("VRF: the zero-shot and the tuned")]
    small.done.clear()
    assert small.run() == []
    assert small.done == []
    dear = rules | {"TPGM": by("tpgm", steps=100_000)}
    few, many = (estimate(small.plan(methods=methods | m), none, 1).seconds for m in ({}, dear))
    assert many > 10 * few


def test_a_method_starts_from_the_chosen_run_of_another(small):
    head = {"head": {"name": "linear"}, "objective": [{"name": "cross-entropy"}]}
    rates = {"optimisation.lr": [1e-4, 1e-2]}
    methods = {
        "LP-FT": {
            "set": {"method": {"name": "full", "towers": "image"}, **head},
            "start": "probe",
            "grid": rates,
        },
        "probe": {"set": {"method": {"name": "frozen"}, **head}, "grid": rates, "alpha": 1},
    }
    assert small.run(methods=methods, baseline="probe") == []
    plan = small.plan()
    plan.choose(small.folder)
    for job in (*plan.finalists("LP-FT"), *(own[0] for own in plan.trials("LP-FT"))):
        (probe,) = job.needs
        assert (probe.seed, probe.own) == (job.seed, tuple(plan.choices["probe"]))
        (run,) = small.place.glob(f"runs/{job.key[:16]}-*/*/recipe.yaml")
        started = Path(recipes.load(run).start)
        assert started.parent.name.startswith(probe.key[:16])
        # What is committed names no folder of this machine.
        assert small.folder.read_run(job.name)["recipe"]["start"] is None
    assert {m["label"] for m in summarise(small.folder)["methods"]} == {"LP-FT", "probe"}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"soup": {"of": "fulll"}}, "rests on 'fulll', which is none. Did you mean 'full'"),
        ({"soup": {"of": "zero-shot"}}, "'zero-shot', which has no trials of its own"),
        ({"soup": {"of": "full"}, "set": ["seed=1"]}, "it takes `soup` and `alpha` alone"),
        ({"start": "other"}, "rests on 'other', which has no trials of its own"),
        ({"merge": {"of": "full", "rule": "vrf"}}, "decides itself .* write alpha: 1"),
        ({"merge": {"of": "full", "rule": "vrf"}, "start": "full"}, "`merge` and `alpha` alone"),
        (
            {"merge": {"of": "full", "rule": "vrf", "settings": {"norm": "l2"}}, "alpha": 1},
            "vrf has no setting 'norm': it has distance",
        ),
    ],
)
def test_what_a_method_cannot_rest_on_is_refused(small, method, message):
    with pytest.raises(UsageError, match=message):
        small.plan(methods={"zero-shot": {"alpha": 0}, "full": FULL, "other": method})


def test_the_processes_share_cores_and_gpus(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    workers = running.Workers(3, ["4", "6"])
    found = [workers.environment(place) for place in range(3)]
    assert [own["CUDA_VISIBLE_DEVICES"] for own in found] == ["4", "6", "4"]
    assert {own["OMP_NUM_THREADS"] for own in found} == {"2"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in running.Workers(1).environment(0)


# ---------------------------------------------------------------- as a command


def start(small, *more):
    command = [sys.executable, "-m", "radapter", "study", "small.yaml", *more]
    return subprocess.Popen(
        command, cwd=small.place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_after_a_kill_in_training(small, number):
    """A killed run goes on from its checkpoint; what was finished is not repeated."""
    path = small.write(
        set={"data.hold_out": 0.3, "optimisation.epochs": 150, "checkpoints.every_seconds": 0.01},
        methods={"zero-shot": {"alpha": 0},
                 "full": {"set": {"method": {"name": "full"}}, "alpha": 1}},
        finalists={"seeds": [0]},
    )  # fmt: skip
    process = start(small)
    wait_for(lambda: list(small.place.glob("runs/*/*/*/checkpoints/step-*")), process)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)  # the study passes it on
    said = process.communicate()[1]
    assert process.returncode == (130 if number == signal.SIGTERM else -number), said
    (run,) = small.place.glob("runs/*/*/*/recipe.yaml")
    assert not (run.parent / "adapter.safetensors").is_file()
    shown = start(small, "--tables").communicate()[0]
    assert "full is not in the table: 0 of 1 runs are there." in shown
    process = start(small)
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert list(small.place.glob("runs/*/*/*/recipe.yaml")) == [run]  # the same run
    steps = [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["step"] == steps[-1]["steps"]
    results = Folder(small.place / "results" / "small")
    assert [m["label"] for m in summarise(results)["methods"]] == ["zero-shot", "full"]
    assert "zero-shot" in out
    assert "full" in out
    assert Plan(schema.load(path), "").trained_metric == "accuracy"


@pytest.mark.slow
def test_several_at_a_time_give_the_same(small, tmp_path):
    alone = small.folder
    small.run()
    process = start(small, "--jobs", "2", "--results", "r2", "--runs", "runs2")
    _, said = process.communicate()
    assert process.returncode == 0, said
    two = Folder(tmp_path / "r2")
    assert two.read_study() == alone.read_study()
    for name in alone.path.glob("*-seed*.json"):
        one, other = alone.read_run(name.stem), two.read_run(name.stem)
        assert {**one, "cost": 0} == {**other, "cost": 0}


@pytest.mark.slow
def test_smoke_of_the_study_that_ships(cli, tmp_path, record_property):
    started = time.monotonic()
    outcome = cli("study", "emoji", "--smoke", "--json")
    seconds = time.monotonic() - started
    record_property("meter", f"radapter study emoji --smoke: {seconds:.0f} s; allowed 180")
    assert outcome.code == 0, outcome.err
    methods = json.loads(outcome.out)["table"]["methods"]
    assert [len(method["runs"]) for method in methods] == [1] * len(methods)
    assert list(tmp_path.iterdir()) == []  # nothing is kept
    assert seconds < 2 * 180  # other tests share the two cores that the limit is for


def test_a_head_that_is_not_trained_is_a_method_like_others(small):
    """And an estimate is of a method that takes steps."""
    cache = {
        "method": {"name": "frozen"},
        "head": {"name": "tip-adapter"},
        "objective": [{"name": "cross-entropy"}],
        "data.augmentation": None,
    }
    methods = {
        "zero-shot": {"alpha": 0},
        "Tip-Adapter": {"set": cache, "alpha": 1},
        "full": FULL | {"grid": {}},
    }
    long = methods | {
        "full": methods["full"] | {"set": FULL["set"] | {"optimisation.epochs": 5000}}
    }
    few, many = (estimate(small.plan(methods=m), small.folder, 1).seconds for m in (methods, long))
    assert many > 3 * few
    found = estimate(small.plan(methods=methods), small.folder, 1)
    assert (found.trainings_missing, found.by.partition(",")[0]) == (
        4,
        "a timing of 2 kinds of training",
    )
    assert small.run(methods=methods) == []
    for job in small.plan().finalists("Tip-Adapter"):
        cost = small.folder.read_run(job.name)["cost"]
        assert (cost["steps"], cost["seconds"]) == (0, None)
    assert {m["label"] for m in summarise(small.folder)["methods"]} == methods.keys()


def test_a_metric_that_no_suite_has_is_refused_before_any_run(small):
    with pytest.raises(UsageError, match="metrics: the suites have no map: name some of accuracy"):
        small.plan(metrics=["map"])
