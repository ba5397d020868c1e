"""DaWin and VRF: formulas by NumPy, what is fitted, and a run that is merged, scored, exported."""

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from torch.nn import functional

from radapter import bundle, data, export, merging, models, registry
from radapter.data.pictures import open_several
from radapter.data.sources.folder import FolderData
from radapter.errors import UsageError
from radapter.evaluation import mixing, transductive
from radapter.evaluation import suite as suites
from radapter.evaluation.mixing import merge_by_gate
from radapter.evaluation.of_run import evaluate_run
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.export import bundling
from radapter.heads import dawin, vrf
from radapter.heads import head as heads
from radapter.heads.gate import Answers, temperature
from radapter.heads.linear import Linear
from radapter.inference import open_model, predict
from radapter.inference.prediction import classes_for
from radapter.reporting.suite_tables import notes
from radapter.training import train

DIM, CLASSES = 6, 4
SETTINGS = [
    pytest.param(rule, settings, id=f"{rule}-{number}")
    for rule in registry.GATES
    for number, settings in enumerate(registry.load(registry.GATES, rule).EXAMPLES)
]


def softmax(logits):
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def case(members, seed=0, n=40):
    """Unit features [members, n, DIM] near their class, heads (weight, scale, bias), labels."""
    generator = np.random.default_rng(seed)
    classes, labels = generator.normal(size=(CLASSES, DIM)), generator.integers(0, CLASSES, n)
    features = unit(classes[labels] + 1.5 * generator.normal(size=(members, n, DIM)))
    own = [
        (
            unit(classes + 0.3 * generator.normal(size=(CLASSES, DIM))),
            4.0 + i,
            0.1 * generator.normal(size=CLASSES),
        )
        for i in range(members)
    ]
    return features, own, labels


def logits_of(features, head):
    weight, scale, bias = head
    return scale * features @ weight.T + bias


def as_modules(own):
    return [
        Linear(*(torch.tensor(np.asarray(x), dtype=torch.float32) for x in head)) for head in own
    ]


def beside(features):
    return torch.tensor(
        np.concatenate(features, axis=1) / np.sqrt(len(features)), dtype=torch.float32
    )


def entropy(p):
    return -(p * np.log(p)).sum(1)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.2, 0.5)])
def test_dawins_weights_and_mixture_are_those_of_the_formula(offset):
    features, own, _ = case(2)
    t = np.array([0.8, 1.3])
    p0, p1 = (softmax(logits_of(f, h) / s) for f, h, s in zip(features, own, t, strict=True))
    e0, e1 = np.exp(-entropy(p0)), np.exp(-entropy(p1))
    weight = (e1 + offset[0]) / (e0 + e1 + offset[1])
    expected = (1 - weight)[:, None] * p0 + weight[:, None] * p1
    gate = dawin.Dawin(
        as_modules(own),
        torch.tensor(t, dtype=torch.float32),
        torch.tensor(offset),
        torch.zeros(0, 2),
        torch.zeros(0),
    )
    np.testing.assert_allclose(gate(beside(features)).exp().detach(), expected, atol=1e-5)
    rows = [3, 1]
    p0, p1 = (
        softmax(logits_of(f, h)[:, rows] / s) for f, h, s in zip(features, own, t, strict=True)
    )
    e0, e1 = np.exp(-entropy(p0)), np.exp(-entropy(p1))
    weight = (e1 + offset[0]) / (e0 + e1 + offset[1])
    some = gate.among(rows)(beside(features)).exp().detach()
    np.testing.assert_allclose(some, (1 - weight)[:, None] * p0 + weight[:, None] * p1, atol=1e-5)


