"""Folders, tables and shards, on miniature trees."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest
import tiny
from PIL import Image

from radapter.data import open_data
from radapter.data.sources.folder import FolderData
from radapter.data.sources.shards import ShardsData
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput, UsageError


def colour(i):
    return (40 * i % 256, 10 * i % 256, 200)


def png(i, size=8):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour(i)).save(buffer, "PNG")
    return buffer.getvalue()


def noise():
    """A picture whose file is 3 kB long."""
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 50).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def picture(path, i=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(i))
    return path


def pixel(dataset, i):
    return dataset.read(i).getpixel((0, 0))


# ------------------------------------------------------------------ folders


def folder(root, **values):
    return FolderData(source="folder", root=str(root), **values)


def test_a_folder(tmp_path):
    for i, name in enumerate(["b_c/2.png", "b_c/deep/1.PNG", "a/9.jpeg", "a/1.webp"]):
        picture(tmp_path / name, i)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file.png").write_text("beside the classes")
    dataset = open_data(folder(tmp_path))
    assert dataset.keys == ["a/1.webp", "a/9.jpeg", "b_c/2.png", "b_c/deep/1.PNG"]
    assert dataset.labels == [0, 0, 1, 1]
    assert dataset.class_names == ["a", "b c"]
    assert dataset.groups == [0, 1, 2, 3]
    assert [pixel(dataset, i) for i in range(4)] == [colour(i) for i in (3, 2, 0, 1)]
    assert dataset.read(0).mode == "RGB"
    chosen = dataset.select([3, 0])
    assert chosen.keys == ["b_c/deep/1.PNG", "a/1.webp"]
    assert (chosen.labels, chosen.groups) == ([1, 0], [3, 0])
    assert [pixel(chosen, i) for i in range(2)] == [colour(1), colour(3)]


def test_folders_that_are_not_right(tmp_path):
    with pytest.raises(BrokenInput, match="No such folder"):
        open_data(folder(tmp_path / "missing"))
    with pytest.raises(BrokenInput, match=r"no class folders: expected .*/CLASS NAME/picture"):
        open_data(folder(tmp_path))
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "full" / "a.png")
    with pytest.raises(BrokenInput, match="empty has no pictures"):
        open_data(folder(tmp_path))
    (tmp_path / "empty").rmdir()
    with pytest.raises(UsageError, match="no captions: use `task: classification`"):
        open_data(folder(tmp_path, task="captions"))


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", noise()[:60], noise()[:1500], b"\x89PNG\r\n\x1a\n" + b"\0" * 40],
    ids=["empty", "text", "header", "half", "zeros"],
)
def test_a_corrupt_picture_is_named(tmp_path, content):
    picture(tmp_path / "a" / "good.png")
    (tmp_path / "a" / "bad.png").write_bytes(content)
    dataset = open_data(folder(tmp_path))
    with pytest.raises(BrokenInput, match=r"Picture cannot be read: .*a/bad\.png"):
        dataset.read(dataset.keys.index("a/bad.png"))
    dataset.read(dataset.keys.index("a/good.png"))
    (tmp_path / "a" / "good.png").unlink()
    with pytest.raises(BrokenInput, match=r"good\.png"):
        dataset.read(dataset.keys.index("a/good.png"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a" / "x.tif"
    path.parent.mkdir()
    if mode == "LA":
        path = path.with_suffix(".png")
    Image.new(mode, (5, 4)).save(path)
    read = open_data(folder(tmp_path)).read(0)
    assert (read.mode, read.size) == ("RGB", (5, 4))


# ------------------------------------------------------------------ holding out


def held(root, split, share=0.3):
    return open_data(folder(root, hold_out=share, split=split)).keys


def test_holding_out_is_disjoint_covers_all_and_stays(tmp_path):
    for i in range(60):
        picture(tmp_path / f"class{i % 3}" / f"{i}.png", i)
    train, validation, everything = (held(tmp_path, s) for s in ("train", "validation", "all"))
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(everything)
    assert 8 <= len(validation) <= 28
    assert held(tmp_path, "validation") == validation
    assert set(held(tmp_path, "validation", 0.5)) >= set(validation)
    # Adding pictures moves no other one, and neither does another place on disk.
    for i in range(60, 90):
        picture(tmp_path / "class0" / f"{i}.png", i)
    assert set(held(tmp_path, "validation")) & set(everything) == set(validation)
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert set(held(moved, "validation")) & set(everything) == set(validation)
    moved.rename(tmp_path)


def test_one_thing_is_never_on_both_sides(tmp_path):
    """Pictures with one value in the group column are held out, or trained on, together."""
    lines = [f"p{i}.png,text {i},thing {i % 7}" for i in range(70)]
    (tmp_path / "t.csv").write_text("\n".join(["filepath,title,thing", *lines]))
    settings = {"source": "table", "path": str(tmp_path / "t.csv"), "group_column": "thing"}
    settings |= {"task": "captions", "hold_out": 0.4}
    parts = [open_data(TableData(**settings, split=s)) for s in ("train", "validation")]
    things = [{int(key[1:-4]) % 7 for key in part.keys} for part in parts]
    assert all(things)
    assert not things[0] & things[1]
    assert things[0] | things[1] == set(range(7))


def test_nothing_held_out(tmp_path):
    picture(tmp_path / "a" / "1.png")
    assert held(tmp_path, "train", 0.0) == ["a/1.png"]
    with pytest.raises(BrokenInput, match="has no pictures"):
        held(tmp_path, "validation", 0.0)


# ------------------------------------------------------------------ tables


def table(path, **values):
    return TableData(source="table", path=str(path), **{"task": "captions", **values})


def test_a_table_of_captions(tmp_path):
    for i, name in enumerate(["a.png", "sub/b.png"]):
        picture(tmp_path / name, i)
    (tmp_path / "t.csv").write_text(
        '\ufefftitle,filepath,more\n"one, two",a.png,x\n Ωmega ,sub/b.png,y\nthree,a.png,z\n',
        encoding="utf-8",
    )
    dataset = open_data(table(tmp_path / "t.csv"))
    assert dataset.keys == ["a.png", "sub/b.png"]
    assert dataset.captions == [["one, two", "three"], ["Ωmega"]]
    assert dataset.groups == [0, 1]
    assert not dataset.labels
    assert [pixel(dataset, i) for i in range(2)] == [colour(0), colour(1)]


def test_a_table_with_groups_another_root_and_tabs(tmp_path):
    for i, name in enumerate("xyz"):
        picture(tmp_path / "pictures" / f"{name}.png", i)
    (tmp_path / "t.tsv").write_text("i\tc\tg\nx.png\tone\t7\ny.png\ttwo\t8\nz.png\tthree\t7\n")
    columns = {"image_column": "i", "text_column": "c", "group_column": "g"}
    dataset = open_data(table(tmp_path / "t.tsv", root=str(tmp_path / "pictures"), **columns))
    assert dataset.groups == [0, 1, 0]
    assert pixel(dataset, 2) == colour(2)


def test_a_table_of_classes(tmp_path):
    (tmp_path / "t.csv").write_text("filepath,title\nb.png,dog\na.png,cat\nb.png,dog\n")
    dataset = open_data(table(tmp_path / "t.csv", task="classification"))
    assert dataset.keys == ["b.png", "a.png"]
    assert (dataset.class_names, dataset.labels) == (["cat", "dog"], [1, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("filepath,titel\na.png,x\n", "has no column 'title'.*Did you mean 'titel'"),
        ("", "has no column 'filepath'"),
        ("filepath,title\n", "has no pictures"),
        ("filepath,title\na.png,x\nb.png\n", "t.csv:3: a needed cell is empty"),
        ("filepath,title\na.png,  \n", "t.csv:2: a needed cell is empty"),
        ('filepath,title\na.png,"x\n', "t.csv:2: a quote opens here.*data.quoting: none"),
        (b"filepath,title\na.png,\xff\n", "is not a readable table"),
        ("filepath,title\na.png,x\na.png,y\n", "a.png has several classes"),
    ],
)
def test_tables_that_are_not_right(tmp_path, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(BrokenInput, match=message):
        open_data(table(tmp_path / "t.csv", task="classification"))


def test_a_missing_table_and_a_missing_picture(tmp_path):
    with pytest.raises(BrokenInput, match="No such table"):
        open_data(table(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("filepath,title\ngone.png,x\n")
    with pytest.raises(BrokenInput, match=r"gone\.png"):
        open_data(table(tmp_path / "t.csv")).read(0)


# ------------------------------------------------------------------ shards


def shards(pattern, **values):
    return ShardsData(source="shards", shards=str(pattern), **{"task": "captions", **values})


def tar(path, members, **options):
    with tarfile.open(path, "w", **options) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def sample(i, text=None, label=None, key=None):
    key = key or f"{i:04d}"
    members = {f"{key}.png": png(i)}
    if text is not None:
        members[f"{key}.txt"] = text.encode()
    if label is not None:
        members[f"{key}.cls"] = str(label).encode()
    return members


def test_shards_of_captions(tmp_path):
    tar(tmp_path / "s-0.tar", sample(0, "one\n\n two \n") | sample(1, "three"))
    tar(tmp_path / "s-1.tar", sample(0, "four", key="dir/0000"), format=tarfile.PAX_FORMAT)
    dataset = open_data(shards(tmp_path / "s-{0..1}.tar"))
    assert dataset.keys == ["s-0.tar/0000", "s-0.tar/0001", "s-1.tar/dir/0000"]
    assert dataset.captions == [["one", "two"], ["three"], ["four"]]
    assert [pixel(dataset, i) for i in (2, 1, 0)] == [colour(0), colour(1), colour(0)]


def test_shards_of_one_name_in_two_folders(tmp_path):
    """Each picture has a name of its own, so that none is scored by another one's features."""
    for i, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        tar(tmp_path / name / "0.tar", sample(i, text=name, key="x"))
    dataset = open_data(shards(tmp_path / "{a,b}" / "0.tar"))
    assert dataset.keys == ["a/0.tar/x", "b/0.tar/x"]
    assert [pixel(dataset, i) for i in range(2)] == [colour(0), colour(1)]
    with pytest.raises(BrokenInput, match=r"1 names that several pictures share, such as 0\.tar/x"):
        open_data(shards(tmp_path / "a" / "{0,0}.tar"))


