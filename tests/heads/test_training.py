"""Runs with a head: trained, stored, resumed, merged, scored, started from one another."""

import dataclasses
import json

import numpy as np
import pytest
import ranks
import tiny
import torch
from safetensors.torch import load_file

from radapter import merging, models, registry
from radapter.data.pictures import open_several
from radapter.data.sources.folder import FolderData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import held_out
from radapter.evaluation.alphas import alpha_curve, choose_alpha
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.of_run import evaluate_run
from radapter.evaluation.suite import Suite, SuiteDataset, held_out_suite
from radapter.heads import head as heads
from radapter.heads import zero_shot
from radapter.inference import open_model, predict
from radapter.inference.prediction import classes_for
from radapter.merging import write_merged
from radapter.merging.soup import soup
from radapter.runtimes.opened import from_loaded
from radapter.training import Interrupted, plan, resume, train

NAMES = ["blue circle", "green cross", "red square"]
CROSS_ENTROPY = ["head={name: linear, bias: true}", "objective=[{name: cross-entropy}]"]
FROZEN = ["method={name: frozen}", *CROSS_ENTROPY]
TUNED = ["method={name: full, towers: image, average: {momentum: 0.3}}", *CROSS_ENTROPY]
EVERY = [
    pytest.param(name, settings, id=f"{name}-{number}")
    for name in registry.HEADS
    for number, settings in enumerate(registry.load(registry.HEADS, name).EXAMPLES)
]


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def suite_on(root, *names):
    """The shapes in the classes named, in that order."""
    data = FolderData(source="folder", root=str(root))
    described = SuiteDataset(name="set", role="in-distribution", data=data, classes=list(names))
    templates = ["a photo of a {}.", "a {}"]
    return Suite(name="s", templates=templates, tasks=["classification"], datasets=[described])


def only(suite, model):
    return evaluate(suite, model).sets["set"]


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_alpha_mixes_a_head_with_the_zero_shot_answers_and_it_comes_back_from_its_file(
    name, settings, tmp_path
):
    loaded = tiny.build()
    classes = zero_shot.prompts_of(["cat", "dog", "sun"], ["a {}"])
    weights = zero_shot.weights(from_loaded(loaded), classes)
    section = registry.schema(name, registry.HEADS[name], "head").model_validate(
        {"name": name, **settings}
    )
    training = heads.Training(section, classes["names"], 16)
    kept = torch.nn.functional.normalize(torch.randn(6, 16), dim=1)
    labels = torch.tensor([0, 1, 2, 2, 0, -1])
    state = training.begin(heads.Start(weights, loaded.logit_scale, lambda passes: (kept, labels)))
    features = torch.nn.functional.normalize(torch.randn(5, 16), dim=1)
    plain = zero_shot.head(from_loaded(loaded), classes).logits(features)
    trained = {f"head.{name}" for name, p in training.module.named_parameters() if p.dim()}
    moved = {name: t + 0.1 if name in trained else t for name, t in state.items()}
    at_zero = heads.mixed(training.facts, {**moved, **training.stored()}, 0.0)
    torch.testing.assert_close(at_zero.logits(features), plain)
    for alpha in (0.0, 0.4, 1.0):
        mixed = heads.mixed(training.facts, {**moved, **training.stored()}, alpha)
        for key, value in mixed.module.state_dict().items():
            expected = moved[f"head.{key}"]
            if key in training.zero_shot:
                expected = (1 - alpha) * training.zero_shot[key] + alpha * expected
            torch.testing.assert_close(value, expected)
            if alpha == 0 and key in training.zero_shot:
                assert torch.equal(value, training.zero_shot[key])
        heads.write(tmp_path, mixed)
        again = heads.read(tmp_path)
        assert again.names == classes["names"]
        assert torch.equal(again.logits(features), mixed.logits(features))
        some = again.among(["Sun", "cat"])
        assert torch.equal(some.logits(features), mixed.logits(features)[:, [2, 0]])
        assert again.among(["sun", "moon"]) is None