def test_with_clusters_each_picture_is_answered_by_the_model_of_its_cluster():
    from scipy.stats import beta as beta_distribution

    features, own, labels = case(4)
    logits = [logits_of(features[i], own[i]) for i in (0, 1)]
    answers = Answers(
        tuple(torch.tensor(f) for f in features[:2]),
        tuple(map(torch.tensor, logits)),
        torch.tensor(labels),
    )
    fitted = dawin.fit(answers, clusters=2)
    t = fitted.temperatures.numpy()
    p0, p1 = (softmax(x / s) for x, s in zip(logits, t, strict=True))
    h0, h1 = entropy(p0), entropy(p1)
    bias = (h0.std(ddof=1) / h0.mean() + h1.std(ddof=1) / h1.mean()) / 2
    part = (h0.mean() + h1.mean()) / h0.mean()
    weight = (np.exp(-h1) + bias / part) / (np.exp(-h0) + np.exp(-h1) + bias)
    a, b = fitted.beta.numpy().astype(float).T
    assert np.allclose(fitted.centres, a / (a + b))
    density = fitted.shares.numpy() * beta_distribution.pdf(weight[:, None], a, b)
    place = density.argmax(1)
    assert set(place) == {0, 1}
    expected = np.stack(
        [softmax(logits_of(features[2 + k][i : i + 1], own[2 + k]))[0] for i, k in enumerate(place)]
    )
    found = fitted.gate(as_modules(own))(beside(features)).softmax(1).detach()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_beta_mixture_finds_what_its_weights_were_drawn_from():
    generator = np.random.default_rng(1)
    drawn = np.concatenate(
        [generator.beta(40, 160, 600), generator.beta(80, 80, 300), generator.beta(90, 10, 100)]
    )
    beta, shares = dawin.beta_mixture(torch.tensor(generator.permutation(drawn)), 3)
    centres = (beta[:, 0] / beta.sum(1)).numpy()
    np.testing.assert_allclose(centres, [0.2, 0.5, 0.9], atol=0.01)
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.01)
    with pytest.raises(UsageError, match="3 clusters cannot be fitted on 2 pictures"):
        dawin.beta_mixture(torch.rand(2), 3)
    alike, _ = dawin.beta_mixture(torch.full((5,), 0.4), 3)
    np.testing.assert_allclose(alike[:, 0] / alike.sum(1), 0.4, atol=1e-4)


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
def test_vrfs_weights_are_those_of_the_formula(distance):
    features, own, labels = case(2, n=60)
    logits = [logits_of(f, h) for f, h in zip(features, own, strict=True)]
    answers = Answers(
        tuple(torch.tensor(f, dtype=torch.float32) for f in features),
        tuple(map(torch.tensor, logits)),
        torch.tensor(labels),
    )
    fitted = vrf.fit(answers, distance=distance)
    failed = (logits[1].argmax(1) == labels) & (logits[0].argmax(1) != labels)
    np.testing.assert_allclose(fitted.failures, features[1][failed], atol=1e-6)
    for x, t in zip(logits, fitted.temperatures.double().numpy(), strict=True):
        confidence = softmax(x / t).max(1).mean()
        np.testing.assert_allclose(confidence, (x.argmax(1) == labels).mean(), atol=1e-4)
    nearest = 3
    gate = vrf.Fit(fitted.temperatures, fitted.failures, nearest, distance).gate(as_modules(own))
    between = ((features[1][:, None] - features[1][failed]) ** 2).sum(2)
    d = np.sort(between, axis=1)[:, nearest - 1]
    d = np.sqrt(d) if distance == "euclidean" else d
    weight = 1 / (1 + np.exp((d - 1.5) / 0.6))
    p0, p1 = (softmax(x / t) for x, t in zip(logits, fitted.temperatures.numpy(), strict=True))
    expected = (1 - weight)[:, None] * p0 + weight[:, None] * p1
    np.testing.assert_allclose(gate(beside(features)).exp().detach(), expected, atol=1e-4)


def test_a_temperature_makes_the_labels_likeliest():
    features, own, labels = case(1, n=200)
    x = logits_of(features[0], own[0])
    found = temperature(torch.tensor(x), torch.tensor(labels), "likelihood")

    def likelihood(t):
        return np.log(softmax(x / t)[np.arange(len(labels)), labels]).mean()

    assert all(likelihood(found) >= likelihood(found * by) for by in (0.5, 0.99, 1.01, 2))


def test_a_gate_that_nothing_fails_is_refused():
    x = torch.eye(4)
    with pytest.raises(UsageError, match="no distance to measure"):
        vrf.fit(Answers((x, x), (x, x), torch.arange(4)))


@pytest.mark.parametrize(("rule", "settings"), SETTINGS)
def test_a_gate_comes_back_from_its_file(rule, settings, tmp_path):
    features, own, labels = case(2)
    logits = [logits_of(f, h) for f, h in zip(features, own, strict=True)]
    answers = Answers(
        tuple(torch.tensor(f, dtype=torch.float32) for f in features),
        tuple(torch.tensor(x, dtype=torch.float32) for x in logits),
        torch.tensor(labels),
    )
    fitted = registry.load(registry.GATES, rule).fit(answers, **settings)
    number = 2 + len(getattr(fitted, "centres", ()))
    features, own, _ = case(number)
    gate = fitted.gate(as_modules(own)).eval()
    names = list("abcd")
    heads.write(tmp_path, heads.Head(names, gate, {"name": rule, "classes": names, **settings}))
    again = heads.read(tmp_path)
    assert torch.equal(again.logits(beside(features)), gate(beside(features)))


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    model, shapes = tiny.write(folder / "model"), tiny.draw_shapes(folder / "shapes")
    settings = tiny.recipe(model, shapes, "optimisation.epochs=6", "data.hold_out=0.4")
    return train(settings, folder / "runs")