def test_shards_of_classes(tmp_path):
    path = tar(tmp_path / "s.tar", sample(0, label=2) | sample(1, label=0))
    names = ["cat", "dog", "sun"]
    dataset = open_data(shards(path, task="classification", class_names=names))
    assert (dataset.labels, dataset.class_names) == ([2, 0], names)
    with pytest.raises(UsageError, match="class_names is missing"):
        open_data(shards(path, task="classification"))
    with pytest.raises(BrokenInput, match="Class 2 has no name"):
        open_data(shards(path, task="classification", class_names=names[:2]))
    with pytest.raises(UsageError, match="no captions"):
        open_data(shards(path))


@pytest.mark.parametrize("name", ["x.pkl", "x.pickle", "x.pth", "x.pt", "x.PYD", "x.jpg.pkl"])
def test_a_shard_with_a_pickle_is_refused(tmp_path, name):
    marker = tmp_path / "ran"

    class Malicious:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    data = pickle.dumps(Malicious())
    path = tar(tmp_path / "s.tar", sample(0, "one") | {name: data})
    with pytest.raises(BrokenInput, match="holds a pickle"):
        open_data(shards(path))
    assert not marker.exists()


def test_other_extensions_are_left_alone(tmp_path):
    path = tar(tmp_path / "s.tar", sample(0, "one") | {"0000.json": b"{", "0000.npy": b"\x93"})
    assert open_data(shards(path)).captions == [["one"]]


