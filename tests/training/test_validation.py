import hashlib
import json

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from radapter import merging, models
from radapter import run as runs
from radapter.data import open_data
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import alphas
from radapter.evaluation.suite import held_out_suite
from radapter.registry import OF_QUERIES
from radapter.training import Interrupted, files, resume, session, train
from radapter.training.validation import Validator

HELD_OUT = ["data.hold_out=0.3", "optimisation.epochs=4"]  # 8 steps, 2 an epoch
EVERY = [*HELD_OUT, "monitor={every_steps: 1}"]


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def validations(run):
    return [(line["step"], line["validation"]) for line in run.logged("validation")]


def facts_of(path):
    with safe_open(path, framework="pt") as tensors:
        return json.loads(tensors.metadata()["radapter"])


def same(one, two):
    one, two = load_file(one), two if isinstance(two, dict) else load_file(two)
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def scored(monkeypatch):
    """Scores that go up and down, a function of the adapter alone; what was scored with which."""
    found = []

    def score(self, method, head, stored, alpha, on_progress):
        on_progress(1, 2)
        digest = hashlib.sha256(b"".join(stored[name].numpy().tobytes() for name in sorted(stored)))
        value = digest.digest()[0] % 4 / 4
        found.append((value, {name: tensor.clone() for name, tensor in stored.items()}))
        on_progress(2, 2)
        return {"accuracy": value}

    monkeypatch.setattr(Validator, "score", score)
    return found


def scripted(monkeypatch, values):
    values = iter(values)
    monkeypatch.setattr(Validator, "score", lambda self, *_: {"accuracy": next(values)})


# ------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    "change",
    [
        [],
        ["workers=1", "method.drop_unit=sample"],
        ["method={name: full, average: {momentum: 0.9}}"],
        ["method={name: lora, rank: 2}"],
    ],
)
def test_training_is_the_same_with_and_without_it(recipe, tmp_path, change):
    without = train(recipe(*HELD_OUT, *change), tmp_path / "a")
    monitored = train(recipe(*EVERY, *change), tmp_path / "b")
    assert monitored.adapter.read_bytes() == without.adapter.read_bytes()
    assert not without.best.exists()
    losses = [[line["loss"] for line in run.logged("loss")] for run in (without, monitored)]
    assert losses[0] == losses[1]
    assert len(validations(monitored)) == len(losses[0])


@pytest.mark.parametrize(
    "method", [[], ["method={name: full, average: {momentum: 0.5}}"], ["method={name: lora}"]]
)
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_the_number_is_that_of_the_merged_model(recipe, tmp_path, method, alpha):
    monitor = f"monitor={{every_epochs: 2, alpha: {alpha}}}" if alpha else "monitor.every_epochs=2"
    settings = recipe("data.hold_out=0.5", "optimisation.epochs=6", monitor, *method)
    run = train(settings, tmp_path)
    lines = run.logged("validation")
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {line["alpha"] for line in lines} == {alpha or 0.5}
    # By hand: the mean of each class's two prompts, the nearest one for each picture.
    model = models.load(settings.model)
    model.model.load_state_dict(merging.merge(run, alpha or 0.5))
    data = open_data(settings.validation_data())
    prompts = [["a photo of a {}.".replace("{}", n), f"a {n}"] for n in data.class_names]
    with torch.no_grad():
        pictures = torch.stack([model.preprocess(data.read(i)) for i in range(len(data))])
        images = model.model.encode_image(pictures, normalize=True)
        heads = [
            model.model.encode_text(model.tokenizer(own), normalize=True).mean(0) for own in prompts
        ]
    head = torch.nn.functional.normalize(torch.stack(heads), dim=-1)
    right = (images @ head.T).argmax(1) == torch.tensor(data.labels)
    assert lines[-1]["validation"] == {"accuracy": pytest.approx(right.float().mean().item())}
    assert 6 <= len(data) < 20


