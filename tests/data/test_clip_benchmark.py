"""clip-benchmark's folders of shards."""

import pytest
import tiny
import trees

from radapter import models
from radapter.data import open_data
from radapter.data.sources.clip_benchmark import ClipBenchmarkData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.evaluate import EQUAL_CLASSES, evaluate, protocol
from radapter.evaluation.result import TextKey
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.runtimes.opened import from_loaded
from radapter.training import train


def opened(root, **values):
    return open_data(ClipBenchmarkData(source="clip-benchmark", root=str(root), **values))


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


def test_equal_names_count_as_clip_benchmark_counts_them(tiny_folder, tmp_path):
    """Each class for itself, of equal scores the first: of ImageNet's two missiles, one is never
    right. As one answer, both always are, if there is no third class."""
    root = trees.clip_benchmark(tmp_path / "wds_pets")
    (root / "classnames.txt").write_text("missile\nmissile\nmissile\n")
    loaded = models.load(tiny_folder)
    scores, said = {}, {}
    for how in ("apart", "one"):
        more = {} if how == "apart" else {"identical_classes": how}
        data = {"source": "clip-benchmark", "root": str(root), "dataset_split": "test", **more}
        described = SuiteDataset(name="set", role="shifted", data=data)
        suite = Suite(name="mine", tasks=["classification"], datasets=[described])
        found = evaluate(suite, from_loaded(loaded))
        scores[how] = found.result()["datasets"]["set"]["accuracy"]
        said[how] = found.sets["set"].facts["protocol"]["equal names"]
    assert scores["apart"]["value"] == 7 / 20  # those of class 0
    assert (scores["apart"]["chance"], scores["one"]["chance"]) == (1 / 3, 1)
    assert scores["one"]["value"] == 1
    assert said == EQUAL_CLASSES


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


OWN = ["a photo of a {}.", "a drawing of the {}."]


def suite_of(root, own=None, **values):
    data = ClipBenchmarkData(source="clip-benchmark", root=str(root), **values)
    described = SuiteDataset(name="set", role="shifted", data=data, templates=own)
    return Suite(name="mine", templates=["{}"], tasks=["classification"], datasets=[described])


def test_templates_are_the_sets_own_unless_others_are_given(tmp_path, monkeypatch):
    root = trees.clip_benchmark(tmp_path / "set")
    monkeypatch.setenv("RADAPTER_DATA", str(tmp_path))

    def prompts(own=None, **values):
        suite = suite_of("set", own, **values)
        return suite.prompts(suite.datasets[0]), suite.datasets[0].data.prompts()

    assert prompts() == (OWN, OWN)
    assert prompts(templates=["my {}"]) == (["my {}"], ["my {}"])
    assert prompts(["the {}"]) == (["the {}"], OWN)
    file = root / "zeroshot_classification_templates.txt"
    file.write_text("a photo of a {c}.\nno place\n")
    with pytest.raises(BrokenInput, match=r"zeroshot_\w+\.txt has a template .*: 'no place'"):
        suite_of("set").open()
    file.unlink()
    assert prompts() == (["{}"], ["a photo of a {}."])


def test_a_suite_scores_by_them_and_says_so(tmp_path, tiny_folder):
    root, loaded = trees.clip_benchmark(tmp_path / "set"), models.load(tiny_folder)
    found, given = (
        evaluate(suite, from_loaded(loaded)) for suite in (suite_of(root), suite_of(root, OWN))
    )
    assert found.result() == given.result()
    assert found.sets["set"].facts["protocol"]["template"] == ", ".join(map(repr, OWN))
    assert protocol(found.suite, loaded)["dataset_templates"] == {"set": OWN}
    key = TextKey("class", "red fox", tuple(OWN))
    assert found.text_features[key].equal(given.text_features[key])


def test_a_run_keeps_the_templates_it_was_trained_with(tmp_path, tiny_folder):
    root = trees.clip_benchmark(tmp_path / "set")
    data = f"data={{source: clip-benchmark, root: {root}}}"
    run = train(tiny.recipe(tiny_folder, root, data, "optimisation.epochs=1"), tmp_path / "runs")
    (root / "zeroshot_classification_templates.txt").unlink()
    assert run.recipe().data.prompts() == OWN


def test_clip_benchmark_reads_the_same(tmp_path):
    """The tree is the real layout: clip-benchmark's own reader gives these pictures and labels."""
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    root = trees.clip_benchmark(tmp_path / "set")
    theirs = builder.build_wds_dataset("set", lambda picture: picture, "test", str(root))
    ours = opened(root, dataset_split="test")
    assert theirs.classes == ours.class_names
    prompts = ClipBenchmarkData(source="clip-benchmark", root=str(root)).prompts()
    assert [t.format(c="cat") for t in theirs.templates] == [t.format("cat") for t in prompts]
    samples = list(theirs)
    assert [label for _, label in samples] == ours.labels
    assert [p.tobytes() for p, _ in samples] == [ours.read(i).tobytes() for i in range(20)]
