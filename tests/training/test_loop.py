import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from radapter import models
from radapter import recipe as recipes
from radapter import run as runs
from radapter.errors import BrokenInput, GateFailed, MissingDependency, UsageError
from radapter.methods import full
from radapter.objectives import contrastive
from radapter.recipe import rooted
from radapter.training import Interrupted, files, plan, preparing, resume, train
from radapter.training.step import training_mode

METHODS = {
    **{case.id: [f"method={tiny.method(*case.values)}"] for case in tiny.methods(alone=True)},
    "LoRA, retention": [
        "method={name: lora, rank: 2}",
        f"objective.retain={{captions: {__file__}}}",
    ],
    "decay": ["method={name: full}", "optimisation.weight_decay=0.1", "workers=1"],
}


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def facts_of(run):
    with safe_open(run.adapter, framework="pt") as tensors:
        return json.loads(tensors.metadata()["radapter"])


def stop_at(step):
    calls = []

    def should_stop():
        calls.append(1)
        return len(calls) == step

    return should_stop


def interrupted(recipe, root, step):
    with pytest.raises(Interrupted) as caught:
        train(recipe, root, should_stop=stop_at(step))
    assert caught.value.step == step
    assert not caught.value.run.adapter.exists()
    return caught.value.run


def steps_of(run):
    return [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]


def names(run):
    return sorted(p.name for p in run.path.iterdir())


# ------------------------------------------------------------------ a whole run


def test_a_run_from_start_to_end(recipe, tmp_path, tiny_folder):
    settings = recipe()
    seen, started = [], []
    run = train(
        settings,
        tmp_path,
        on_start=lambda run, plan: started.append((run, plan)),
        on_step=seen.append,
    )
    assert names(run) == [
        ".lock", "adapter.safetensors", "classes.json", "data.json",
        "environment.json", "metrics.jsonl", "recipe.yaml",
    ]  # fmt: skip
    assert run.recipe() == rooted(settings)
    assert (run.recipe().data.orientation, settings.data.orientation) == ("apply", None)
    assert [m["step"] for m in seen] == steps_of(run) == list(range(1, 10))
    assert seen[0]["lr"] == pytest.approx(5e-3)
    assert seen[1]["lr"] == pytest.approx(1e-2)
    assert seen[-1]["start_share"] == pytest.approx(0.9**9)
    ((of_start, made),) = started
    assert of_start.path == run.path
    assert made == dataclasses.replace(plan(settings), fit=None)
    assert (made.pictures, made.pairs, made.batch_size, made.steps) == (24, 24, 8, 9)
    assert made.trainable == 2 * 2 * (32**2 + 16**2)
    assert made.parameters == sum(p.numel() for p in models.load(tiny_folder).model.parameters())
    json.loads((run.path / "environment.json").read_text())


def test_what_the_adapter_file_says_of_itself(recipe, tmp_path, tiny_folder):
    run = train(recipe("method.rank=2"), tmp_path)
    facts = facts_of(run)
    assert facts["base_model"] == str(tiny_folder)
    assert facts["base_hash"] == models.load(tiny_folder).weights_hash
    assert facts["method"]["name"] == "r-adapter"
    assert facts["method"]["rank"] == 2
    assert facts["steps"] == 9
    assert facts["trained_parameters"] == 2 * 2 * (2 * 2 * 32 + 2 * 2 * 16)  # of U and D
    assert facts["start_share"] == pytest.approx(0.9**9)
    data = run.adapter.read_bytes()
    for secret in (run.name, run.name.split("-")[1], run.name.split("-")[2], str(tmp_path)):
        assert secret.encode() not in data
    linears = [f"{t}transformer.resblocks.{b}.{place}.delta"
               for t in ("visual.", "") for b in (0, 1)
               for place in ("attn.out_proj", "mlp.c_proj")]  # fmt: skip
    stored = load_file(run.adapter)
    assert set(stored) == set(linears)  # the average alone
    assert all(value.abs().max() > 0 for value in stored.values())


@pytest.mark.parametrize("change", [[], ["workers=1"], ["method={name: full}"]])
def test_the_same_seed_gives_the_same_file(recipe, tmp_path, change):
    first = train(recipe(*change), tmp_path / "a").adapter.read_bytes()
    torch.manual_seed(77)
    torch.rand(3)
    assert train(recipe(*change), tmp_path / "b").adapter.read_bytes() == first
    other = train(recipe(*change, "seed=4"), tmp_path / "c")
    one, two = load_file(other.adapter), load_file(next((tmp_path / "a").glob("*/adapter*")))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_workers_do_not_change_the_result(recipe, tmp_path):
    made = [train(recipe(f"workers={n}"), tmp_path / str(n)).adapter for n in (0, 1, 2)]
    assert made[0].read_bytes() == made[1].read_bytes() == made[2].read_bytes()