def test_captions_are_scored_by_recall(recipe, tmp_path, shapes):
    table = tmp_path / "pairs.csv"
    rows = [f"{path},{path.parent.name} {path.stem}" for path in sorted(shapes.rglob("*.png"))]
    table.write_text("filepath,title\n" + "\n".join(rows))
    source = f"data={{source: table, path: {table}, task: captions, hold_out: 0.3}}"
    run = train(recipe(source, "monitor.every_epochs=3"), tmp_path / "runs")
    (_, metrics), *_ = validations(run)
    assert set(metrics) == {
        f"{way}_r{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)
    }
    assert run.logged("validation")[0]["metric"] == "text_to_image_r1"


@pytest.mark.parametrize(
    ("interval", "steps"),
    [("every_steps: 3", [3, 6, 8]), ("every_epochs: 1", [2, 4, 6, 8]), ("every_epochs: 9", [8])],
)
def test_when_it_is_scored(recipe, tmp_path, scored, interval, steps):
    seen = []
    run = train(
        recipe(*HELD_OUT, f"monitor={{{interval}}}"),
        tmp_path,
        on_step=lambda m: seen.append(m["step"]) if "validation" in m else None,
    )
    assert [step for step, _ in validations(run)] == seen == steps


def test_broken_pictures_are_named_once(recipe, tmp_path, tiny_folder, capsys):
    root = tiny.draw_shapes(tmp_path / "shapes")
    settings = recipe(*EVERY, f"data.root={root}", "data.broken_images=1")
    held, *_ = open_data(settings.validation_data()).keys
    (root / held).write_bytes(b"no picture")
    run = train(settings, tmp_path / "runs")
    assert len(validations(run)) == 8
    assert capsys.readouterr().err.count("skipped") == 1


# ------------------------------------------------------------------ best and last, early stop


def test_the_best_is_kept_beside_the_last(recipe, tmp_path, scored):
    run = train(recipe(*EVERY), tmp_path)
    values = [value for value, _ in scored]
    best = values.index(max(values))  # the first of equal ones
    assert same(run.best, scored[best][1])
    assert same(run.adapter, scored[-1][1])
    facts, last = facts_of(run.best), facts_of(run.adapter)
    assert facts.pop("validation") == {"accuracy": max(values)}
    assert (facts["steps"], last["steps"]) == (best + 1, 8)
    assert facts["start_share"] == pytest.approx(0.9 ** (best + 1))
    changed = {"steps", "start_share"}
    assert {k: v for k, v in facts.items() if k not in changed} == {
        k: v for k, v in last.items() if k not in changed
    }
    assert {line["best_step"] for line in run.logged("validation")[best:]} == {best + 1}


@pytest.mark.parametrize(
    ("values", "steps", "best"),
    [
        ([0.5, 0.6, 0.6, 0.5, 0.9], 4, 2),  # equal is not better
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.1, 0.1], 7, 5),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 8, 8),
    ],
)
def test_an_early_stop(recipe, tmp_path, monkeypatch, values, steps, best):
    scripted(monkeypatch, values)
    rates = []
    settings = recipe(*HELD_OUT, "monitor={every_steps: 1, early_stop: {patience: 2}}")
    run = train(settings, tmp_path / "a", on_step=lambda m: rates.append(m["lr"]))
    assert facts_of(run.adapter)["steps"] == len(rates) == steps
    assert facts_of(run.best)["steps"] == best
    planned = []
    train(recipe(*HELD_OUT), tmp_path / "b", on_step=lambda m: planned.append(m["lr"]))
    assert rates == planned[:steps]
    assert not run.checkpoints.exists()
    assert resume(run) == run


# ------------------------------------------------------------------ resuming


def stop_at(call):
    calls = []

    def should_stop():
        calls.append(1)
        return len(calls) == call

    return should_stop


def files_of(run):
    lines = [line | {"validation_seconds": 0} for line in run.logged("validation")]
    losses = [(line["step"], line["loss"]) for line in run.logged("loss")]
    return run.adapter.read_bytes(), run.best.read_bytes(), lines, losses


