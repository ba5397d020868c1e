"""Unlabelled pictures in each batch, and training with FitCLIP's distillation of them."""

import json

import pytest
import tiny
import torch
from ranks import in_ranks, results
from safetensors.torch import load_file

from radapter import merging
from radapter.data import open_data
from radapter.data.mixed import Mixed, MixedOrder, Pictures
from radapter.data.opening import open_unlabelled
from radapter.data.pairs import BatchOrder, Pairs, collate
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import seeing
from radapter.evaluation.suite import load_suite
from radapter.training import Interrupted, failures, preparing, resume, train
from radapter.training.planning import plan
from training.test_distributed import equal_end, first_steps, training

DISTIL = "objective=[{name: mpm-nce}, {name: in-batch-distillation, temperature: 0.1}]"
STUDENTS = [
    pytest.param(name, id=name) for name in ("full", "lora", "r-adapter") if name in tiny.TRAINED
]


def drawn(root, number):
    """So many pictures."""
    return sorted(tiny.draw_shapes(root, each=5).rglob("*.png"))[:number]


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """Ten pictures right in a folder, three in one below it, and a table of them without texts."""
    root = tmp_path_factory.mktemp("loose")
    (root / "more").mkdir()
    for number, path in enumerate(drawn(tmp_path_factory.mktemp("drawn") / "x", 13)):
        path.rename(root / ("more" if number > 9 else "") / f"{number}.png")
    names = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*.png"))]
    (root / "table.csv").write_text(
        "\n".join(["filepath,title", *(f"{n},it is {n}" for n in names)])
    )
    (root / "bare.csv").write_text("\n".join(["filepath", *names]))
    return root


@pytest.fixture
def recipe(tiny_folder, shapes, loose):
    section = f"unlabelled={{source: folder, root: {loose}, share: 0.4}}"
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, section, DISTIL, *overrides)


# ---------------------------------------------------------------- batches


def test_batches_have_pairs_first_and_resume(shapes, loose):
    settings = tiny.recipe("model", shapes, f"unlabelled={{source: folder, root: {loose}}}")
    pairs = Pairs(open_data(settings.data), settings.data, lambda p: torch.zeros(3, 4, 4), seed=1)
    pictures = Pictures(open_unlabelled(settings.unlabelled), lambda p: torch.ones(3, 4, 4), 1)
    assert (len(pairs), len(pictures)) == (24, 13)
    order = BatchOrder(24, 6, 3, seed=1)
    batches = list(MixedOrder(order, 13, 5, pictures.seed))
    assert [batch[:6] for batch in batches] == list(order)
    behind = [item for batch in batches for item in batch[6:]]
    assert len(behind) == 12 * 5
    assert {item for _, item in behind} == set(range(24, 37))
    epochs = [[item for epoch, item in behind if epoch == e] for e in range(6)]
    assert all(len(set(own)) == len(own) == 10 for own in epochs)  # 13 // 5 batches of 5
    assert epochs[0] != epochs[1]
    later = MixedOrder(BatchOrder(24, 6, 3, seed=1, start_step=5), 13, 5, pictures.seed)
    assert list(later) == batches[5:]
    assert (len(later), later.steps, later.batch_size) == (7, 12, 11)
    mixed = Mixed(pairs, pictures)
    batch = collate([mixed[place] for place in batches[0]], lambda texts, context_length: texts)
    assert batch["images"][:, 0, 0, 0].tolist() == [0] * 6 + [1] * 5
    assert (batch["labelled"], batch["text_of"][6:].tolist()) == (6, [-1] * 5)
    assert batch["labelled_texts"] == len(batch["tokens"]) == 1 + max(batch["text_of"])
    assert set(batch["groups"][6:].tolist()) == {-1}
    assert "labelled" not in collate([mixed[0, 1]], lambda texts, context_length: texts)


def test_a_few_pictures_are_used_up_again_and_again():
    order = MixedOrder(BatchOrder(8, 4, 2, seed=0), 2, 5, 3)
    assert [sorted(i for _, i in batch[4:]) for batch in order] == [[8, 9]] * 4


