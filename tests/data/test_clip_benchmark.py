"""clip-benchmark's folders of shards."""

import pytest
import trees

from radapter import recipe_data
from radapter.data import open_data
from radapter.errors import BrokenInput, UsageError


def opened(root, **values):
    return open_data(
        recipe_data.ClipBenchmarkData(source="clip-benchmark", root=str(root), **values)
    )


def test_classes(tmp_path):
    root = trees.clip_benchmark(tmp_path / "wds_pets")
    found = opened(root, dataset_split="test")
    assert len(found) == 20
    assert found.keys[10] == "1.tar/s0000010"
    assert found.labels == [i % 3 for i in range(20)]
    assert found.class_names == ["cat", "red fox", "golden retriever"]
    assert found.read(0).size == (48, 40)
    parts = [opened(root, hold_out=0.3, split=s) for s in ("train", "validation")]
    assert sorted(parts[0].keys + parts[1].keys) == found.keys
    assert found.fingerprint() == opened(root).fingerprint()  # the tree's splits are alike
    one = {"s0000000.webp": trees.encoded(40, "WEBP"), "s0000000.cls": b"0"}
    trees.shard(root / "train" / "0.tar", one)
    assert found.fingerprint() != opened(root).fingerprint()


def test_captions(tmp_path):
    root = trees.clip_benchmark(tmp_path / "wds_flickr", "retrieval", ("test",))
    found = opened(root, dataset_split="test", task="captions")
    assert [len(texts) for texts in found.captions] == [5] * 20
    with pytest.raises(UsageError, match="`task: captions`"):
        opened(root, dataset_split="test")
    with pytest.raises(BrokenInput, match=r"train has no nshards.txt.*Splits that are there.*test"):
        opened(root, task="captions")


def test_trees_that_are_not_right(tmp_path):
    root = trees.clip_benchmark(tmp_path / "set")
    (root / "test" / "nshards.txt").write_text("3")
    with pytest.raises(BrokenInput, match=r"No such shard: .*/test/2\.tar"):
        opened(root, dataset_split="test")
    (root / "classnames.txt").write_text("cat\nred fox\n\n")
    with pytest.raises(BrokenInput, match=r"Class 2 has no name: .*classnames.txt has 2"):
        opened(root)
    (root / "classnames.txt").unlink()
    with pytest.raises(BrokenInput, match=r"No such file: .*classnames.txt"):
        opened(root)
    (root / "dataset_type.txt").write_text("multilabel\n")
    with pytest.raises(UsageError, match="several classes a picture"):
        opened(root)


def test_clip_benchmark_reads_the_same(tmp_path):
    """The tree is the real layout: clip-benchmark's own reader gives these pictures and labels."""
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    root = trees.clip_benchmark(tmp_path / "set")
    theirs = builder.build_wds_dataset("set", lambda picture: picture, "test", str(root))
    ours = opened(root, dataset_split="test")
    assert theirs.classes == ours.class_names
    samples = list(theirs)
    assert [label for _, label in samples] == ours.labels
    assert [p.tobytes() for p, _ in samples] == [ours.read(i).tobytes() for i in range(20)]
