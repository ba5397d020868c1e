"""radapter init: what lies there is recognised, and the recipe trains as it is."""

import json
import shutil

import pytest
import tiny
import torch
import trees
from braceexpand import braceexpand
from video_files import animated

from radapter import recipe as recipes
from radapter.data import open_data
from radapter.init.shards import brace
from radapter.init.text import scalar, size_of
from radapter.recipe_yaml import read_text


@pytest.fixture
def init(cli, tiny_folder, tmp_path):
    """`init PATH`, then `train` what it wrote, one epoch on a tiny model; (recipe, stdout)."""

    def call(*arguments: str):
        outcome = cli("init", *arguments)
        assert outcome.code == 0, outcome.err
        (written,) = tmp_path.glob("*.yaml")
        recipe = recipes.load(written)
        again = cli("init", *arguments)
        assert again.code == 2
        assert f"{written.name} exists already" in again.err
        changes = [f"model={tiny_folder}", "optimisation.epochs=1", "device=cpu"]
        trained = cli("train", written.name, *changes)
        assert trained.code == 0, trained.err
        assert recipes.load(written) == recipe  # not overwritten
        if recipe.validation_data() is not None:
            merged = cli("merge", "--alpha", "auto")
            assert merged.code == 0, merged.err
        return recipe, outcome.out

    return call


def test_class_folders(init, tmp_path):
    root = tiny.draw_shapes(tmp_path / "my shapes")
    (root / "blue_circle" / "07.png").unlink()
    (root / "red_square" / "03.png").write_bytes(b"no picture")
    recipe, out = init("my shapes/")
    assert recipe.name == "my-shapes"
    assert (recipe.data.source, recipe.data.root) == ("folder", "my shapes")
    assert recipe.data.broken_images == 1
    assert "smallest blue circle (7), largest green cross (8)" in out
    assert "23 pictures were opened, 1 is broken" in out
    assert "red_square/03.png" in out
    assert 0 < len(open_data(recipe.validation_data())) < 12
    text = (tmp_path / "my-shapes.yaml").read_text()
    assert "# Made by `radapter init 'my shapes/'`" in text


def test_train_and_validation_folders(init, tmp_path):
    for split, each in (("train", 8), ("val", 3), ("test", 3)):
        tiny.draw_shapes(tmp_path / "shapes" / split, each=each)
    recipe, out = init("shapes")
    assert recipe.data.root == "shapes/train"
    assert recipe.validation.root == "shapes/val"
    assert len(open_data(recipe.data)) == 24
    assert len(open_data(recipe.validation_data())) == 9
    assert "neither trained on nor used for alpha: test." in out
    assert "radapter eval --data shapes/test" in (tmp_path / "shapes.yaml").read_text()


def test_a_class_called_like_a_split_is_asked_about(cli, tmp_path):
    tiny.draw_shapes(tmp_path / "s")
    shutil.move(tmp_path / "s" / "red_square", tmp_path / "s" / "train")
    outcome = cli("init", "s")
    assert (outcome.code, list(tmp_path.glob("*.yaml"))) == (2, [])
    assert "--split none" in outcome.err
    assert cli("init", "s", "--split", "none").code == 0
    assert cli("init", "s", "--split", "nothing", "--name", "b").code == 2


def test_names_that_are_numbers_get_a_note(cli, tmp_path):
    shutil.move(tiny.draw_shapes(tmp_path / "s") / "red_square", tmp_path / "s" / "n01440764")
    assert "call them by words" not in cli("init", "s", "--name", "one").out
    for i, name in enumerate(("blue_circle", "green_cross")):
        shutil.move(tmp_path / "s" / name, tmp_path / "s" / str(i))
    outcome = cli("init", "s", "--json")
    found = json.loads(outcome.out)["found"]
    assert found["classes"]["number"] == 3
    assert "call them by words" in found["notes"][0]
    assert "call them by words" in (tmp_path / "s.yaml").read_text()


def test_shards(init, tmp_path):
    for i in range(2):
        texts = {f"{i}{k}.txt": f"picture {k}".encode() for k in range(12)}
        pictures = {f"{i}{k}.jpg": trees.encoded(k, "JPEG") for k in range(12)}
        trees.shard(tmp_path / "shards" / f"cc3m-train-{i:04d}.tar", texts | pictures)
    recipe, out = init("shards")
    assert recipe.data.shards == "shards/cc3m-train-{0000..0001}.tar"
    assert recipe.data.task == "captions"
    assert "24 pictures (2 WebDataset shards): 24 captions" in out


