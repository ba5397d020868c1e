"""A features file: what is in it, that stopping changes nothing, what is refused; searching it."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import tiny as tiny_models
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from radapter.data.pictures import Pictures, open_pictures
from radapter.errors import BrokenInput
from radapter.inference import embed, features, open_model, search
from radapter.inference.features import names_of, read_facts


@pytest.fixture(scope="module")
def model(tiny_folder):
    return open_model(tiny_folder)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Nine pictures, two of them broken: five parts, batches that end within parts."""
    monkeypatch.setattr(features, "PART", 4)
    monkeypatch.setattr(features, "BATCH", 3)
    root = tiny_models.draw_shapes(tmp_path / "photos", each=6)
    (root / "blue_circle" / "03.png").write_bytes(b"no picture")
    (root / "red_square" / "Ωé.png").write_bytes(b"")
    return root


def by_hand(model, root):
    """Names and unit-norm features of what can be read, one picture at a time."""
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    names = [name for name in names if name not in ("blue_circle/03.png", "red_square/Ωé.png")]
    pixels = [model.preprocess(open_pictures(root / name).read(0)) for name in names]
    with torch.no_grad():
        rows = [model.runtime._model.encode_image(p[None])[0].double() for p in pixels]
    return names, torch.stack([row / row.norm() for row in rows])


def test_what_is_in_the_file(model, photos, tmp_path):
    out = tmp_path / "new" / "f.safetensors"
    reports = []
    facts, messages = embed(
        model, open_pictures(photos), out, on_progress=lambda *report: reports.append(report)
    )
    names, expected = by_hand(model, photos)
    tensors = load_file(out)
    torch.testing.assert_close(tensors["features"].double(), expected, atol=2e-6, rtol=0)
    assert tensors["features"].dtype == torch.float32
    assert names_of(out, list(range(len(names)))) == names
    assert names_of(out, [5, 0]) == [names[5], names[0]]
    assert [m.split(": ")[1] for m in messages] == [
        str(photos / "blue_circle" / "03.png"), str(photos / "red_square" / "Ωé.png")
    ]  # fmt: skip
    assert facts == read_facts(out) | {"kept": 0}
    assert (facts["count"], facts["skipped"], facts["dim"]) == (17, 2, 16)
    assert facts["weights_hash"] == model.weights_hash
    assert facts["preprocessing"]["size"] == [32, 32]
    assert (reports[0], reports[-1]) == ((0, 19), (19, 19))
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    length = int.from_bytes(out.read_bytes()[:8], "little")
    assert length % 8 == 0  # safetensors aligns its tensors; so must a header of ours


class Stop(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 3, 5, 8, 12, 17, 19])
def test_stopped_anywhere_it_ends_in_the_same_file(model, photos, tmp_path, after):
    pictures = open_pictures(photos)
    embed(model, pictures, tmp_path / "whole.safetensors")

    def stop(done, total):
        if done >= after:
            raise Stop

    out = tmp_path / "f.safetensors"
    with pytest.raises(Stop):
        embed(model, pictures, out, on_progress=stop)
    assert not out.exists()
    parts = sorted(tmp_path.glob("f.safetensors.parts/0*.safetensors"))
    assert len(parts) == max(0, after - 1) // 4
    if parts:  # as a full disk, or a crash of the machine, may leave one
        parts[-1].write_bytes(parts[-1].read_bytes()[:-1])
    seen = []
    _, messages = embed(model, pictures, out, on_progress=lambda done, _: seen.append(done))
    assert seen[0] == 4 * max(0, len(parts) - 1)
    assert len(messages) == 2  # also those of parts that were done before
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not (tmp_path / "f.safetensors.parts").exists()