@pytest.mark.parametrize(
    "change",
    [
        FROZEN,
        TUNED,
        [*CROSS_ENTROPY, "method.towers=image"],
        [*CROSS_ENTROPY[:1], "objective=[{name: mpm-nce}, {name: cross-entropy, smoothing: 0.1}]"],
        [*FROZEN, "data.augmentation=null", "method={name: frozen, average: {momentum: 0.5}}"],
        [*TUNED, "precision=fp16", "optimisation.micro_batch=3"],
    ],
    ids=["frozen", "full", "r-adapter", "both towers", "features once", "fp16"],
)
def test_it_is_trained_and_resumed_to_the_same_end(recipe, change, tmp_path):
    settings = recipe(*change)
    whole = train(settings, tmp_path / "one")
    stops = iter([False] * 3 + [True])
    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path / "two", should_stop=lambda: next(stops))
    assert resume(caught.value.run).adapter.read_bytes() == whole.adapter.read_bytes()
    trained = merging.open_trained(whole)
    assert trained.facts["head"]["classes"] == NAMES
    moved = trained.head["head.weight"] - trained.head["head_at_zero.weight"]
    assert moved.abs().max() > 1e-3
    expected = plan(settings).trainable
    assert trained.facts["trained_parameters"] == expected
    folder, _ = write_merged(whole, 0.5)
    assert (folder / "head.safetensors").is_file()
    loaded, facts = merging.read_merged(whole)
    assert facts["weights_hash"] == loaded.weights_hash
    assert write_merged(whole, 0.5)[1] is False


def test_a_probe_counts_its_head_and_changes_no_tower(recipe, tmp_path):
    settings = recipe(*FROZEN)
    assert plan(settings).trainable == 3 * 16 + 3
    run = train(settings, tmp_path)
    assert all(name.startswith("head") for name in load_file(run.adapter))
    folders = [write_merged(run, alpha)[0] for alpha in (0.2, 1.0)]
    states = [models.load(folder).weights_hash for folder in folders]
    assert states[0] == states[1] == models.load(settings.model).weights_hash
    facts = [json.loads((folder / "merged.json").read_text()) for folder in folders]
    assert facts[0]["weights_hash"] != facts[1]["weights_hash"]


def test_without_augmentation_a_probe_is_logistic_regression_on_features(recipe, tmp_path):
    """Nine full-batch AdamW steps in NumPy, on features that evaluation's preprocessing gives."""
    more = ["data.augmentation=null", "optimisation={lr: 1e-2, batch_size: 24, epochs: 9}"]
    run = train(recipe(*FROZEN, *more, "optimisation.clip_norm=null"), tmp_path)
    trained = merging.open_trained(run)
    dataset = run.recipe().data.open()
    model = from_loaded(trained.base)
    pixels = torch.stack([model.preprocess(dataset.read(i)) for i in range(len(dataset))])
    f = model.runtime.encode_image(pixels).double().numpy()
    labels = np.array(dataset.labels)
    scale, names = trained.base.logit_scale, dataset.class_names
    classes = zero_shot.prompts_of(names, ["a photo of a {}.", "a {}"])
    values = [zero_shot.weights(model, classes).double().numpy(), np.zeros(3)]
    moments = [[np.zeros_like(v), np.zeros_like(v)] for v in values]
    for step in range(1, 10):
        logits = scale * f @ values[0].T + values[1]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(3)[labels]) / len(f)
        gradients = [scale * error.T @ f, error.sum(0)]
        lr = 1e-2 * 0.5 * (1 + np.cos(np.pi * (step - 1) / 9))
        for value, gradient, (m, v) in zip(values, gradients, moments, strict=True):
            m[:] = 0.9 * m + 0.1 * gradient
            v[:] = 0.999 * v + 0.001 * gradient**2
            value -= lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(trained.head["head.weight"], values[0], atol=2e-4)
    np.testing.assert_allclose(trained.head["head.bias"], values[1], atol=2e-4)


