"""A run on clips, from its recipe to scores, with a model of pictures."""

import pytest
import torch

from radapter import merging, models
from radapter import recipe as recipes
from radapter.data.clips import prepared, stacked
from radapter.errors import UsageError
from radapter.evaluation import of_run
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.merging import read_stored
from radapter.runtimes.opened import from_loaded
from radapter.training import train
from radapter.training.planning import plan
from radapter.training.preparing import Parts

DATA = "{source: moving-emoji, task: captions, concepts: 2, frames: 3, start: random}"


def recipe(model, *overrides):
    text = f"""\
name: clips
model: {model}
method: {{name: r-adapter, drop: 0.3}}
data: {DATA}
optimisation: {{lr: 1e-2, batch_size: 8, epochs: 1}}
device: cpu
workers: 0
"""
    return recipes.parse(text, "clips.yaml", overrides)


def test_from_recipe_to_scores(tiny_folder, tmp_path):
    run = train(recipe(tiny_folder), tmp_path)
    merging.write_merged(run, 1.0)
    data = run.recipe().data.model_copy(update={"split": "test"})
    datasets = [
        SuiteDataset(
            name=view,
            role="zero-shot" if view == "clip" else "control",
            data=data.model_copy(update={"view": view}),
        )
        for view in ("clip", "shuffled")
    ]
    suite = Suite(name="mine", tasks=["retrieval", "motion"], datasets=datasets)
    result = of_run.evaluate_run(run, suite.for_recipe(run.recipe()), "torch")
    for model in result["models"].values():
        clip, shuffled = (model["datasets"][name] for name in ("clip", "shuffled"))
        assert clip["direction_accuracy"]["value"] == 0.5
        assert clip["text_to_image_r1"]["items"] == 20
        assert clip["retrieval"]["text_to_image_mean_rank"] >= 1
        assert clip["protocol"]["start"] == "random"
        assert (clip["role"], shuffled["role"]) == ("in-distribution", "control")
        assert list(model["roles"]) == ["in-distribution"]


@pytest.mark.parametrize(
    "changes", [["optimisation.micro_batch=3"], ["workers=1"], ["activation_checkpointing=true"]]
)
def test_clips_in_chunks_or_from_workers_train_alike(changes, tiny_folder, tmp_path):
    """What is dropped is drawn for a clip, not for its frames, so chunks do not change it."""
    _, whole, _ = read_stored(train(recipe(tiny_folder), tmp_path / "a").trained())
    _, other, _ = read_stored(train(recipe(tiny_folder, *changes), tmp_path / "b").trained())
    assert whole.keys() == other.keys()
    for name, tensor in whole.items():
        assert torch.allclose(tensor, other[name], atol=1e-5), name


MV = "method={name: mv-adapter, rank: 4, scale: 1.0, frames: 3}"
STAN = "method={name: stan, depth: 2, frames: 3, places: random, drop: 0.3}"
GRU = "method={name: gru, width: 16, frames: 3}"
OF_CLIPS = pytest.mark.parametrize("method", [MV, STAN, GRU], ids=["mv-adapter", "stan", "gru"])


@OF_CLIPS
@pytest.mark.parametrize("changes", ["optimisation.micro_batch=3", "activation_checkpointing=true"])
def test_a_model_of_clips_trains_alike_in_chunks_and_with_less_memory(
    changes, method, tiny_folder, tmp_path
):
    # Adam would make of a gradient that is nothing but rounding a whole step.
    one = recipe(tiny_folder, method, "optimisation.eps=1e-4")
    two = recipe(tiny_folder, method, "optimisation.eps=1e-4", changes)
    _, whole, _ = read_stored(train(one, tmp_path / "a").trained())
    _, other, _ = read_stored(train(two, tmp_path / "b").trained())
    for name, tensor in whole.items():
        assert torch.allclose(tensor, other[name], atol=1e-4), name


@pytest.mark.parametrize("changes", [[], ["optimisation.micro_batch=3", "method.towers=none"]])
def test_frames_are_read_once_where_what_is_trained_stands_behind_the_tower(
    changes, tiny_folder, tmp_path, monkeypatch
):
    """To the same end as with frames read in each step; changed at random, they are."""
    few = ["optimisation.epochs=3", "optimisation.eps=1e-4"]
    recipe_of = [GRU, "data.augmentation=null", *few, *changes]
    plain, read = models.load(tiny_folder), []
    encode_image = type(plain.model.visual).forward

    def forward(self, pixels):
        read.append(len(pixels))
        return encode_image(self, pixels)

    monkeypatch.setattr(type(plain.model.visual), "forward", forward)
    clips = 2 * 10
    once = train(recipe(tiny_folder, *recipe_of), tmp_path / "a")
    assert sum(count for count in read if count > 1) == 3 * clips
    read.clear()
    augmented = [*recipe_of, "data.augmentation={flip: 0.5}", "optimisation.max_steps=1"]
    train(recipe(tiny_folder, *augmented), tmp_path / "c")
    assert sum(read) >= 3 * 8
    monkeypatch.setattr(Parts, "encodes_once", False)
    each_step = train(recipe(tiny_folder, *recipe_of), tmp_path / "b")
    _, ours, _ = read_stored(once.trained())
    _, theirs, _ = read_stored(each_step.trained())
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-4), name