def test_shards_of_classes(cli, tmp_path, tiny_folder):
    samples = {}
    for i in range(9):
        samples |= {f"{i}.jpg": trees.encoded(i, "JPEG"), f"{i}.cls": str(i % 2).encode()}
    trees.shard(tmp_path / "s" / "a.tar", samples)
    outcome = cli("init", "s/a.tar")
    assert outcome.code == 2
    assert "classnames.txt" in outcome.err
    (tmp_path / "s" / "classnames.txt").write_text("red fox\ncat\n")
    assert cli("init", "s/a.tar").code == 0
    recipe = recipes.load(tmp_path / "a.yaml")
    assert (recipe.data.shards, recipe.data.class_names) == ("s/a.tar", ["red fox", "cat"])


def test_clip_benchmarks_classes(init, tmp_path):
    trees.clip_benchmark(tmp_path / "wds_pets")
    recipe, out = init("wds_pets")
    assert (recipe.data.source, recipe.data.dataset_split) == ("clip-benchmark", "train")
    assert recipe.data.templates == ["a photo of a {}.", "a drawing of the {}."]
    assert "3 classes, smallest golden retriever (6), largest cat (7)" in out


def test_clip_benchmarks_captions(init, tmp_path):
    trees.clip_benchmark(tmp_path / "wds", "retrieval", ("train", "val", "test"))
    recipe, _ = init("wds")
    assert recipe.data.task == recipe.validation.task == "captions"
    assert recipe.validation.dataset_split == "val"
    assert recipe.alpha == 0.8


def test_a_test_split_alone_is_asked_about(cli, tmp_path):
    trees.clip_benchmark(tmp_path / "wds", splits=("test",))
    asked = cli("init", "wds")
    assert (asked.code, "none of them is for training" in asked.err) == (2, True)
    assert "test is no test any more" in cli("init", "wds", "--split", "test").out
    assert recipes.load(tmp_path / "wds.yaml").data.hold_out == 0.2


@pytest.mark.parametrize("path", ["coco", "coco/dataset_coco.json"])
def test_karpathys_file(init, tmp_path, path):
    trees.coco(tmp_path / "coco")
    recipe, out = init(path)
    assert (recipe.data.source, recipe.data.path) == ("karpathy", "coco/dataset_coco.json")
    assert "10 pictures (the train split of a caption file in Karpathy's form): 50 captions" in out
    assert len(open_data(recipe.validation_data())) == 5


def test_karpathys_file_away_from_its_pictures(init, tmp_path):
    trees.flickr30k(tmp_path / "pictures")
    shutil.move(tmp_path / "pictures" / "dataset_flickr30k.json", tmp_path)
    recipe, _ = init("dataset_flickr30k.json", "--pictures", "pictures")
    assert recipe.data.root == "pictures"


def test_cocos_own_captions(init, tmp_path):
    root = trees.coco(tmp_path / "coco")
    (root / "dataset_coco.json").unlink()
    recipe, _ = init("coco")
    assert recipe.data.path == "coco/annotations/captions_train2014.json"
    assert recipe.validation.path == "coco/annotations/captions_val2014.json"
    assert len(open_data(recipe.validation_data())) == 15


def test_kaggles_flickr30k(init, tmp_path):
    """flickr30k_images/results.csv with pipes, a broken line, and the pictures one folder down."""
    root = trees.flickr30k(tmp_path / "flickr30k_images", "flickr30k_images")
    (root / "dataset_flickr30k.json").unlink()
    rows = ["image_name| comment_number| comment"]
    for picture in sorted((root / "flickr30k_images").iterdir()):
        name = picture.name
        rows += [f'{name}| {i}| "A" dog of {name} , number {i} .' for i in range(5)]
    rows[8] = rows[8].replace('| "A"', '   "A"')
    (root / "results.csv").write_text("\n".join(rows) + "\n")
    recipe, out = init("flickr30k_images")
    assert (recipe.data.image_column, recipe.data.text_column) == ("image_name", "comment")
    assert (recipe.data.delimiter, recipe.data.broken_rows) == ("|", 1)
    assert recipe.data.root == "flickr30k_images/flickr30k_images"
    assert "20 pictures (a table): 99 captions" in out
    assert "results.csv:9: a needed cell is empty" in out