@pytest.mark.parametrize(
    "source", ["pipe:touch ran", "http://x/a.tar", "s3://x/a.tar", "file:///a.tar"]
)
def test_only_local_files_are_read(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="only local tar files are read"):
        open_data(shards(source))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["{a.tar,pipe:touch ran}", " pipe:touch ran"])
def test_a_hidden_pipe_runs_nothing(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    tar(Path("a.tar"), sample(0, "one"))
    with pytest.raises((UsageError, BrokenInput)):
        open_data(shards(place))
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("kept", [0, 100, 512, 600, 1600, -10000])
def test_a_shard_cut_short(tmp_path, kept):
    """Everywhere but in the zeros at its end, which do not matter."""
    path = tar(tmp_path / "s.tar", sample(0, "one") | {"0000.json": b"x" * 30_000})
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    with pytest.raises(BrokenInput, match=r"s\.tar"):
        open_data(shards(path))


def test_shards_that_are_not_right(tmp_path):
    with pytest.raises(BrokenInput, match="No such shard"):
        open_data(shards(tmp_path / "missing.tar"))
    (tmp_path / "nothing.tar").mkdir()
    with pytest.raises(BrokenInput, match=r"nothing\.tar"):
        open_data(shards(tmp_path / "nothing.tar"))
    (tmp_path / "text.tar").write_text("no tar" * 500)
    tar(tmp_path / "two.tar", sample(0, "one") | {"0000.jpg": png(1)})
    tar(tmp_path / "none.tar", {"0000.txt": b"text"})
    tar(tmp_path / "some.tar", sample(0, "one") | sample(1))
    tar(tmp_path / "number.tar", sample(0, label="one"))
    for name, message in {
        "text": "not a complete tar",
        "two": r"0000 has no single picture: its members are 0000\.png, 0000\.txt, 0000\.jpg",
        "none": r"0000 has no single picture: its members are 0000\.txt",
        "some": r"0001 has no caption \(\.txt\)",
        "number": "is not a class number: 'one'",
    }.items():
        with pytest.raises(BrokenInput, match=message):
            open_data(shards(tmp_path / f"{name}.tar", class_names=["x"]))


def test_shards_have_the_samples_that_they_should(tmp_path):
    """A tar file that was closed too early is a whole one to look at."""
    for name in ("a", "b", "c"):
        tar(tmp_path / f"{name}.tar", sample(0, "one") | sample(1, "two") | sample(2, "three"))
    every = tmp_path / "{a,b,c}.tar"
    (tmp_path / "sizes.json").write_text('{"a.tar": 3, "b.tar": "3"}')
    assert len(open_data(shards(every, samples=9))) == 9
    assert len(open_data(shards(every, samples=9, hold_out=0.5))) < 9
    for name in ("a", "b", "c"):
        tar(tmp_path / f"{name}.tar", sample(0, "one") | sample(1, "two"))
    message = r"a\.tar has 2 samples, not 3, by the sizes\.json beside; .*b\.tar has 2 samples"
    with pytest.raises(BrokenInput, match=message) as error:
        open_data(shards(every))
    assert "c.tar" not in str(error.value)
    (tmp_path / "sizes.json").write_text("[3]")
    with pytest.raises(BrokenInput, match=r"sizes\.json is not a JSON object"):
        open_data(shards(every))
    (tmp_path / "sizes.json").unlink()
    assert len(open_data(shards(every))) == 6
    with pytest.raises(BrokenInput, match=r"have 6 samples, and data\.samples says 9"):
        open_data(shards(every, samples=9))


def test_a_corrupt_picture_in_a_shard_is_named(tmp_path):
    path = tar(tmp_path / "s.tar", sample(0, "one") | {"1.png": png(1)[:50], "1.txt": b"two"})
    dataset = open_data(shards(path))
    dataset.read(0)
    with pytest.raises(BrokenInput, match=r"s\.tar: 1\.png"):
        dataset.read(1)


# ------------------------------------------------------------------ all


def test_a_fingerprint_tells_tasks_apart(tmp_path):
    root = tiny.draw_shapes(tmp_path / "shapes", each=2)
    whole = open_data(folder(root))
    assert whole.fingerprint() == open_data(folder(root)).fingerprint()
    assert whole.fingerprint() != whole.select([0, 1, 2, 3, 5, 4]).fingerprint()
    assert whole.fingerprint() != whole.select([0, 1, 2, 3, 4]).fingerprint()
