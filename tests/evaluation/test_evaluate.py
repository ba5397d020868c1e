"""A suite on a tiny model against numbers computed from open_clip's own methods."""

import dataclasses
import hashlib
import json
import shutil
import tarfile

import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import models
from radapter.classes import first_of_name
from radapter.data import open_data
from radapter.data.pairs import templates_of
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.folder import FolderData
from radapter.data.sources.shards import ShardsData
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.classification import answer_scores
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.result import TextKey
from radapter.evaluation.suite import Suite, SuiteDataset, load_suite
from radapter.heads import zero_shot
from radapter.runtimes.opened import from_loaded


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return models.load(tiny_folder)


def suite_of(data, tasks=("classification",), templates=("a photo of a {}.", "the {}")):
    return Suite(
        name="mine",
        templates=list(templates),
        tasks=list(tasks),
        datasets=[SuiteDataset(name="set", role="in-distribution", data=data)],
    )


def test_accuracy_equals_a_classifier_made_by_hand(loaded, shapes):
    suite = suite_of(FolderData(source="folder", root=str(shapes), split="all"))
    found = evaluate(suite, from_loaded(loaded), batch_size=5)
    dataset = open_data(suite.datasets[0].data)
    with torch.no_grad():
        head = []
        for name in dataset.class_names:
            prompts = [template.replace("{}", name) for template in suite.templates]
            texts = loaded.model.encode_text(loaded.tokenizer(prompts), normalize=True)
            head.append(F.normalize(texts.mean(0), dim=-1))
        right = []
        for i, label in enumerate(dataset.labels):
            picture = loaded.preprocess(dataset.read(i))[None]
            scores = loaded.model.encode_image(picture, normalize=True) @ torch.stack(head).T
            right.append(int(scores.argmax()) == label)
    assert found.sets["set"].metrics["accuracy"].scores.tolist() == right
    result = found.result()
    assert result["roles"]["in-distribution"]["accuracy"]["value"] == sum(right) / len(right)
    assert result["datasets"]["set"]["accuracy"]["chance"] == pytest.approx(1 / 3)
    assert json.loads(json.dumps(result)) is not None


def test_classes_of_one_name_are_one_class(loaded, shapes, tmp_path):
    """As ImageNet's two cranes: no picture is wrong for having the other number."""
    for old, new in (("blue_circle", "a/crane"), ("red_square", "b/crane")):
        shutil.copytree(shapes / old, tmp_path / new)
    pictures = sorted(tmp_path.glob("*/crane/*"))
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for i, path in enumerate(pictures):
            shard.add(path, f"{i:04}.png")
            (tmp_path / "cls").write_text(str(i % 2))
            shard.add(tmp_path / "cls", f"{i:04}.cls")
    data = ShardsData(source="shards", shards=f"{tmp_path}/s.tar", class_names=["crane", "crane"])
    found = evaluate(suite_of(data), from_loaded(loaded))
    accuracy = found.result()["datasets"]["set"]["accuracy"]
    assert accuracy["value"] == accuracy["chance"] == 1.0


def test_pictures_of_two_sets_are_resampled_apart_and_concepts_together(loaded, shapes):
    def clusters(*data):
        sets = [
            SuiteDataset(name=f"set-{i}", role="shifted", data=own) for i, own in enumerate(data)
        ]
        suite = Suite(name="two", tasks=["classification"], datasets=sets)
        found = evaluate(suite, from_loaded(loaded))
        return [set(own.metrics["accuracy"].clusters) for own in found.sets.values()]

    one, other = clusters(*[FolderData(source="folder", root=str(shapes), split="all")] * 2)
    assert len(one) == len(other) == 24
    assert not one & other
    styles = ("noto", "noto-v1")
    one, other = clusters(
        *[EmojiData(source="emoji", styles=[style], split="validation") for style in styles]
    )
    assert one & other


def test_equal_classes_have_equal_scores():
    generator = torch.Generator().manual_seed(0)
    images, head = (torch.randn(n, 96, generator=generator) for n in (500, 1001))
    head[1000] = head[3]
    logits = zero_shot.ZeroShot(head, 1.0)(images)
    scores = answer_scores(logits, torch.arange(1001))
    assert torch.equal(scores[:, 3], scores[:, 1000])
    torch.testing.assert_close(scores, images @ head.T)