def suite_of(run):
    described = SuiteDataset(
        name="set", role="shifted", data=FolderData(source="folder", root=run.recipe().data.root)
    )
    return Suite(
        name="s",
        templates=["a photo of a {}.", "a {}"],
        tasks=["classification"],
        datasets=[described],
    )


def by_hand(run, pixels, alpha):
    """What the two plain models say: features and logits."""
    trained, found = merging.open_trained(run), []
    for at in (0.0, alpha):
        model = tiny.build().model
        model.load_state_dict(trained.at(at))
        classes = run.classes()
        tokens = [trained.base.tokenizer(prompts) for prompts in classes["prompts"]]
        with torch.no_grad():
            texts = [
                functional.normalize(model.encode_text(own, normalize=True).mean(0), dim=0)
                for own in tokens
            ]
            features = model.encode_image(pixels, normalize=True)
        found.append(
            (
                features.numpy(),
                float(model.logit_scale.detach().exp()) * (features @ torch.stack(texts).T).numpy(),
            )
        )
    return found


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_dawin_of_a_run_mixes_the_base_model_and_the_one_at_alpha(run, alpha):
    trained = merging.open_trained(run)
    folder, written = merge_by_gate(run, trained, "dawin", alpha=alpha)
    assert written
    assert merge_by_gate(run, trained, "dawin", alpha=alpha) == (folder, False)
    assert folder.name == ("dawin" if alpha == 1 else "dawin-of-alpha-0.5")
    loaded, facts = merging.read_merged(run)
    for number, at in enumerate((0.0, alpha)):
        own = models.load(folder / "members" / str(number)).model.state_dict()
        assert all(torch.equal(own[name], value) for name, value in trained.at(at).items())
    assert facts["alpha"] == alpha
    assert facts["mixture"]["models"] == 2
    dataset = run.recipe().data.open()
    pixels = torch.stack([loaded.preprocess(dataset.read(i)) for i in range(6)])
    (_, x0), (_, x1) = by_hand(run, pixels, alpha)
    p0, p1 = (
        softmax(x / t) for x, t in zip((x0, x1), facts["mixture"]["temperatures"], strict=True)
    )
    e0, e1 = np.exp(-entropy(p0)), np.exp(-entropy(p1))
    weight = (e1 / (e0 + e1))[:, None]
    with torch.no_grad():
        found = loaded.head.logits(loaded.model.encode_image(pixels)).softmax(1)
    np.testing.assert_allclose(found, (1 - weight) * p0 + weight * p1, atol=2e-4)


@pytest.mark.slow
def test_a_trained_head_is_mixed_with_the_zero_shot_one(tiny_folder, shapes, tmp_path):
    settings = tiny.recipe(
        tiny_folder, shapes, "method={name: full, towers: image}",
        "head={name: linear, bias: true}", "objective=[{name: cross-entropy}]",
        "data.hold_out=0.4",
    )  # fmt: skip
    own = train(settings, tmp_path)
    trained = merging.open_trained(own)
    merge_by_gate(own, trained, "dawin", alpha=0.7)
    loaded, _ = merging.read_merged(own)
    order = loaded.head.rows(trained.head_at(0.0).names)
    for member, alpha in enumerate((0.0, 0.7)):
        for name, value in trained.head_at(alpha).module.state_dict().items():
            found = loaded.head.module.heads[member].state_dict()[name]
            assert torch.equal(found[order] if found.dim() else found, value)
    some = ["red square", "blue circle"]
    features = torch.randn(5, 32)
    gate = loaded.head.among(some).module
    assert [h.weight.shape[0] for h in gate.heads] == [2, 2]
    assert gate(features).shape == (5, 2)


def test_fitting_reads_held_out_pictures_alone(run, monkeypatch):
    read = []
    encode = mixing.encode_set

    def spied(runtimes, preprocess, cfg, pictures, **more):
        read.extend(key for key, _, _ in pictures)
        return encode(runtimes, preprocess, cfg, pictures, **more)

    monkeypatch.setattr(mixing, "encode_set", spied)
    monkeypatch.setattr(suites, "load_suite", None)
    merge_by_gate(run, merging.open_trained(run), "dawin", clusters=2)
    recipe = run.recipe()
    held_out = data.open_data(recipe.validation_data()).keys
    trained_on = data.open_data(recipe.data).keys
    assert read == held_out
    assert not set(read) & set(trained_on)