def test_data_sets_are_scored_by_the_head_where_it_knows_their_classes(recipe, shapes, tmp_path):
    run = train(recipe(*TUNED, "optimisation.epochs=8"), tmp_path)
    write_merged(run, 1.0)
    loaded, _ = merging.read_merged(run)
    model = from_loaded(loaded)
    found = only(suite_on(shapes, *NAMES), model)
    assert found.value("accuracy") == 1
    assert found.facts["remarks"] == ["the trained head (linear) tells the classes apart"]
    assert not evaluate(suite_on(shapes, *NAMES), model).text_features
    backwards = only(suite_on(shapes, *NAMES[::-1]), model)
    assert backwards.value("accuracy") == 1
    two = only(suite_on(shapes, NAMES[2], NAMES[0]), model)
    assert two.metrics["accuracy"].chance == 1 / 2
    assert two.value("accuracy") == 1
    other = dataclasses.replace(model, head=dataclasses.replace(model.head, names=["a", "b", "c"]))
    texts = only(suite_on(shapes, *NAMES), other)
    plain = only(suite_on(shapes, *NAMES), dataclasses.replace(model, head=None))
    assert torch.equal(texts.predictions, plain.predictions)
    assert plain.facts["remarks"] == []
    (remark,) = texts.facts["remarks"]
    assert remark.endswith("the trained head (linear) does not know 'blue circle'")
    with run.lock():
        result = evaluate_run(run, suite_on(shapes, *NAMES), "torch")
    remarks = {k: m["datasets"]["set"]["remarks"] for k, m in result["models"].items()}
    assert remarks == {"zero-shot": [], "alpha 1.00": found.facts["remarks"]}


def test_alpha_mixes_the_head_too(recipe, shapes, tmp_path):
    run = train(recipe(*FROZEN, "data.hold_out=0.3", "optimisation.epochs=8"), tmp_path)
    trained = merging.open_trained(run)
    suite = suite_on(shapes, *NAMES)
    curve = {a: e.sets["set"] for a, e in alpha_curve(suite, trained, [0.0, 0.5, 1.0])}
    plain = only(suite, from_loaded(trained.base))
    assert torch.equal(curve[0.0].predictions, plain.predictions)
    for alpha, result in curve.items():
        model = from_loaded(dataclasses.replace(trained.base, head=trained.head_at(alpha)))
        assert torch.equal(only(suite, model).predictions, result.predictions)
    assert not torch.equal(curve[0.0].predictions, curve[1.0].predictions)
    assert len(choose_alpha(run.recipe(), trained)["curve"]) == 11


def test_predict_uses_the_head(recipe, shapes, tmp_path):
    run = train(recipe(*TUNED, "optimisation.epochs=8"), tmp_path)
    folder, _ = write_merged(run, 1.0)
    for source in (run, folder):
        model = open_model(source)
        classes = classes_for(model, None)
        found = list(predict(model, open_several([str(shapes)]), classes))
        assert all(p.labels[0][0].replace(" ", "_") in p.picture for p in found)
        assert sum(share for _, share in found[0].labels) == pytest.approx(1)
        some = classes_for(model, ["green cross", "blue circle"])
        assert some["head"].names == ["green cross", "blue circle"]
        assert "prompts" in classes_for(model, ["a cat"])
        assert "prompts" in classes_for(model, ["blue circle"], ["a {}"])


def test_validation_scores_the_head(recipe, tmp_path):
    more = ["data.hold_out=0.3", "monitor={every_epochs: 1, alpha: 1.0}", "alpha=1.0"]
    run = train(recipe(*FROZEN, *more), tmp_path)
    (*_, last) = run.logged("validation")
    write_merged(run, 1.0)
    loaded, _ = merging.read_merged(run)
    own = evaluate(held_out_suite(run.recipe()), from_loaded(loaded)).sets["held-out"]
    assert last["validation"]["accuracy"] == own.value("accuracy")
    best = merging.open_trained(run, "best")
    assert best.head_at(1.0).names == loaded.head.names


# ------------------------------------------------------------------ from another run