def test_captions_of_the_same_tokens_are_one_text(loaded, shapes, tmp_path):
    """To the model "A  Dog" is "a dog": both tie, whatever a matrix product makes of them."""
    texts = ("a dog", "A  Dog", "a cat")
    rows = [f"{shapes}/red_square/0{i}.png,{text}" for i, text in enumerate(texts)]
    (tmp_path / "t.csv").write_text("\n".join(["filepath,title", *rows]))
    data = TableData(source="table", path=str(tmp_path / "t.csv"), split="all", task="captions")
    found = evaluate(suite_of(data, ["retrieval"]), from_loaded(loaded))
    assert found.sets["set"].facts["shared_captions"] == 2
    assert list(found.text_features) == [TextKey("caption", "a dog"), TextKey("caption", "a cat")]
    assert found.sets["set"].metrics["text_to_image_r1"].scores.shape == (2,)


def test_a_caption_that_reads_like_a_class(loaded, shapes, tmp_path):
    """Features of captions and of class heads are kept apart."""
    rows = [f"{shapes}/red_square/0{i}.png,{text}" for i, text in enumerate(("class: a", "a"))]
    (tmp_path / "t.csv").write_text("\n".join(["filepath,title", *rows]))
    data = TableData(source="table", path=str(tmp_path / "t.csv"), split="all")
    both = suite_of(data, tasks=("classification", "retrieval"))
    alone = suite_of(data, tasks=("retrieval",))
    one, two = (evaluate(s, from_loaded(loaded)) for s in (both, alone))
    key = TextKey("caption", "class: a")
    assert torch.equal(one.text_features[key], two.text_features[key])
    assert not torch.equal(
        one.text_features[key], one.text_features["class", "a", tuple(suite_of(data).templates)]
    )


def test_the_80_templates_are_the_published_ones():
    templates = templates_of("openai")
    assert len(templates) == len(set(templates)) == 80
    assert hashlib.sha256("\n".join(templates).encode()).hexdigest()[:16] == "4f976686fb651bb5"


def test_openai_templates_give_open_clips_own_classifier(loaded):
    names = ["cat", "red fox"]
    lengths = []
    model = from_loaded(loaded)

    def watched(texts):
        lengths.append(model.tokenizer(texts).shape[1])
        return model.tokenizer(texts)

    classes = zero_shot.prompts_of(names, templates_of("openai"))
    head = zero_shot.weights(dataclasses.replace(model, tokenizer=watched), classes)
    assert max(lengths) < loaded.model.context_length  # as an evaluation does it, in less time
    theirs = open_clip_classifier(loaded, names)
    torch.testing.assert_close(head, theirs.T, atol=1e-6, rtol=0)


def open_clip_classifier(loaded, names):
    import open_clip

    return open_clip.build_zero_shot_classifier(
        loaded.model, loaded.tokenizer, names, open_clip.OPENAI_IMAGENET_TEMPLATES, device="cpu"
    )


def test_recall_equals_a_full_similarity_matrix(loaded, shapes, tmp_path):
    rows = ["filepath,title"]
    files = sorted(shapes.rglob("*.png"))
    for i, path in enumerate(files):
        rows += [f"{path},number {i}", f"{path},shape {i % 5}"]  # captions of several pictures
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    data = TableData(source="table", path=str(tmp_path / "t.csv"), task="captions", split="all")
    found = evaluate(suite_of(data, ["retrieval"]), from_loaded(loaded))
    texts = [f"number {i}" for i in range(len(files))] + [f"shape {i}" for i in range(5)]
    with torch.no_grad():
        dataset = open_data(data)
        pictures = torch.stack([loaded.preprocess(dataset.read(i)) for i in range(len(files))])
        images = loaded.model.encode_image(pictures, normalize=True)
        captions = loaded.model.encode_text(loaded.tokenizer(texts), normalize=True)
    similarity = captions @ images.T
    right = torch.zeros(len(texts), len(files), dtype=torch.bool)
    for i in range(len(files)):
        right[i, i] = right[len(files) + i % 5, i] = True
    for k in (1, 5):
        top = similarity.topk(k, dim=1).indices
        expected = right.gather(1, top).any(1).double().mean()
        assert found.sets["set"].value(f"text_to_image_r{k}") == pytest.approx(float(expected))
        top = similarity.T.topk(k, dim=1).indices
        expected = right.T.gather(1, top).any(1).double().mean()
        assert found.sets["set"].value(f"image_to_text_r{k}") == pytest.approx(float(expected))


def spoil(root, *names):
    for name in names:
        (root / name).write_bytes(b"not a picture")