def test_clusters_of_a_test_set_are_marked_and_only_eval_has_them(run):
    """They are those of DaWin fitted on the scored pictures; labels play no part."""
    trained = merging.open_trained(run)
    folder, _ = merge_by_gate(run, trained, "dawin", clusters=2, transductive=True)
    assert folder.name == "dawin-clusters-2-transductive"
    suite, label = suite_of(run), "dawin-clusters-2, sees unlabelled test data"
    result = evaluate_run(run, suite)
    assert list(result["models"]) == ["zero-shot", label]
    own = result["models"][label]["datasets"]["set"]
    assert transductive.REMARK in own["remarks"]
    assert f"{label}, all: {transductive.REMARK}." in str(notes(result).text)
    pair = mixing.Pair(run, trained, 1.0, "cpu")
    dataset = data.open_data(suite.datasets[0].data)
    answers = pair.on(dataset, 0)
    fitted = dawin.fit(pair.held_out(), clusters=2, on=answers.logits)
    mixture = pair.mixture("dawin", fitted, {})
    pixels = torch.stack([mixture.preprocess(dataset.read(i)) for i in range(len(dataset))])
    with torch.no_grad():
        said = mixture.head.logits(mixture.model.encode_image(pixels)).argmax(1)
    rows = torch.tensor(pair.rows(dataset))
    right = said == rows[torch.tensor(dataset.labels)]
    assert own["accuracy"]["value"] == pytest.approx(float(right.double().mean()))
    for use in (lambda: export.plan(run, export.Wanted()), lambda: open_model(run)):
        with pytest.raises(UsageError, match="only `radapter eval` can use it"):
            use()


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "settings"), SETTINGS)
def test_a_mixture_is_scored_exported_and_used_as_one_classifier(run, rule, settings):
    merge_by_gate(run, merging.open_trained(run), rule, **settings)
    facts = merging.tuned_facts(run)
    # Of a model that has hardly learned anything, int8 changes some answers.
    loose = [f"{p}.{of}" for p in ("int8", "int8-qdq") for of in ("agreement=0.5", "metric=0.5")]
    precisions = ["fp32", "fp16", *([] if settings else ["int8"])]  # int8 takes its time
    wanted = export.Wanted(precisions=precisions, tolerances=loose)
    planned = export.plan(run, wanted)
    assert "onnx/classifier.onnx" in export.of_run.preview(planned)[0]
    manifest = export.export(planned).manifest
    rows = [row for part in manifest["parity"] for row in part["files"]]
    classifiers = {bundle.in_precision(bundle.CLASSIFIER, p) for p in precisions}
    assert classifiers == {row["file"] for row in rows}
    assert all(row["passed"] for row in rows)
    assert manifest["embed_dim"] == 16 * facts["mixture"]["models"]
    folder = run.exported(facts["weights_hash"])
    loaded, _ = merging.read_merged(run)
    dataset = run.recipe().data.open()
    pixels = torch.stack([loaded.preprocess(dataset.read(i)) for i in range(8)])
    with torch.no_grad():
        expected = loaded.head.logits(loaded.model.encode_image(pixels)).softmax(1)
    session = onnxruntime.InferenceSession(folder / "onnx/classifier.onnx")
    (found,) = session.run(["probabilities"], {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4)
    result = evaluate_run(run, suite_of(run), tolerances=loose)
    label = facts["rule"]
    assert result["rule"] == label
    tuned = result["models"][label]["datasets"]["set"]
    assert f"the trained head ({rule}) tells the classes apart" in tuned["remarks"]
    assert all(part["passed"] for part in result["parity"])
    pictures = open_several([run.recipe().data.root])
    ours, theirs = (
        [p.labels for p in predict(model, pictures, classes_for(model, None))]
        for model in (open_model(run), open_model(folder))
    )
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose([s for _, s in one], [s for _, s in two], atol=1e-4)
    card = (folder / "README.md").read_text()
    assert f"| Merging rule | {label} |" in card
    assert (
        f"| Models | {facts['mixture']['models']}, mixed per picture as fitted on 13 held-out"
        in card
    )
    with pytest.raises(UsageError, match="has no checkpoint of one"):
        export.plan(run, export.Wanted(checkpoints=["open_clip"]))


def test_a_classifier_that_no_onnx_file_holds_is_refused_with_its_size(run, monkeypatch):
    merge_by_gate(run, merging.open_trained(run), "dawin")
    monkeypatch.setattr(bundling, "ONE_FILE", 1000)
    with pytest.raises(UsageError, match=r"would take 0\.0 GB, and ONNX's end at 2 GB"):
        export.plan(run, export.Wanted(precisions=["fp32"]))
    export.plan(run, export.Wanted(precisions=["fp16"]))


def test_what_makes_no_sense_is_refused(tiny_folder, shapes, tmp_path):
    plain = train(tiny.recipe(tiny_folder, shapes, "optimisation.epochs=1"), tmp_path)
    with pytest.raises(UsageError, match="needs held-out data"):
        merge_by_gate(plain, merging.open_trained(plain), "dawin")