@pytest.mark.slow
@pytest.mark.parametrize("early", ["", ", early_stop: {patience: 3}"])
def test_resuming_is_exact_wherever_it_was_stopped(recipe, tmp_path, scored, early):
    """Three questions a step (two while scoring, one after it): each is a place to stop at."""
    settings = recipe(*HELD_OUT, f"monitor={{every_steps: 1{early}}}")
    whole = train(settings, tmp_path / "whole")
    steps = facts_of(whole.adapter)["steps"]
    for call in range(1, 3 * steps, 4):
        with pytest.raises(Interrupted) as caught:
            train(settings, tmp_path / str(call), should_stop=stop_at(call))
        run = caught.value.run
        assert caught.value.step == (call - 1) // 3 + 1
        # Of steps that the checkpoint does not know: a kill may come after this was written.
        run.best.write_bytes(b"of another future")
        with run.metrics.open("a") as file:
            file.write(json.dumps({"step": 99, "validation": {"accuracy": 1.0}}) + '\n{"step": 1')
        if call % 8 == 1:
            with pytest.raises(Interrupted):
                resume(run, should_stop=stop_at(2))
        resume(run)
        assert files_of(run) == files_of(whole), call


def test_a_run_stopped_before_its_first_validation_has_no_best(recipe, tmp_path, scored):
    settings = recipe(*HELD_OUT, "monitor.every_steps=5")
    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path, should_stop=stop_at(1))
    run = caught.value.run
    run.best.write_bytes(b"of another future")
    with pytest.raises(Interrupted):
        resume(run, should_stop=stop_at(1))
    assert not run.best.exists()


# ------------------------------------------------------------------ what goes wrong


def test_held_out_data_that_goes_away_costs_no_step(recipe, tmp_path, scored, monkeypatch):
    settings = recipe(*HELD_OUT, "monitor.every_steps=3")
    whole = train(settings, tmp_path / "whole")
    good = Validator.score

    def gone(*_):
        raise BrokenInput("held-out: no picture can be read.")

    def on_step(m):
        if m["step"] == 5:
            monkeypatch.setattr(Validator, "score", gone)

    with pytest.raises(BrokenInput, match=r"no picture can be read.\nTo go on from step 6, type: "):
        train(settings, tmp_path / "gone", on_step=on_step)
    monkeypatch.setattr(Validator, "score", good)
    run = runs.find(root=tmp_path / "gone")
    assert [step for step, _ in validations(run)] == [3]
    assert files_of(resume(run)) == files_of(whole)


def test_a_best_adapter_that_could_not_be_written_is_written_later(recipe, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.5, 0.9, 0.4, 0.3])
    whole = train(recipe(*HELD_OUT, "monitor.every_steps=2"), tmp_path / "whole")
    scripted(monkeypatch, [0.5, 0.9, 0.4, 0.3])
    good = files.write_best

    def full(run, parts, validation):
        if validation.record.step == 4:
            raise OSError(28, "No space left on device")
        good(run, parts, validation)

    monkeypatch.setattr(session, "write_best", full)
    with pytest.warns(UserWarning, match=r"best adapter was not written: No space left.*goes on"):
        run = train(recipe(*HELD_OUT, "monitor.every_steps=2"), tmp_path / "full")
    assert files_of(run) == files_of(whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_number_is_that_of_the_merged_model(recipe, tmp_path):
    run = train(recipe(*EVERY, "device=cuda"), tmp_path)
    trained = merging.open_trained(run)
    ((_, evaluated),) = alphas.alpha_curve(
        held_out_suite(run.recipe()), trained, [0.5], device="cuda"
    )
    assert len(validations(run)) == 8
    assert validations(run)[-1][1] == {"accuracy": evaluated.sets["held-out"].value("accuracy")}


# ------------------------------------------------------------------ the recipe


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["monitor.every_steps=1"], "monitor needs held-out data"),
        *(
            ([f"method={{name: {name}}}", "data.hold_out=0.2", how], f"method {name} changes no")
            for name in OF_QUERIES
            for how in ("monitor.every_steps=1", "monitor={every_epochs: 1, early_stop: {}}")
        ),
        (["data.hold_out=0.2", "monitor={every_steps: 1, every_epochs: 1}"], "give one"),
        (["data.hold_out=0.2", "monitor={early_stop: {}}"], "early_stop needs every_epochs"),
        (["data.hold_out=0.2", "monitor.every_steps=0"], "greater than or equal to 1"),
    ],
)
def test_a_wrong_monitor(recipe, overrides, words):
    with pytest.raises(UsageError, match=words):
        recipe(*overrides)