def test_broken_pictures_beyond_the_limit_are_named_and_fatal(loaded, tmp_path):
    root = tiny.draw_shapes(tmp_path / "shapes", each=4)
    spoil(root, "red_square/01.png", "blue_circle/03.png")
    for limit, named in ((0, "blue_circle/03.png"), (1, "red_square/01.png")):
        data = FolderData(source="folder", root=str(root), split="all", broken_images=limit)
        with pytest.raises(BrokenInput, match=named) as caught:
            evaluate(suite_of(data), from_loaded(loaded), batch_size=3)
        assert f"set: data.broken_images allows {limit}" in str(caught.value)
    spoil(root, *(path.relative_to(root) for path in root.rglob("*.png")))
    data = FolderData(source="folder", root=str(root), split="all", broken_images=99)
    with pytest.raises(BrokenInput, match="set: no picture can be read"):
        evaluate(suite_of(data), from_loaded(loaded))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_set_with_broken_pictures_scores_as_one_without_them(
    loaded, tmp_path, capsys, batch_size
):
    """Classes, captions and groups leave together, whether a batch loses one picture or all."""
    root = tiny.draw_shapes(tmp_path / "shapes")
    bad = ["blue_circle/00.png", "green_cross/04.png", "red_square/07.png"]
    rows = []
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        # Another text for every three pictures, and one text that a broken picture shares.
        rows.append((name, f"shape {path.parent.name} {int(path.stem) // 3}", path.stem))
    results = []
    for folder, kept in (("with", rows), ("without", [r for r in rows if r[0] not in bad])):
        table = tmp_path / folder / "t.csv"
        table.parent.mkdir()
        table.write_text("\n".join(["filepath,title,thing", *map(",".join, kept)]))
        shutil.copytree(root, tmp_path / folder / "p")
        if folder == "with":
            spoil(tmp_path / folder / "p", *bad)
        data = TableData(
            source="table",
            path=str(table),
            root=str(table.parent / "p"),
            group_column="thing",
            split="all",
            broken_images=3,
        )
        suite = suite_of(data, tasks=("classification", "retrieval"))
        results.append(evaluate(suite, from_loaded(loaded), batch_size=batch_size))
    with_broken, without = results
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped: " in line]
    assert len(said) == 3
    assert all(any(f"with/p/{name}" in line for line in said) for name in bad)
    features = [found.sets["set"].image_features for found in results]
    torch.testing.assert_close(*features, atol=1e-6, rtol=0)  # batches are cut differently
    assert torch.equal(with_broken.sets["set"].predictions, without.sets["set"].predictions)
    for metric, scored in without.sets["set"].metrics.items():
        found = with_broken.sets["set"].metrics[metric]
        assert found.scores.tolist() == scored.scores.tolist(), metric
        assert found.chance == scored.chance, metric
        # Clusters are numbered anew; the same items are in one.
        pairs = set(zip(found.clusters.tolist(), scored.clusters.tolist(), strict=True))
        assert len(pairs) == len(set(found.clusters.tolist())) == len(set(scored.clusters.tolist()))
    entry = with_broken.result()["datasets"]["set"]
    assert (entry["pictures"], entry["broken"]) == (len(rows) - 3, 3)
    assert without.result()["datasets"]["set"]["broken"] == 0
    # Named once in a process, however many models are scored.
    evaluate(suite_of(data), from_loaded(loaded))
    assert "with/p" not in capsys.readouterr().err


def test_missing_sets_are_listed_all_at_once(tmp_path):
    datasets = [
        SuiteDataset(
            name=name,
            role="shifted",
            data=FolderData(source="folder", root=str(tmp_path / name), split="all"),
        )
        for name in ("one", "two")
    ]
    suite = Suite(name="mine", tasks=["classification"], datasets=datasets)
    with pytest.raises(BrokenInput, match=r"(?s)one: .*two: "):
        suite.open()


def test_an_unknown_suite_gets_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean 'emoji-shifts'"):
        load_suite("emoji-shift")


def test_a_suite_file_is_checked_with_lines(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\ntasks: [classification]\ndatasets:\n  - {name: a, rolle: shifted}\n")
    with pytest.raises(UsageError, match=r"mine.yaml:4:.*rolle.*did you mean 'role'"):
        load_suite(str(path))


def test_the_shipped_suite_tests_on_the_fold_of_the_recipe():
    suite = load_suite("emoji-shifts")
    recipe = tiny.recipe("m", "r")
    emoji = recipe.model_copy(update={"data": EmojiData(source="emoji", fold=3)})
    assert {d.data.fold for d in suite.for_recipe(emoji).datasets} == {3}
    roles = {d.name: d.role for d in suite.datasets}
    assert len(roles) == 8
    assert roles["noto"] == "in-distribution"
    train = open_data(emoji.data)
    for dataset in suite.for_recipe(emoji).open().values():
        for task in dataset.values():
            assert not set(task.groups) & set(train.groups)


def test_equal_class_names_count_as_one():
    assert first_of_name(["crane", "missile", "crane"]) == [0, 1, 0]