def test_random_weights_are_drawn_with_the_recipes_seed(shapes, tmp_path):
    settings = tiny.recipe("pictogram-clip:random", shapes, "optimisation.epochs=1")
    facts = facts_of(train(settings, tmp_path))
    assert facts["base_seed"] == 3
    assert facts["base_hash"] == models.load("pictogram-clip:random", seed=3).weights_hash


@pytest.mark.parametrize(("name", "settings"), tiny.methods(first=True, alone=True))
def test_the_loss_falls(recipe, tmp_path, name, settings):
    losses = []
    lr = "1e-3" if name in ("full", "stan") else "1e-2"
    settings = recipe(
        f"method={tiny.method(name, settings)}", f"optimisation.lr={lr}",
        "optimisation.epochs=12", "objective.margin=0", "objective.smoothing=0",
    )  # fmt: skip
    train(settings, tmp_path, on_step=lambda m: losses.append(m["loss"]))
    assert len(losses) == 36
    assert sum(losses[-6:]) < 0.85 * sum(losses[:6])


def test_full_tuning_stores_what_it_trains_and_keeps_the_temperature_in_bounds(recipe, tmp_path):
    method = "method={name: full, train_temperature: true}"
    run = train(recipe(method, "optimisation.lr=5"), tmp_path)
    stored = load_file(run.adapter)
    assert 0.0 <= stored["logit_scale"] <= 4.6052
    frozen = train(recipe("method={name: full}"), tmp_path)
    assert "logit_scale" not in load_file(frozen.adapter)


def test_pairs_or_groups_are_positives(recipe, tmp_path, monkeypatch):
    seen, labels = [], []
    real, real_positives = contrastive.multi_positive, contrastive.positives_of

    def watched(images, texts, positive, **settings):
        seen.append((positive, settings))
        return real(images, texts, positive, **settings)

    def watched_positives(batch, settings):
        labels.append(batch["groups"].tolist())
        return real_positives(batch, settings)

    monkeypatch.setattr(contrastive, "multi_positive", watched)
    monkeypatch.setattr(contrastive, "positives_of", watched_positives)
    train(recipe("optimisation.epochs=1"), tmp_path)
    train(recipe("optimisation.epochs=1", "objective.positives=pair"), tmp_path)
    by_group, by_pair = seen[:3], seen[3:]
    assert sorted(label for batch in labels[:3] for label in batch) == sorted([0, 1, 2] * 8)
    for (positive, _), batch in zip(by_group, labels[:3], strict=True):
        assert positive.tolist() == [[a == b for b in batch] for a in batch]
    assert all(torch.equal(positive, torch.eye(8).bool()) for positive, _ in by_pair)
    settings = by_group[0][1]
    assert (settings["smoothing"], settings["margin"]) == (0.02, 0.05)
    assert settings["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_bf16_trains(recipe, tmp_path):
    stored = load_file(train(recipe("precision=bf16"), tmp_path).adapter)
    assert all(value.dtype == torch.float32 for value in stored.values())
    assert all(torch.isfinite(value).all() for value in stored.values())


# ------------------------------------------------------------------ resuming


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(recipe, tmp_path, method, step):
    settings = recipe(*method)
    whole = train(settings, tmp_path / "whole")
    stopped = interrupted(settings, tmp_path / "stopped", step)
    assert steps_of(stopped) == list(range(1, step + 1))
    torch.manual_seed(step)
    seen = []
    done = resume(stopped, on_step=lambda m: seen.append(m["step"]))
    assert done.path == stopped.path
    assert seen == list(range(step + 1, 10))
    assert done.adapter.read_bytes() == whole.adapter.read_bytes()
    assert steps_of(done) == list(range(1, 10))
    assert names(done) == names(whole)


def test_a_run_resumed_after_every_step(recipe, tmp_path):
    settings = recipe()
    whole = train(settings, tmp_path / "whole")
    run = interrupted(settings, tmp_path / "stopped", 1)
    for step in range(2, 9):
        with pytest.raises(Interrupted) as caught:
            resume(run, should_stop=lambda: True)
        assert caught.value.step == step
    assert resume(run).adapter.read_bytes() == whole.adapter.read_bytes()
    assert steps_of(run) == list(range(1, 10))


def test_metrics_beyond_the_checkpoint_and_half_lines_are_dropped(recipe, tmp_path):
    run = interrupted(recipe(), tmp_path, 4)
    with open(run.metrics, "a") as file:
        file.write('{"step": 5, "loss": 1}\n{"step": 6, "lo')
    resume(run)
    assert steps_of(run) == list(range(1, 10))


@pytest.mark.filterwarnings("default:Checkpoint")
def test_a_damaged_newest_checkpoint_falls_back(recipe, tmp_path):
    settings = recipe("checkpoints.every_seconds=1e-9", "checkpoints.keep=3")
    whole = train(settings, tmp_path / "whole")
    run = interrupted(settings, tmp_path / "stopped", 6)
    found = sorted(run.checkpoints.glob("step-*"))
    assert [path.name for path in found] == [f"step-{n:08d}" for n in (4, 5, 6)]
    state = found[-1] / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-9])
    seen = []
    with pytest.warns(UserWarning, match="step-00000006 is damaged"):
        resume(run, on_step=lambda m: seen.append(m["step"]))
    assert seen == [6, 7, 8, 9]
    assert run.adapter.read_bytes() == whole.adapter.read_bytes()
    assert steps_of(run) == list(range(1, 10))


