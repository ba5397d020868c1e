"""An alpha for the image tower and one for all else: what is merged, and how it is chosen."""

import json
import shutil

import pytest
import tiny
import torch

from radapter import merging, registry
from radapter.evaluation import alphas
from radapter.evaluation.held_out import scorer
from radapter.run import Run
from radapter.training import train

FOLDING = [p for p in tiny.methods(first=True, alone=True) if registry.folds(p.values[0])]


@pytest.fixture(scope="module")
def run(tiny_folder, shapes, tmp_path_factory):
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3")
    return train(recipe, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def choice(run):
    """Chosen once; for reading only."""
    path = run.path / "choice.json"
    if not path.is_file():
        chosen = alphas.choose_per_tower(run.recipe(), merging.open_trained(run))
        path.write_text(json.dumps(chosen))
    return json.loads(path.read_text())


@pytest.mark.parametrize(("name", "settings"), FOLDING)
def test_each_tower_has_its_alpha(tiny_folder, shapes, tmp_path, name, settings):
    """Of every method that folds."""
    method = f"method={tiny.method(name, settings)}"
    made = train(tiny.recipe(tiny_folder, shapes, method, "optimisation.epochs=1"), tmp_path)
    trained = merging.open_trained(made)
    low, high = trained.at(0.2), trained.at(0.9)
    for pair, image, text in (((0.2, 0.9), low, high), ((0.9, 0.2), high, low)):
        for tensor, value in trained.at(pair).items():
            of = image if tensor.startswith("visual.") else text
            assert torch.equal(value, of[tensor]), tensor
    assert any(n.startswith("visual.") and not torch.equal(v, high[n]) for n, v in low.items())


def test_every_pair_is_scored_as_the_merged_model_is(run, choice):
    trained = merging.open_trained(run)
    curve = {(p["image"], p["text"]): p for p in choice["curve"]}
    assert len(curve) == alphas.PAIRS == 31
    of_one = alphas.choose_alpha(run.recipe(), trained)
    same = {point["alpha"]: point["score"] for point in of_one["curve"]}
    assert {image: p["score"] for (image, text), p in curve.items() if image == text} == same
    score = scorer(run.recipe(), trained, 1.0)
    for pair in ((of_one["alpha"], 1.0), (1.0, of_one["alpha"]), (0.5, 0.5)):
        assert score(trained.at(pair)) == pytest.approx(curve[pair]["score"])


def test_of_pairs_near_the_best_the_smallest_is_taken(choice):
    near = [p for p in choice["curve"] if p["behind"] <= p["standard_error"]]
    best = max(p["score"] for p in choice["curve"])
    assert any(p["score"] == best for p in near)
    chosen = next(p for p in near if choice["alphas"].items() <= p.items())
    sums = [round(p["image"] + p["text"], 6) for p in near]
    assert round(chosen["image"] + chosen["text"], 6) == min(sums)


def test_a_head_is_mixed_by_the_alpha_of_the_image_tower(tiny_folder, shapes, tmp_path):
    head = [
        "method={name: full, towers: image}",
        "head={name: linear}",
        "objective=[{name: cross-entropy}]",
    ]
    made = train(tiny.recipe(tiny_folder, shapes, *head, "optimisation.epochs=1"), tmp_path)
    trained = merging.open_trained(made)
    folder, written = merging.write_merged(made, (0.25, 0.75), trained)
    assert (folder.name, written) == ("image-0.25-text-0.75", True)
    assert merging.write_merged(made, (0.25, 0.75)) == (folder, False)
    features = torch.eye(16)
    expected = trained.head_at(0.25).logits(features)
    assert torch.equal(merging.load_merged(folder).head.logits(features), expected)


def test_what_was_given_is_merged_and_named_everywhere(cli, trained, shapes):
    said = "alpha 0.4 of images, 0.7 of texts"
    outcome = cli("merge", "--alpha", "image=0.4,text=0.7")
    assert outcome.code == 0, outcome.err
    facts = trained.merged_facts()
    assert trained.merged().name == "image-0.40-text-0.70"
    assert (facts["alphas"], facts["rule"]) == ({"image": 0.4, "text": 0.7}, said)
    outcome = cli("eval", "--data", shapes, "--runtime", "torch", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert list(result["models"]) == ["zero-shot", said]
    assert cli("eval", "--data", shapes, "--alphas", "0:1:0.5").code == 0
    (path,) = trained.evaluations.glob("*-alphas.json")
    assert json.loads(path.read_text())["chosen"] is None  # it is not on the curve
    assert said in cli("compare", trained.name).out
    assert f"merged by {said}" in cli("runs").out


@pytest.mark.slow
def test_the_bundle_of_it_says_both(cli, trained):
    assert cli("merge", "--alpha", "image=0.4,text=0.7").code == 0
    outcome = cli("export", "--precision", "fp32", "--json")
    assert outcome.code == 0, outcome.err
    manifest = json.loads(outcome.out)["manifest"]
    assert manifest["rule"] == "alpha 0.4 of images, 0.7 of texts"
    assert manifest["weights_hash"] == trained.merged_facts()["weights_hash"]


def test_it_is_chosen_by_the_command(cli, run, choice, tmp_path):
    own = Run(shutil.copytree(run.path, tmp_path / "runs" / "own"))
    outcome = cli("merge", "--run", "runs/own", "--alpha", "auto-per-tower")
    assert outcome.code == 0, outcome.err
    image, text = choice["alphas"].values()
    assert f"alpha {image:g} of images, {text:g} of texts: " in outcome.out
    assert "of 31 pairs." in outcome.out
    assert own.merged_facts()["alphas"] == choice["alphas"]
    kept = json.loads((own.path / "merged" / "alpha-per-tower.json").read_text())
    assert kept == choice


@pytest.mark.parametrize("text", ["image=0.4", "image=0.4,text=x", "a=1,b=2", "image=nan,text=0"])
def test_other_texts_are_refused(cli, trained, text):
    outcome = cli("merge", "--alpha", text)
    assert (outcome.code, outcome.err) == (
        2,
        "error: --alpha takes a finite number, `image=0.4,text=0.7`, `auto` or `auto-per-tower`, "
        f"found '{text}'.\n",
    )
    outcome = cli("merge", "--rule", "vrf", "--alpha", "auto-per-tower")
    assert (outcome.code, outcome.err) == (
        2,
        "error: --alpha auto-per-tower is for --rule interpolate: vrf is of the model at alpha 1, "
        "or at the number that you give.\n",
    )