@pytest.mark.slow
def test_killed_it_ends_in_the_same_file(model, photos, tiny_folder, tmp_path):
    embed(model, open_pictures(photos), tmp_path / "whole.safetensors")
    code = f"""
        import os, signal, torch
        from radapter.inference import embed, features, open_model
        from radapter.data.pictures import Pictures, open_pictures
        torch.set_num_threads(1)
        features.PART, features.BATCH = 4, 3
        write, written = features.write_atomic, []
        def killed_in_the_third(path, data):
            written.append(path)
            if len(written) == 4:  # the plan comes first
                path.with_name(f".{{path.name}}.0a1b.tmp").write_bytes(data[:50])
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, data)
        features.write_atomic = killed_in_the_third
        embed(open_model({str(tiny_folder)!r}), open_pictures({str(photos)!r}), "f.safetensors")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env={**os.environ}
    )
    assert done.returncode == -signal.SIGKILL
    parts = tmp_path / "f.safetensors.parts"
    assert sorted(p.name for p in parts.glob("*.safetensors")) == [
        "00000.safetensors", "00001.safetensors"
    ]  # fmt: skip
    embed(model, open_pictures(photos), tmp_path / "f.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    assert (tmp_path / "f.safetensors").read_bytes() == whole
    assert not parts.exists()


def test_a_full_disk_at_the_end_loses_no_part(model, photos, tmp_path, monkeypatch):
    pictures, out = open_pictures(photos), tmp_path / "f.safetensors"
    embed(model, pictures, tmp_path / "whole.safetensors")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        real = os.replace
        patched.setattr(features.os, "replace", lambda a, b: full(0) if b == out else real(a, b))
        with pytest.raises(OSError, match="No space left on device: '.*f.safetensors'"):
            embed(model, pictures, out)
    assert not out.exists()
    assert (tmp_path / "f.safetensors.parts" / ".joined.tmp").exists()
    seen = []
    embed(model, pictures, out, on_progress=lambda done, _: seen.append(done))
    assert seen == [19]
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not (tmp_path / "f.safetensors.parts").exists()


def test_a_part_is_all_that_is_held(model, photos, tmp_path, monkeypatch):
    """The most rows that any one tensor has while parts are made and joined is one part's."""
    seen = []
    real = features.to_safetensors
    monkeypatch.setattr(
        features,
        "to_safetensors",
        lambda tensors, **more: seen.append(len(tensors["features"])) or real(tensors, **more),
    )
    embed(model, open_pictures(photos), tmp_path / "f.safetensors")
    assert len(seen) == 5
    assert max(seen) == 4


def test_again_it_is_left_as_it_is(model, photos, tmp_path):
    out = tmp_path / "f.safetensors"
    facts, _ = embed(model, open_pictures(photos), out)
    before = out.stat().st_mtime_ns
    assert embed(model, open_pictures(photos), out) == (facts | {"kept": facts["count"]}, [])
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize("finished", [True, False])
def test_what_another_model_or_other_pictures_made_is_refused(
    model, photos, tmp_path, finished, quick_folder, exported
):
    out = tmp_path / "f.safetensors"
    pictures = open_pictures(photos)

    def stop(done, total):
        if done > 8 and not finished:
            raise Stop

    try:
        embed(model, pictures, out, on_progress=stop)
    except Stop:
        assert not finished
    where = "f.safetensors" + ("" if finished else ".parts")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.safetensors")}
    other = tiny_models.write(tmp_path / "other", seed=9)
    with pytest.raises(BrokenInput, match=f"{where} was made with another model \\(54c3a9.*, now"):
        embed(open_model(other), pictures, out)
    moved = open_model(tiny_models.write(tmp_path / "moved"))
    moved.preprocessing["mean"] = [0.1, 0.1, 0.1]
    with pytest.raises(
        BrokenInput,
        match=f'{where} .* other preprocessing \\({{"mean": .*0.3]}}, now {{"mean": .*0.1]}}\\)',
    ):
        embed(moved, pictures, out)
    elsewhere = open_pictures(photos / "red_square")  # none of the file's names
    with pytest.raises(BrokenInput, match=f"{where} was made with other pictures .* another --out"):
        embed(model, elsewhere, out)
    with pytest.raises(BrokenInput, match=r"with other pictures \(.*\) and another runtime \(pyt"):
        embed(open_model(exported), elsewhere, out)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_pictures_that_came_changed_or_went_since(model, photos, tmp_path, monkeypatch):
    """Only those are encoded; the rest is kept, and the file is what one made anew would be."""
    out = tmp_path / "f.safetensors"
    facts, _ = embed(model, open_pictures(photos), out)
    assert facts["kept"] == 0
    tiny_models.draw_shapes(tmp_path / "more", each=7)
    (tmp_path / "more" / "red_square" / "06.png").rename(photos / "red_square" / "new.png")
    (tmp_path / "more" / "blue_circle" / "06.png").replace(photos / "blue_circle" / "02.png")
    (photos / "red_square" / "01.png").unlink()
    read = []
    monkeypatch.setattr(
        Pictures, "read", lambda self, i, read_it=Pictures.read: read.append(i) or read_it(self, i)
    )
    pictures = open_pictures(photos)
    facts, messages = embed(model, pictures, out)
    new = {"red_square/new.png", "blue_circle/02.png", "blue_circle/03.png", "red_square/Ωé.png"}
    assert {pictures.keys[i] for i in read} == new
    assert facts["kept"] == len(pictures) - 4
    assert len(messages) == 2
    anew = tmp_path / "anew.safetensors"
    again, _ = embed(model, pictures, anew)
    assert again["count"] == facts["count"]
    ours, theirs = load_file(out), load_file(anew)
    assert torch.equal(ours["stamps"], theirs["stamps"])
    assert torch.equal(ours["names"], theirs["names"])
    torch.testing.assert_close(ours["features"], theirs["features"], atol=1e-6, rtol=0)
    assert embed(model, pictures, out)[0]["kept"] == facts["count"]