def test_the_rate_of_the_towers_is_kept_in_every_step(tiny_folder, tmp_path):
    """The first step of Adam is as long as the learning rate."""
    steps = "optimisation={lr: 1e-3, batch_size: 20, epochs: 1}"
    run = train(recipe(tiny_folder, STAN, "method.rate=0.25", steps), tmp_path)
    _, stored, _ = read_stored(run.trained())
    plain = models.load(tiny_folder).model.state_dict()
    of_towers = [(stored[n] - plain[n]).abs().max() for n in stored if n in plain]
    moved = [stored[n] for n in stored if n.endswith("time.last.weight")]  # from zero
    assert len(moved) == 2
    assert max(tensor.abs().max() for tensor in moved) == pytest.approx(1e-3, rel=1e-3)
    assert max(of_towers) == pytest.approx(2.5e-4, rel=1e-3)


@OF_CLIPS
def test_a_model_of_clips_sees_their_order_in_training_and_in_scores(method, tiny_folder, tmp_path):
    held_out = DATA.replace("start", "split: validation, start")
    monitored = [method, f"validation={held_out}", "monitor={every_epochs: 1}"]
    run = train(recipe(tiny_folder, *monitored, "optimisation.lr=3e-2"), tmp_path)
    loaded, _ = merging.tuned(run)
    runtime, clips = from_loaded(loaded).runtime, torch.randn(2, 3, 3, 32, 32)
    features = runtime.encode_video(clips)
    assert not torch.allclose(features, runtime.encode_video(clips.flip(1)), atol=1e-3)
    data = run.recipe().data.model_copy(update={"split": "test"})
    described = SuiteDataset(name="t", role="zero-shot", data=data)
    suite = Suite(name="mine", tasks=["retrieval", "motion"], datasets=[described])
    (scored,) = evaluate(suite, from_loaded(loaded)).sets.values()
    dataset = data.open()
    pixels = stacked([prepared(loaded.preprocess, dataset.read(0))])
    torch.testing.assert_close(scored.image_features[:1], runtime.encode_video(pixels))
    with pytest.raises(UsageError, match="clips of up to 3 frames"):
        train(recipe(tiny_folder, method, "data.frames=4"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "lr"),
    [
        ("method={name: mv-adapter, rank: 16, scale: 1.0, frames: 3}", 1e-2),
        ("method={name: stan, depth: 2, frames: 3, drop: 0}", 3e-3),
        ("method={name: gru, width: 32, frames: 3}", 1e-2),
    ],
    ids=["mv-adapter", "stan", "gru"],
)
def test_a_model_of_clips_learns_what_order_alone_tells(method, lr, tiny_folder, tmp_path):
    """On its own training clips; the mean of frames has half of the directions right, always."""
    steps = [f"optimisation={{lr: {lr}, batch_size: 10, epochs: 120}}", "data.augmentation=null"]
    one = ["data.concepts=1", "data.start=fixed", "alpha=1.0"]
    run = train(recipe(tiny_folder, method, *steps, *one), tmp_path)
    described = SuiteDataset(name="own", role="zero-shot", data=run.recipe().data)
    suite = Suite(name="mine", tasks=["motion"], datasets=[described])
    (scored,) = evaluate(suite, from_loaded(merging.tuned(run)[0])).sets.values()
    assert scored.metrics["direction_accuracy"].scores.mean() > 0.9


def test_features_of_clips_are_computed_once_where_nothing_changes_them(tiny_folder, tmp_path):
    frozen = ["method={name: frozen}", "head={name: linear}", "data.task=classification"]
    frozen += ["objective=[{name: cross-entropy}]", "data.augmentation=null"]
    run = train(recipe(tiny_folder, *frozen), tmp_path)
    _, _, head = read_stored(run.trained())
    assert head["head.weight"].shape == (10, 16)


def test_an_estimate_counts_every_frame(tiny_folder):
    few, more = (plan(recipe(tiny_folder, f"data.frames={n}")).fit.memory for n in (2, 6))
    assert more.pictures == 3 * few.pictures == 2 * 8 * 6 * 3 * 32 * 32
    assert more.kept > 2 * few.kept


def test_prepared_as_in_evaluation_frames_are_floats(tiny_folder, tmp_path):
    run = train(recipe(tiny_folder, "data.augmentation=null", "data.view=shuffled"), tmp_path)
    assert run.trained()
    assert models.load(tiny_folder).weights_hash