@pytest.mark.filterwarnings("ignore:Checkpoint")
def test_without_a_whole_checkpoint_there_is_no_resuming(recipe, tmp_path):
    run = interrupted(recipe(), tmp_path, 4)
    (run.checkpoints / "step-00000004" / "state.json").unlink()
    with pytest.raises(BrokenInput, match="Every checkpoint"):
        resume(run)
    assert not run.adapter.exists()


def test_a_run_killed_before_its_first_checkpoint_starts_again(recipe, tmp_path):
    settings = recipe()
    whole = train(settings, tmp_path / "whole")
    run = interrupted(settings, tmp_path / "stopped", 3)
    shutil.rmtree(run.checkpoints)
    (run.path / ".adapter.safetensors.0123abcd.tmp").write_bytes(b"half")
    resume(run)
    assert run.adapter.read_bytes() == whole.adapter.read_bytes()
    assert steps_of(run) == list(range(1, 10))
    assert names(run) == names(whole)


def test_resuming_a_finished_run_changes_nothing(recipe, tmp_path):
    run = train(recipe(), tmp_path)

    def picture():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.path.iterdir()}

    before = picture()
    assert resume(run, on_step=lambda m: pytest.fail("a step")).path == run.path
    assert picture() == before


def test_a_run_that_is_being_written_is_not_resumed(recipe, tmp_path):
    run = interrupted(recipe(), tmp_path, 3)
    with run.lock(), pytest.raises(BrokenInput, match="being written by another process"):
        resume(run)


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from radapter import recipe, training
training.train(
    recipe.load(sys.argv[1]), Path(sys.argv[2]),
    on_step=lambda m: print(m["step"], flush=True),
)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(recipe, tmp_path):
    from radapter import recipe as recipes

    settings = recipe("checkpoints.every_seconds=1e-9", "optimisation.epochs=7")
    whole = train(settings, tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(recipes.dump(settings))
    for kill_at in (2, 11):
        root = tmp_path / str(kill_at)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "recipe.yaml"), str(root)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            for line in process.stdout:
                if int(line) == kill_at:
                    break
            os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        run = runs.find(root=root)
        assert process.returncode == -signal.SIGKILL
        assert not run.adapter.exists()
        seen = []
        resume(run, on_step=lambda m, seen=seen: seen.append(m["step"]))
        assert seen[0] >= kill_at - 1
        assert run.adapter.read_bytes() == whole.adapter.read_bytes()
        assert steps_of(run) == list(range(1, 22))
        assert names(run) == names(whole)


# ------------------------------------------------------------------ what goes wrong


def test_a_loss_that_is_not_finite_keeps_nothing(recipe, tmp_path, monkeypatch):
    real, calls = contrastive.multi_positive, []

    def breaking(*args, **settings):
        calls.append(1)
        return real(*args, **settings) * (float("nan") if len(calls) == 5 else 1.0)

    monkeypatch.setattr(contrastive, "multi_positive", breaking)
    with pytest.raises(GateFailed, match=r"became nan.*smaller optimisation\.lr") as caught:
        train(recipe(), tmp_path)
    assert caught.value.exit_code == 3
    run = runs.find(root=tmp_path)
    assert names(run) == [
        ".lock", "bad_batch.json", "data.json", "environment.json", "metrics.jsonl",
        "recipe.yaml",
    ]  # fmt: skip
    assert steps_of(run) == [1, 2, 3, 4]