@pytest.mark.parametrize(("file", "texts"), [("bare.csv", False), ("table.csv", True)])
def test_a_table_needs_texts_only_where_they_are_asked_for(shapes, loose, file, texts):
    section = f"{{source: table, path: {loose / file}, texts: {json.dumps(texts)}}}"
    settings = tiny.recipe("model", shapes, f"unlabelled={section}").unlabelled
    dataset = open_unlabelled(settings)
    assert len(dataset) == 13
    assert (dataset.labels, dataset.class_names) == ([], [])
    assert [bool(own) for own in dataset.captions] == [True] * 13 * texts
    if texts:
        item = Pictures(dataset, lambda p: p, 0)[0, 4, True]
        assert item["text"] == f"it is {dataset.keys[4]}"
        assert (item["group"], item["own"]) == (-1, False)


@pytest.mark.parametrize("labelled", ["pictures", "clips"])
def test_clips_are_mixed_in_too(recipe, loose, shapes, tmp_path, labelled):
    """Of other lengths, and among pictures."""
    videos = tmp_path / "videos"
    for number in range(6):
        clip = videos / "a" / f"clip {number}"
        clip.mkdir(parents=True)
        for path in drawn(tmp_path / f"drawn {number}", 2 + number):
            path.rename(clip / f"{path.parent.name}{path.name}")
    clips = f"{{source: videos, root: {videos}, frames: 2, share: 0.4}}"
    changes = [f"unlabelled={clips}", "optimisation.epochs=1"]
    if labelled == "clips":
        (tmp_path / "clips.csv").write_text(
            "\n".join(["video,caption", *(f"a/clip {n},a {n}" for n in range(6))])
        )
        changes += [
            f"data={{source: videos, root: {videos}, path: {tmp_path / 'clips.csv'}, frames: 3, "
            "task: captions}"
        ]
    settings = recipe(*changes)
    assert plan(settings).fit.memory.pictures % (3 if labelled == "clips" else 2) == 0
    run = train(settings, tmp_path / "runs")
    assert all(t.isfinite().all() for t in load_file(run.adapter).values())


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "changes",
    [["optimisation.micro_batch=3"], ["workers=1"], ["activation_checkpointing=true"]],
)
def test_training_is_the_same_however_it_is_run(recipe, tmp_path, changes):
    # A large epsilon: Adam makes steps of full size of gradients that are rounding alone.
    eps = "optimisation.eps=1e-3"
    whole, other = train(recipe(eps), tmp_path / "a"), train(recipe(eps, *changes), tmp_path / "b")
    for name, tensor in load_file(whole.adapter).items():
        torch.testing.assert_close(load_file(other.adapter)[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(recipe, tmp_path, precision):
    run = train(recipe(f"precision={precision}", "optimisation.epochs=1"), tmp_path)
    assert all(t.isfinite().all() for t in load_file(run.adapter).values())


def test_a_stopped_run_goes_on_to_the_same_end(recipe, tmp_path):
    settings = recipe("data.augmentation.flip=0.5", "unlabelled.augmentation={flip: 0.5}")
    whole = train(settings, tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path / "stopped", should_stop=iter([False] * 5 + [True]).__next__)
    assert resume(caught.value.run).adapter.read_bytes() == whole.adapter.read_bytes()


def test_a_run_does_not_go_on_with_other_unlabelled_pictures(recipe, loose, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for path in sorted(loose.glob("*.png")):
        (own / path.name).write_bytes(path.read_bytes())
    settings = recipe(f"unlabelled.root={own}")
    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path, should_stop=iter([False] * 2 + [True]).__next__)
    (own / "0.png").unlink()
    with pytest.raises(BrokenInput, match="is not the unlabelled data that step 3 of"):
        resume(caught.value.run)


RANKS = {
    "pictures": [],
    "their texts": ["objective.1.texts=unlabelled", "optimisation.micro_batch=2"],
}


def settings_of(recipe, loose, case):
    texts = f"unlabelled={{source: table, path: {loose / 'table.csv'}, share: 0.4, texts: true}}"
    return recipe(*([texts] if case == "their texts" else []), *RANKS[case])


@pytest.mark.parametrize("case", RANKS)
def test_gradients_are_those_of_one_process(recipe, loose, case):
    settings = settings_of(recipe, loose, case)
    recipes = [
        settings.model_copy(
            update={"optimisation": settings.optimisation.model_copy(update={"batch_size": size})}
        )
        for size in (8, 7, 5)
    ]
    expected = first_steps(recipes)
    for values in results(in_ranks(2, first_steps, recipes)):
        for (loss, one), (expected_loss, two) in zip(values, expected, strict=True):
            assert loss == pytest.approx(expected_loss, rel=1e-5)
            largest = max(abs(gradient).max() for gradient in two)
            assert largest > 1e-3
            for ours, theirs in zip(one, two, strict=True):
                assert abs(ours - theirs).max() < 1e-5 * max(1.0, largest)


@pytest.fixture
def damaged(loose, tmp_path):
    """The pictures, of which three cannot be read."""
    root = tmp_path / "damaged"
    root.mkdir()
    for number, path in enumerate(sorted(loose.rglob("*.png"))):
        (root / path.name).write_bytes(b"no picture" if number in (1, 4, 7) else path.read_bytes())
    return root


def test_broken_pictures_are_left_out_and_counted(recipe, damaged, tmp_path, capsys):
    settings = recipe(
        f"unlabelled.root={damaged}", "unlabelled.broken_images=3", "optimisation.eps=1e-3"
    )
    alone = train(settings, tmp_path / "alone")
    assert capsys.readouterr().err.count("skipped") == 3
    data = json.loads((alone.path / "data.json").read_text())
    assert len(data["unlabelled_broken"]) == 3
    assert data["unlabelled"]["left_out"]["broken"]["count"] == 3
    assert (data["broken"], data["unlabelled"]["pictures"]) == ([], 13)
    results(in_ranks(2, training, settings, tmp_path / "together"))
    equal_end(alone, type(alone)(next((tmp_path / "together").iterdir())))
    with pytest.raises(BrokenInput, match=r"3 broken, and unlabelled\.broken_images allows 2"):
        train(recipe(f"unlabelled.root={damaged}", "unlabelled.broken_images=2"), tmp_path / "c")


def test_pictures_that_are_all_broken_leave_the_labelled_ones(recipe, damaged, tmp_path):
    for path in damaged.iterdir():
        path.write_bytes(b"")
    settings = recipe(
        f"unlabelled.root={damaged}", "unlabelled.broken_images=13", "optimisation.batch_size=8"
    )
    alone = train(settings, tmp_path / "a")
    less = recipe("unlabelled=null", "objective={name: mpm-nce}", "optimisation.batch_size=5")
    # Batches of the same pairs. (The seeds of drawings follow from the pairs alone.)
    for name, tensor in load_file(train(less, tmp_path / "b").adapter).items():
        torch.testing.assert_close(load_file(alone.adapter)[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_bad_batch_names_unlabelled_pictures(recipe):
    parts = preparing.prepare(recipe())
    named = failures._pairs(parts, 2)
    assert len(named) == 8
    assert [next(iter(pair)) for pair in named] == ["picture"] * 5 + ["unlabelled picture"] * 3


@pytest.mark.parametrize("method", STUDENTS)
def test_the_student_is_interpolated_with_the_teacher(recipe, tmp_path, method):
    """Alpha 0 is the teacher bit for bit, 0.4 four tenths of the way to the student."""
    run = train(recipe(f"method={{name: {method}}}"), tmp_path)
    trained = merging.open_trained(run)
    base = {name: t.clone() for name, t in trained.base.model.state_dict().items()}
    teacher, part, student = (trained.at(alpha) for alpha in (0.0, 0.4, 1.0))
    assert all(torch.equal(teacher[name], tensor) for name, tensor in base.items())
    assert any(not torch.equal(student[name], tensor) for name, tensor in base.items())
    for name, tensor in base.items():
        wanted = 0.6 * tensor + 0.4 * student[name]
        torch.testing.assert_close(part[name], wanted, rtol=0, atol=1e-6)


def test_what_is_planned(recipe, loose):
    planned, plain = plan(recipe()), plan(recipe("unlabelled=null", "objective={name: mpm-nce}"))
    assert (planned.pairs, planned.unlabelled, planned.batch_size) == (24, 13, 8)
    assert (planned.steps, plain.steps) == (3 * (24 // 5), 3 * (24 // 8))
    assert planned.fit.memory.pictures == plain.fit.memory.pictures
    assert planned.data["unlabelled"]["pictures"] == 13
    assert "unlabelled" not in plain.data


# ---------------------------------------------------------------- what is refused, and said


def test_what_cannot_be_is_refused(recipe, shapes, loose):
    with pytest.raises(
        UsageError, match=r"objective\.1\.rows is unlabelled, and the recipe has no"
    ):
        plan(recipe("unlabelled=null"))
    with pytest.raises(UsageError, match="no term of the objective is of these pictures"):
        plan(recipe("objective={name: mpm-nce}"))
    with pytest.raises(UsageError, match="come without texts: set unlabelled.texts=true"):
        plan(recipe("objective.1.texts=unlabelled"))
    with pytest.raises(UsageError, match="leaves 1 labelled and 7 unlabelled"):
        recipe("unlabelled.share=0.9")
    with pytest.raises(UsageError, match="have to be null both, or neither"):
        recipe("data.augmentation=null")
    with pytest.raises(UsageError, match="unlabelled.texts asks for captions"):
        plan(recipe("unlabelled.texts=true"))
    with pytest.raises(UsageError, match="ObjectNet's licence allows testing only"):
        recipe("unlabelled={source: objectnet}")


def test_pictures_that_are_held_out_are_no_unlabelled_ones(recipe, shapes):
    same = f"unlabelled={{source: folder, root: {shapes}}}"
    with pytest.raises(UsageError, match="of its pictures are held out"):
        plan(recipe(same, "data.hold_out=0.3"))
    plan(recipe(same))
    by_hash = ["data.hold_out_by=hash", "unlabelled.hold_out_by=hash", "unlabelled.hold_out=0.3"]
    plan(recipe(same, "data.hold_out=0.3", *by_hash))


ICONS = [
    "data={source: icons, kinds: [line], shots: 1}",
    "method={name: lora, rank: 1}",
]


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("{source: icons, kinds: [solid], split: test}", True),
        ("{source: icons, kinds: [solid], split: train}", False),
        ("{source: emoji, styles: [twemoji], split: train}", False),
        ("{source: emoji, styles: [noto], split: train}", True),
    ],
)
def test_test_data_of_a_suite_is_no_unlabelled_data(section, wrong):
    settings = tiny.recipe(
        "model", "data", *ICONS, f"unlabelled={section}", "suites=[icons-shifts]"
    )
    if not wrong:
        assert len(seeing.open_checked(settings)) > 100
        return
    with pytest.raises(UsageError, match=r"it has test pictures of \w+ of the suite icons-shifts"):
        seeing.open_checked(settings)
    without = settings.model_copy(update={"suites": []})
    assert len(seeing.open_checked(without)) > 100
    (line,) = seeing.said(load_suite("icons-shifts"), without).values()
    name = "solid" if "solid" in section else "noto"
    assert f"Training saw pictures of {name} without labels, test pictures of {name} among" in line


def test_results_say_what_was_seen_without_labels():
    section = "unlabelled={source: icons, kinds: [solid, pixel], split: train}"
    settings = tiny.recipe("model", "data", *ICONS, section)
    suite = load_suite("icons-shifts")
    said = seeing.said(suite, settings)["seen"]
    assert said.endswith("Training saw pictures of solid, pixel without labels")
    none = settings.model_copy(update={"unlabelled": None})
    assert seeing.said(suite, none) == suite.seen_by("model")