@pytest.mark.parametrize(
    ("name", "header", "row", "expected"),
    [
        ("a.csv", "filepath,title", "{p},shape {i}", ("filepath", "title", "captions", None)),
        ("a.tsv", "id\timage\tcaption", "{i}\t{p}\ta, {i}", ("image", "caption", "captions", None)),
        ("a.csv", "file;label", "{p};kind {c}", ("file", "label", "classification", ";")),
        ("a.txt", "Image\tClass", "{p}\tkind {c}", ("Image", "Class", "classification", "\t")),
        ("a.csv", "what,words", "{p},shape {i}", ("what", "words", "captions", None)),
        ("a.csv", "path,label,text", "{p},{c},{i}", ("path", "text", "captions", None)),
    ],
)
def test_tables(init, shapes, tmp_path, name, header, row, expected):
    shutil.copytree(shapes, tmp_path / "set" / "pictures")
    files = sorted((tmp_path / "set" / "pictures").rglob("*.png"))
    lines = [header]
    for i, path in enumerate(files):
        p = path.relative_to(tmp_path / "set" / "pictures").as_posix()
        lines.append(row.format(p=p, i=i, c=i % 3))
    (tmp_path / "set" / name).write_text("\n".join(lines))
    recipe, out = init(f"set/{name}" if name.endswith("txt") else "set")
    data = recipe.data
    assert (data.image_column, data.text_column, data.task, data.delimiter) == expected
    assert data.root == "set/pictures"
    assert ("text_column: label" in out) == ("label,text" in header)


def test_a_saved_hugging_face_set(init, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {
        "image": [{"bytes": trees.encoded(i, "PNG"), "path": None} for i in range(24)],
        "caption": [[f"picture {i}", f"number {i}"] for i in range(24)],
    }
    kinds = {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
    split = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "saved")
    recipe, out = init("saved")
    assert (recipe.data.source, recipe.data.dataset_split) == ("huggingface", "train")
    assert (recipe.data.image_column, recipe.data.text_column) == ("image", "caption")
    assert "48 captions" in out


def test_paths_from_a_data_root_or_from_here(cli, shapes, tmp_path):
    outcome = cli("init", shapes.name, "--data-root", shapes.parent)
    assert outcome.code == 0, outcome.err
    assert f"shapes.yaml --dry-run --data-root {shapes.parent}" in outcome.err
    assert recipes.load(tmp_path / "shapes.yaml").data.root == "shapes"
    tiny.draw_shapes(tmp_path / "mine")  # not below the data root, which recipes start from
    assert cli("init", "mine", "--data-root", shapes.parent).code == 0
    assert recipes.load(tmp_path / "mine.yaml").data.root == str(tmp_path / "mine")


def test_what_is_not_recognised(cli, tmp_path):
    def said(*arguments: str) -> tuple[int, str]:
        outcome = cli("init", *arguments)
        assert not list(tmp_path.glob("*.yaml"))
        return outcome.code, outcome.err

    code, text = said("missing")
    assert (code, "No such file or folder: missing" in text) == (4, True)
    (tmp_path / "empty").mkdir()
    code, text = said("empty")
    assert (code, "expected class folders" in text) == (2, True)
    trees.jpeg(tmp_path / "flat" / "only" / "a.jpg", 0)
    code, text = said("flat")
    assert (code, "has pictures in 1 folder" in text) == (2, True)
    (tmp_path / "notes.md").write_text("# notes")
    assert said("notes.md")[0] == 2
    (tmp_path / "x.json").write_text('{"images": []}')
    code, text = said("x.json")
    assert (code, "neither a caption file" in text) == (2, True)
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n")
    code, text = said("t.csv")
    assert (code, "has the columns a, b, c" in text) == (2, True)
    (tmp_path / "t.csv").write_text("filepath,title\ngone.jpg,x\nlost.jpg,y\n")
    code, text = said("t.csv")
    assert (code, "None of 2 pictures" in text) == (4, True)
    (tmp_path / "two").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "two" / name).write_text("filepath,title\n")
    code, text = said("two")
    assert (code, "name one of them (a.csv, b.csv)" in text) == (2, True)
    tiny.draw_shapes(tmp_path / "shapes", each=2)
    code, text = said("shapes", "--pictures", "flat")
    assert (code, "--pictures goes with" in text) == (2, True)
    for path in (tmp_path / "shapes").rglob("*.png"):
        path.write_bytes(b"")
    code, text = said("shapes")
    assert (code, "None of 6 pictures" in text) == (4, True)