def test_a_rate_that_is_far_too_large(recipe, tmp_path):
    with pytest.raises(GateFailed, match="The loss became"):
        train(recipe("optimisation.lr=1e30", "optimisation.clip_norm=null"), tmp_path)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.root=nowhere"],
        ["model=nowhere/at.all"],
        ["data.hold_out=0.999999", "data.hold_out_by=hash"],
    ],
)
def test_what_is_wrong_beforehand_leaves_no_run(recipe, tmp_path, overrides):
    with pytest.raises(BrokenInput):
        train(recipe(*overrides), tmp_path / "runs")
    with pytest.raises(BrokenInput):
        plan(recipe(*overrides))
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device(recipe, tmp_path):
    with pytest.raises(MissingDependency, match="no CUDA device"):
        train(recipe("device=cuda"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_plan_writes_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan(recipe())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def damaged(shapes, tmp_path):
    """Shapes of which two pictures cannot be read."""
    root = shutil.copytree(shapes, tmp_path / "damaged")
    for name in ("blue_circle/03.png", "red_square/05.png"):
        (root / name).write_bytes(b"no picture")
    return root


def test_a_broken_picture_is_fatal_by_default(tiny_folder, damaged, tmp_path):
    with pytest.raises(BrokenInput, match=r"03\.png|05\.png") as caught:
        train(tiny.recipe(tiny_folder, damaged), tmp_path / "runs")
    assert "data.broken_images allows 0" in str(caught.value)
    assert not runs.find(root=tmp_path / "runs").adapter.exists()


def test_more_broken_pictures_than_allowed(tiny_folder, damaged, tmp_path):
    with pytest.raises(BrokenInput, match=r"2 broken, and .*broken_images allows 1") as caught:
        train(tiny.recipe(tiny_folder, damaged, "data.broken_images=1"), tmp_path / "runs")
    assert "03.png" in str(caught.value)
    assert "05.png" in str(caught.value)


@pytest.mark.parametrize("limit", [2, 10])
def test_broken_pictures_up_to_a_limit_are_skipped_and_named_once(
    tiny_folder, damaged, tmp_path, capsys, limit
):
    settings = tiny.recipe(tiny_folder, damaged, f"data.broken_images={limit}")
    run = train(settings, tmp_path / "runs")
    assert run.adapter.is_file()
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 2
    assert {name for line in lines for name in ("03.png", "05.png") if name in line} == {
        "03.png",
        "05.png",
    }


def test_a_batch_of_broken_pictures_alone_is_no_step(tiny_folder, shapes, tmp_path):
    root = shutil.copytree(shapes, tmp_path / "all")
    for path in root.rglob("*.png"):
        if path.stem != "00":
            path.write_bytes(b"")
    settings = tiny.recipe(
        tiny_folder, root, "data.broken_images=100", "optimisation.batch_size=2",
        "optimisation.epochs=1",
    )  # fmt: skip
    run = train(settings, tmp_path / "runs")
    assert steps_of(run) == list(range(1, 13))
    assert all(torch.isfinite(v).all() for v in load_file(run.adapter).values())


def test_a_full_disk_at_the_end_leaves_a_run_to_resume(recipe, tmp_path, monkeypatch):
    settings = recipe("checkpoints.every_seconds=1e-9")
    whole = train(settings, tmp_path / "whole")

    def full(data, **metadata):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "to_safetensors", full)
        with pytest.raises(
            BrokenInput, match=r"No space.* after step 9 of 9\..*\nTo go on from step 9, type: "
        ):
            train(settings, tmp_path / "full")
    run = runs.find(root=tmp_path / "full")
    assert not run.adapter.exists()
    assert resume(run).adapter.read_bytes() == whole.adapter.read_bytes()


@pytest.mark.parametrize("method", ["full", "r-adapter"])
def test_batchnorm_statistics_stay_those_of_the_base(shapes, tmp_path, method):
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    folder = tiny.write(tmp_path / "resnet", vision=vision)
    base = models.load(folder).model.state_dict()
    text = tiny.text(folder, shapes)
    if method == "full":
        start, end = text.index("method:"), text.index("data:")
        text = text[:start] + "method: {name: full}\n" + text[end:]
    else:
        text = text.replace("  name: r-adapter\n", "  name: r-adapter\n  towers: text\n")
    run = train(recipes.parse(text), tmp_path / "runs")
    stored = load_file(run.adapter)
    assert stored
    assert not [name for name in stored if "running" in name or "num_batches" in name]
    # What was trained is what is stored: the first step's features were the base's own.
    attached = preparing.prepare(recipes.parse(text))
    training_mode(attached.base.model)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attached.base.model.encode_image(images)
    for name, value in attached.base.model.state_dict().items():
        assert torch.equal(value, base[name])


def test_a_parameter_that_the_loss_does_not_reach_stops_training(recipe, tmp_path, monkeypatch):
    attach = full.attach

    def attach_one_more(model, **settings):
        attached = attach(model, **settings)
        attached.trained["text_decoder.weight"] = torch.nn.Parameter(torch.zeros(2))
        return attached

    monkeypatch.setattr(full, "attach", attach_one_more)
    with pytest.raises(
        UsageError, match=r"does not reach text_decoder\.weight: it gets no gradient"
    ):
        train(recipe("method={name: full}"), tmp_path)
