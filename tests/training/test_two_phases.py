"""UCDR-Adapter's two runs on domains: the second goes on from the first, and both resume."""

import json

import pytest
import tiny
import torch
import trees
from a_batch import setting
from safetensors.torch import load_file

from radapter import merging
from radapter.data import open_data
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.icons import IconsData
from radapter.errors import UsageError
from radapter.files import radapter_facts
from radapter.objectives import class_texts
from radapter.training import Interrupted, plan, resume, train
from radapter.training.gradients import gradients

PHASE = {
    "first": (
        "method={name: ucdr-prompts, context: 2, average: {momentum: 0.9, keep: last}}",
        "objective=[{name: class-texts}, {name: triplet, margin: 1.0}]",
        "optimisation.lr=3e-2",
    ),
    "second": (
        "method={name: ucdr-adapter, context: 2, divisor: 2}",
        "objective=[{name: class-texts}]",
    ),
}


@pytest.fixture
def pictures(tmp_path):
    """Two domains of three classes, four pictures each."""
    for number, (domain, name, i) in enumerate(
        (d, n, i) for d in ("photo", "sketch") for n in ("bat", "cat", "cow") for i in range(4)
    ):
        trees.jpeg(tmp_path / "data" / domain / name / f"{i}.jpg", number)
    return tmp_path / "data"


def data_of(pictures, domains="[sketch, photo]"):
    return f"data={{source: domains, root: {pictures}, domains: {domains}}}"


@pytest.fixture
def recipe(tiny_folder, pictures):
    def of(phase, *more):
        return tiny.recipe(tiny_folder, pictures, data_of(pictures), *PHASE[phase], *more)

    return of


def stopped_and_resumed(settings, folder):
    with pytest.raises(Interrupted) as caught:
        train(settings, folder, should_stop=iter([False] * 3 + [True]).__next__)
    return resume(caught.value.run)


def test_the_second_goes_on_from_the_first_and_both_resume(recipe, tmp_path):
    first = train(recipe("first"), tmp_path / "first")
    before, facts = load_file(first.adapter), radapter_facts(first.adapter)
    assert before["visual.prompts.domains"].shape == (2, 1, 32)
    assert before["visual.prompts.classes"].shape == (3, 1, 32)
    assert (facts["method"]["domains"], facts["method"]["classes"]) == (2, 3)
    assert first.recipe().method.arguments()["classes"] is None  # as it was given
    assert facts["rows"] == {"classes": ["bat", "cat", "cow"], "domains": ["sketch", "photo"]}
    losses = [line["loss"] for line in first.logged("loss")]
    assert sum(losses[-3:]) < sum(losses[:3])
    again = stopped_and_resumed(recipe("first"), tmp_path / "stopped")
    assert again.adapter.read_bytes() == first.adapter.read_bytes()

    with pytest.raises(UsageError, match="goes on from what a run of ucdr-prompts has trained"):
        train(recipe("second"), tmp_path / "none")
    settings = recipe("second", f"start={first.path}")
    second = train(settings, tmp_path / "second")
    after = load_file(second.adapter)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert after.keys() - before.keys() == {
        f"visual.prompts.{name}" for name in (
            "class_embedding", "proj", "norm.weight", "norm.bias", "of_prompt.weight",
            "of_prompt.bias", "of_picture.weight", "of_picture.bias", "out.weight", "out.bias",
        )
    }  # fmt: skip
    losses = [line["loss"] for line in second.logged("loss")]
    assert sum(losses[-3:]) < sum(losses[:3])
    again = stopped_and_resumed(settings, tmp_path / "stopped")
    assert again.adapter.read_bytes() == second.adapter.read_bytes()

    for run in (first, second):
        trained = merging.open_trained(run)
        found = [
            tiny.features(trained.attached(alpha).model, *tiny.batch(trained.base))
            for alpha in (0.0, 1.0)
        ]
        plain = tiny.features(trained.base.model, *tiny.batch(trained.base))
        torch.testing.assert_close(found[0], plain, rtol=1e-5, atol=1e-5)
        assert (found[1] - plain).abs().max() > 1e-3


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_each_picture_trains_the_rows_of_its_domain_and_class(micro_batch):
    loaded, attached, context, batch = setting("ucdr-prompts")
    batch |= {
        "groups": torch.tensor([2, 0, 2, 2, 0, 2, 0]),
        "domains": torch.ones(7, dtype=torch.long),
    }
    term = class_texts.term(context)
    gradients(loaded.model, batch, [term], device=torch.device("cpu"), micro_batch=micro_batch)
    for name, wanted in (("classes", [True, False, True, False]), ("domains", [False, True])):
        gradient = attached.trained[f"visual.prompts.{name}"].grad
        assert (gradient.abs().amax(dim=(1, 2)) > 1e-5).tolist() == wanted


def test_what_does_not_go_on_is_named(recipe, pictures, tmp_path):
    first = train(recipe("first"), tmp_path / "first")
    start = f"start={first.path}"
    for change, message in (
        (("method.context=3",), "with method.context=2, and here it is 3: ucdr-adapter goes"),
        (("method.template='$ {}'",), r"with method.template=a photo of {} from \$ domain."),
        ((data_of(pictures, "[photo, sketch]"),),
         "learned of other domains than the data's: number 0 is 'sketch' there and 'photo' here"),
        ((data_of(pictures, "[photo]"),), "trained with method.domains=2, and here it is 1"),
        (("method.classes=2",), "method.classes is 2, and data sketch.photo has 3: leave it out"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            train(recipe("second", start, *change), tmp_path / "second")
    (pictures / "sketch" / "cow").rename(pictures / "sketch" / "dog")
    (pictures / "photo" / "cow").rename(pictures / "photo" / "dog")
    with pytest.raises(UsageError, match="other classes than the data's: number 2 is 'cow' there"):
        train(recipe("second", start), tmp_path / "second")


def test_captions_have_no_classes_to_learn_of(tiny_folder, pictures):
    data = "data={source: emoji, task: captions}"
    recipe = tiny.recipe(tiny_folder, pictures, data, "method={name: ucdr-prompts, context: 0}")
    with pytest.raises(
        UsageError, match="ucdr-prompts learns of each class, and emoji noto, train"
    ):
        plan(recipe)


def test_a_context_that_no_text_has_is_named(recipe, tmp_path):
    with pytest.raises(UsageError, match=r"method.context: no text has a place \(\$\) for it"):
        train(recipe("first", "objective=[{name: mpm-nce}]"), tmp_path)


def test_unlabelled_pictures_have_the_mean_of_all_rows(recipe, pictures, tmp_path):
    more = f"unlabelled={{source: folder, root: {pictures / 'photo'}, share: 0.25}}"
    terms = "objective=[{name: class-texts}, {name: car-ft, rows: unlabelled}]"
    run = train(recipe("first", more, terms, "method.context=0"), tmp_path)
    assert all(json.loads(line)["loss"] > 0 for line in run.metrics.read_text().splitlines())


@pytest.mark.parametrize(
    ("section", "names"),
    [
        (IconsData(source="icons", kinds=["solid", "line"], split="test"), ["solid", "line"]),
        (EmojiData(source="emoji", styles=["noto", "twemoji"]), ["noto", "twemoji"]),
    ],
)
def test_built_in_pictures_say_their_domains(section, names):
    dataset = open_data(section)
    assert dataset.domain_names == names
    assert [names[d] for d in dataset.domains] == [key.split("/")[0] for key in dataset.keys]
    chosen = dataset.select([len(dataset) - 1, 0])
    assert chosen.domains == [dataset.domains[-1], dataset.domains[0]]