def test_two_at_once(model, photos, tmp_path):
    out = tmp_path / "f.safetensors"

    def again(done, total):
        with pytest.raises(BrokenInput, match="is being written by another process"):
            embed(model, open_pictures(photos), out)

    embed(model, open_pictures(photos), out, on_progress=again)


def test_nothing_that_can_be_read(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.png").write_bytes(b"no picture")
    with pytest.raises(BrokenInput, match="None of the 1 pictures can be read"):
        embed(model, open_pictures(tmp_path / "photos"), tmp_path / "f.safetensors")
    assert not (tmp_path / "f.safetensors").exists()


def test_files_that_are_no_features(tmp_path, model, photos):
    path = tmp_path / "f.safetensors"
    with pytest.raises(BrokenInput, match="No features file at .*f.safetensors. Type first: rad"):
        read_facts(path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(BrokenInput, match="is not a features file: `radapter embed` writes one"):
        read_facts(path)
    torch.save({"x": torch.ones(1)}, path)
    with pytest.raises(BrokenInput, match="is a pickle"):
        read_facts(path)
    path.unlink()
    facts, _ = embed(model, open_pictures(photos), path)
    tensors = load_file(path)
    newer = {"radapter": json.dumps(facts | {"schema_version": 2})}
    save_file(tensors, path, metadata=newer)
    with pytest.raises(BrokenInput, match="has schema version 2; this radapter reads up to 1"):
        read_facts(path)
    tensors["features"] = tensors["features"][:-1].clone()
    save_file(tensors, path, metadata={"radapter": json.dumps(facts)})
    with pytest.raises(BrokenInput, match="its tensors are not those it names"):
        read_facts(path)


@pytest.mark.parametrize("rows", [1, 3, 5, 17, 100])
@pytest.mark.parametrize("top", [1, 4, 17, 99])
def test_search_is_the_sorted_matrix(model, photos, tmp_path, rows, top):
    twin = (photos / "red_square" / "02.png").read_bytes()
    for name in ("blue_circle/00.png", "red_square/05.png"):
        (photos / name).write_bytes(twin)  # ties: the earlier picture comes first
    out = tmp_path / "f.safetensors"
    embed(model, open_pictures(photos), out)
    tensors = load_file(out)
    # The same picture at another place of a batch has other last bits: make them equal.
    keys = names_of(out, list(range(17)))
    for name in ("red_square/02.png", "red_square/05.png"):
        tensors["features"][keys.index(name)] = tensors["features"][
            keys.index("blue_circle/00.png")
        ]
    save_file(tensors, out, metadata={"radapter": json.dumps(read_facts(out))})
    query = model.runtime.encode_text(model.tokenizer(["a red square"]))[0]
    matrix = tensors["features"].double() @ query.double()
    names = names_of(out, list(range(17)))
    expected = sorted(range(17), key=lambda i: (-round(float(matrix[i]), 6), i))[:top]
    found = search(out, query, top, rows=rows)
    assert [name for name, _ in found] == [names[i] for i in expected]
    assert [score for _, score in found] == pytest.approx([float(matrix[i]) for i in expected])


def test_a_search_reads_no_more_names_than_it_gives(model, photos, tmp_path, monkeypatch):
    out = tmp_path / "f.safetensors"
    embed(model, open_pictures(photos), out)
    asked = []
    monkeypatch.setattr(
        "radapter.inference.searching.names_of", lambda path, rows: asked.extend(rows) or [""] * 2
    )
    search(out, torch.eye(16)[0], 2)
    assert len(asked) == 2
    with safe_open(out, framework="pt") as file:
        assert list(file.metadata()) == ["radapter"]
        assert len(file.metadata()["radapter"]) < 1000