def test_class_folders_of_videos(init, cli, tmp_path):
    for c, name in enumerate(("falling_down", "rising")):
        for i in range(8):
            animated(tmp_path / "clips" / name / f"{i}.{('gif', 'webp')[i % 2]}", 20 * c + i)
    (tmp_path / "clips" / "rising" / "0.gif").write_bytes(b"no clip")
    recipe, out = init("clips/")
    assert (recipe.data.source, recipe.data.broken_images) == ("videos", 1)
    assert "16 clips (class folders of videos): 2 classes" in out
    assert "16 clips were opened, 1 is broken" in out
    assert "clips/rising/0.gif" in out
    scored = cli("eval", "--data", "clips", "--broken-images", "1")
    assert scored.code == 0, scored.err
    assert "clips-first-frame" in scored.out


def test_a_table_of_videos(init, cli, tmp_path):
    rows = [animated(tmp_path / "v" / f"{i}.webp", i).stem + f",thing {i}" for i in range(16)]
    (tmp_path / "videos.csv").write_text("\n".join(["video,caption", *rows]))
    recipe, out = init("videos.csv", "--pictures", "v")
    assert (recipe.data.source, recipe.data.root) == ("videos", "v")
    assert "16 clips (a table of videos): 16 captions" in out
    scored = cli("eval", "--data", "videos.csv", "--pictures", "v", "--json")
    assert scored.code == 0, scored.err
    (result,) = json.loads(scored.out)["results"]
    for model in result["models"].values():
        assert model["datasets"]["videos.csv"]["text_to_image_r1"]["items"] == 16


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs"),
    [(2, 4, 50), (15, 4, 50), (60, 16, 50), (16_000, 256, 48), (145_000, 256, 10)],
)
def test_the_size_of_training(pairs, batch, epochs):
    size = size_of(pairs)
    assert (size.batch, size.epochs) == (batch, epochs)
    assert size.steps == epochs * (pairs // min(batch, pairs))


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["a.tar"], "a.tar"),
        (["0.tar", "1.tar", "10.tar", *(f"{i}.tar" for i in range(2, 10))], "{0..10}.tar"),
        (["v2-008.tar", "v2-009.tar", "v2-010.tar"], "v2-{008..010}.tar"),
        (["a-0.tar", "a-2.tar"], "{a-0.tar,a-2.tar}"),
        (["test-0.tar", "train-0.tar"], "{test-0.tar,train-0.tar}"),
    ],
)
def test_a_pattern_for_shards(names, pattern):
    assert brace(names) == pattern
    assert sorted(braceexpand(f"x/{pattern}")) == sorted(f"x/{name}" for name in names)


@pytest.mark.parametrize(
    "value", ["a", "no", "1e3", "a: b", "a #b", "|", "a\tb", "~", "é ü", '"', "", "C:\\x", "-", 0.1]
)
def test_a_value_reads_back(value):
    assert read_text(f"k: {scalar(value)}", "x")["k"] == value


@pytest.mark.parametrize(("pictures", "least"), [(4, 2), (9, 2), (40, 6), (3000, 225)])
def test_enough_is_held_out(pictures, least):
    """Names decide which pictures; of few, another share is taken if that is hardly any."""
    from radapter.data import Dataset
    from radapter.data.opening import split_of
    from radapter.data.sources.folder import FolderData
    from radapter.init.writing import _hold_out

    for seed in range(20):
        keys = [f"{seed}-{i}.jpg" for i in range(pictures)]
        whole = Dataset(
            "test",
            keys,
            read=lambda index: None,
            labels=[0] * pictures,
            class_names=["thing"],
            groups=list(range(pictures)),
        )
        settings = _hold_out(whole, FolderData(source="folder", root="x"))
        held = pictures - len(split_of(whole, settings))
        assert held == 0 or least <= held <= pictures - 2
        assert settings.hold_out <= (0.5 if pictures < 1000 else 0.1)
        assert held or pictures < 40


@pytest.mark.parametrize("has", [True, False])
def test_precision_and_workers_fit_the_machine(cli, tmp_path, monkeypatch, has):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: not including_emulation
    )
    tiny.draw_shapes(tmp_path / "shapes")
    assert cli("init", "shapes").code == 0
    recipe = recipes.load(tmp_path / "shapes.yaml")
    assert recipe.precision == ("bf16" if has else "fp32")
    assert recipe.workers == "auto"
    text = (tmp_path / "shapes.yaml").read_text()
    assert "precision: bf16" in text
    assert "half the bytes, and tensor cores" in text