def test_fine_tuning_goes_on_from_a_probe(recipe, tmp_path):
    probe = train(recipe(*FROZEN), tmp_path / "probe")
    kept = merging.open_trained(probe).head
    still = ["optimisation.lr=1e-12", f"start={probe.path}"]
    run = train(recipe(*TUNED, *still), tmp_path / "tuned")
    trained = merging.open_trained(run)
    torch.testing.assert_close(trained.head["head.weight"], kept["head.weight"])
    zero = trained.head_at(0.0).module.state_dict()
    assert torch.equal(zero["weight"], kept["head_at_zero.weight"])
    assert run.recipe().start == str(probe.path.resolve())
    base = trained.base.model.state_dict()
    assert all(torch.equal(v, base[n]) for n, v in trained.at(0.0).items())


def test_full_fine_tuning_goes_on_from_adapters(recipe, tmp_path):
    first = train(recipe("method.average.momentum=0"), tmp_path / "first")
    expected = merging.merge(first, 1.0)
    still = ["optimisation.lr=1e-12", f"start={first.path}"]
    run = train(recipe("method={name: full}", *still), tmp_path / "second")
    for name, value in merging.merge(run, 1.0).items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_lora_goes_on_from_its_factors(recipe, tmp_path):
    lora = "method={name: lora, rank: 2}"
    first = train(recipe(lora), tmp_path / "first")
    run = train(recipe(lora, "optimisation.lr=1e-12", f"start={first.path}"), tmp_path / "second")
    ours, theirs = (merging.open_trained(r).tensors for r in (run, first))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["method={name: frozen}"], "Nothing would be trained"),
        ([*FROZEN[:1], *CROSS_ENTROPY[:1]], "mpm-nce could have no effect"),
        (CROSS_ENTROPY[:1], "does not reach head.weight: no term reads it"),
        (["objective=[{name: cross-entropy}]"], "objective.0: cross-entropy trains a head"),
        ([*CROSS_ENTROPY, "method={name: full}"], "does not reach the text tower.*method.towers"),
        (["method={name: full, last_blocks: 3}"], "last_blocks is 3, and the image tower has 2"),
    ],
)
def test_what_cannot_be_trained_is_said(recipe, change, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(recipe(*change), tmp_path)
    if "no term reads it" not in message:  # only a step shows which tensors it reaches
        with pytest.raises(UsageError, match=message):
            plan(recipe(*change))


@pytest.mark.parametrize(("held", "warns"), [("data.hold_out=0.3", False), ("seed=0", True)])
def test_a_start_that_has_seen_what_is_held_out_is_said(recipe, tmp_path, recwarn, held, warns):
    probe = train(recipe(*FROZEN, held, "optimisation.epochs=1"), tmp_path / "probe")
    again = ["optimisation.epochs=1", "data.hold_out=0.3", f"start={probe.path}"]
    train(recipe(*TUNED, *again), tmp_path / "tuned")
    said = [str(w.message) for w in recwarn if "holds out" in str(w.message)]
    assert len(said) == warns


def test_a_start_that_is_not_there_names_the_command(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = recipe(*TUNED, "start=linear-probe-icons")
    with pytest.raises(BrokenInput, match="Type first: radapter train linear-probe-icons"):
        plan(first)
    for number in (1, 2):
        folder = tmp_path / f"runs/linear-probe-icons-{number}"
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").touch()
    with pytest.raises(UsageError, match="Give more of the name") as caught:
        plan(first)
    assert "Type first" not in str(caught.value)


def test_a_start_that_does_not_fit_is_said(recipe, tmp_path, tmp_path_factory):
    probe = train(recipe(*FROZEN), tmp_path / "probe")
    start = f"start={probe.path}"
    other = tiny.write(tmp_path / "other", seed=5)
    few = tmp_path_factory.mktemp("few")
    tiny.draw_shapes(few)
    (few / "blue_circle").rename(few / "moon")
    for change, message in [
        ([*TUNED, start, f"model={other}"], "start from a run of the same base model"),
        (["method={name: full}", start], "has a head, and the recipe has none"),
        ([*TUNED, start, f"data.root={few}"], "only the run's head has 'blue circle'"),
        ([*TUNED, start, "head.bias=false"], "differs from the recipe's in head.bias"),
        ([*TUNED, f"start={tmp_path / 'nothing'}"], "No run at"),
    ]:
        with pytest.raises(Exception, match=message):
            train(recipe(*change), tmp_path / "runs")
    with pytest.raises(BrokenInput, match="start: No run at"):  # --dry-run looks for it too
        plan(recipe(*TUNED, f"start={tmp_path / 'nothing'}"))
    assert not (tmp_path / "runs").exists()
    with pytest.raises(Exception, match="No run at"):
        plan(recipe(*TUNED, f"start={tmp_path / 'nothing'}"))
    tuned = train(recipe(), tmp_path / "tuned")
    with pytest.raises(UsageError, match="trained r-adapter, and lora with these"):
        train(recipe("method={name: lora}", f"start={tuned.path}"), tmp_path / "runs")


# ------------------------------------------------------------------ soups


def test_a_soup_averages_heads_as_all_else(recipe, tmp_path):
    more = ["data.hold_out=0.3"]
    one, two = (train(recipe(*TUNED, *more, f"optimisation.lr={lr}"), tmp_path / lr)
                for lr in ("1e-2", "3e-3"))  # fmt: skip
    made = soup([one, two], "uniform", root=tmp_path)
    ours = merging.open_trained(made)
    theirs = [merging.open_trained(run) for run in (one, two)]
    for alpha in (0.0, 0.5, 1.0):
        found = ours.head_at(alpha).module.state_dict()
        parts = [trained.head_at(alpha).module.state_dict() for trained in theirs]
        for name, value in found.items():
            torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
    write_merged(made, 1.0)
    loaded, _ = merging.read_merged(made)
    assert loaded.head.names == NAMES
    score = held_out.scorer(one.recipe(), theirs[0], 1.0)
    whole = models.with_head(ours.at(1.0), ours.head_at(1.0))
    own = evaluate(held_out_suite(one.recipe(), NAMES), from_loaded(loaded)).sets["held-out"]
    assert score(whole) == own.value("accuracy")
    assert len(soup([one, two], "greedy", root=tmp_path, scorer=lambda trained, at: held_out.scorer(
        one.recipe(), trained, at)).soup()["tried"]) == 2  # fmt: skip
    probe = train(recipe(*FROZEN, "head.bias=false"), tmp_path / "probe")
    with pytest.raises(UsageError, match="differ in `head`"):
        soup([one, probe], "uniform", root=tmp_path)


# ------------------------------------------------------------------ ranks


def trained_by(settings, root):
    return str(train(settings, root).path)


@pytest.mark.slow
@pytest.mark.parametrize("change", [FROZEN, TUNED, [*FROZEN, "data.augmentation=null"]])
def test_two_ranks_train_what_one_does(recipe, change, tmp_path):
    settings = recipe(*change, "workers=0", "optimisation.eps=1e-3")
    one = load_file(train(settings, tmp_path / "one").adapter)
    first, _ = ranks.in_ranks(2, trained_by, settings, tmp_path / "two")
    two = load_file(f"{first}/adapter.safetensors")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_two_ranks_make_the_caches_that_one_does(recipe, tmp_path):
    """Weights of pictures are of the whole batch; each rank searches on all that is held out."""
    settings = recipe(
        "method={name: frozen}", "head={name: xmadapter, passes: 2}",
        "objective=[{name: cross-entropy}]", "data.hold_out=0.3", "workers=0",
        "optimisation.eps=1e-3",
    )  # fmt: skip
    one = load_file(train(settings, tmp_path / "one").adapter)
    first, _ = ranks.in_ranks(2, trained_by, settings, tmp_path / "two")
    two = load_file(f"{first}/adapter.safetensors")
    found = json.loads((tmp_path / "two" / first / "head-search.json").read_text())
    assert two["head.strength"] == pytest.approx(found["strength"])
    searched = {f"head.{name}" for name in ("strength", "sharpness", "image_share")}
    for name in one.keys() - searched:  # a picture more or less is another point
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)
