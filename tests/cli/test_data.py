"""radapter data, and radapter eval on suites and models that belong to no run."""

import json
import shutil
import sys

import imagenet_tree as tree
import pytest
import tiny
import tiny_bundle
import trees
from tiny_bundle import exported  # noqa: F401 (a fixture)

from radapter import models
from radapter.data.sources.imagenet import synsets
from radapter.evaluation.suite import load_suite

RECIPES = ["imagenet-vit-b-32", "imagenet-vit-b-16", "imagenet-vit-l-14-336", "imagenet-16shot"]
SUITE = {
    "name": "my-suite",
    "templates": ["a {}."],
    "tasks": ["classification"],
    "datasets": [
        {
            "name": name,
            "role": "shifted",
            "data": {"source": source, **more},
            "published": {
                "pictures": pictures, "classes": classes, "where": f"https://{name}",
                "licence": "test only", "folder": name,
            },
        }
        for name, source, more, pictures, classes in (
            ("imagenet-r", "imagenet", {"variant": "r"}, 3, 3),
            ("objectnet", "objectnet", {}, 4, 4),
        )
    ],
    "averages": {"both": ["imagenet-r", "objectnet"]},
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return tree.fill_suite(tmp_path / "data")


@pytest.fixture
def suite_file(tmp_path):
    path = tmp_path / "my-suite.yaml"
    path.write_text(json.dumps(SUITE))
    return path


# ------------------------------------------------------------------ data


def test_list_says_what_is_there(cli, root):
    (root / "sketch").rename(root / "drawings")
    tree.picture(root / "imagenet-a" / "n00000000" / "a.jpg", (0, 0, 0))
    outcome = cli("data", "--data-root", root)
    assert outcome.code == 0, outcome.err
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert "present" in lines["noto-v1"]
    assert "partial  4 pictures, 4 classes (published: 50,000 in imagenet/val)" in lines["imagenet"]
    assert "missing   (published: 50,889 in sketch)" in lines["imagenet-sketch"]
    assert "broken" in lines["imagenet-a"]
    every = json.loads(cli("data", "--json", "--data-root", root).out)["suites"]
    outcome = cli("data", "list", "imagenet-shifts", "--data-root", root, "--json")
    found = json.loads(outcome.out)["suites"]
    assert list(found) == ["imagenet-shifts"]
    assert found.items() < every.items()
    facts = found["imagenet-shifts"]["datasets"]["imagenet-v2"]
    assert (facts["status"], facts["pictures"], facts["classes"]) == ("partial", 6, 6)


def test_check_finds_everything_at_once(cli, root):
    (root / "sketch").rename(root / "drawings")
    (broken, *_) = (root / "imagenet-r" / synsets()[1]).iterdir()
    broken.write_bytes(broken.read_bytes()[:200])
    outcome = cli("data", "check", "imagenet-shifts", "--data-root", root)
    assert outcome.code == 4
    assert f"Picture cannot be read: {broken}" in outcome.out
    assert "ImageNet-Sketch is not under" in outcome.out
    assert "4 of 50,000 pictures, 4 of 1,000 classes; no pictures of great white shark, tiger " in (
        outcome.out
    )
    assert "licence:   for testing only" in outcome.out
    assert "published: https://objectnet.dev" in outcome.out
    names = [d.name for d in load_suite("imagenet-shifts").datasets]
    assert f"{', '.join(names)} are not as published" in outcome.err
    outcome = cli("data", "check", "imagenet-shifts", "--data-root", root, "--json")
    content = json.loads(outcome.out)
    assert (outcome.code, content["ok"], content["error"]["code"]) == (4, False, 4)
    findings = {name: facts["findings"] for name, facts in content["datasets"].items()}
    assert list(map(len, findings.values())) == [1, 1, 2, 1, 1, 2]


def test_check_of_the_class_mapping(cli, root, tmp_path):
    """A mapping of another size than ObjectNet's own is said, with whole pictures too."""
    (objectnet,) = [d for d in load_suite("imagenet-shifts").datasets if d.name == "objectnet"]
    assert objectnet.published.mapping == {
        "folders": 313, "folders of ImageNet's classes": 113, "ImageNet's classes": 125
    }  # fmt: skip
    found = {"folders": 5, "folders of ImageNet's classes": 4, "ImageNet's classes": 5}
    for more, code in ((0, 0), (1, 4)):
        mapping = found | {"ImageNet's classes": 5 + more}
        described = SUITE["datasets"][1]
        described = described | {"published": described["published"] | {"mapping": mapping}}
        (tmp_path / "o.yaml").write_text(
            json.dumps(SUITE | {"datasets": [described], "averages": {}})
        )
        outcome = cli("data", "check", "o.yaml", "--data-root", root, "--json")
        assert outcome.code == code, outcome.out
        facts = json.loads(outcome.out)["datasets"]["objectnet"]
        assert facts["mapping"] == found
        assert (
            facts["findings"]
            == ["the mapping is not the published one: ImageNet's classes 5 of 6"] * more
        )


def test_a_package_that_is_absent_hides_no_other_set(cli, root, monkeypatch):
    """Kept flat with the devkit's list, ImageNet's validation set is read with scipy's help."""
    shutil.rmtree(root / "imagenet" / "val")
    tree.fill_flat(root / "imagenet" / "val", {1: 0})
    devkit = root / "imagenet" / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n" * 50_000)
    (devkit / "meta.mat").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    outcome = cli("data", "list", "imagenet-shifts", "--data-root", root)
    assert outcome.code == 0, outcome.err
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert "unknown" in lines["imagenet"]
    assert "partial  6 pictures" in lines["imagenet-v2"]
    outcome = cli("data", "check", "imagenet-shifts", "--data-root", root)
    assert outcome.code == 4
    assert 'pip install "radapter[devkit]"' in outcome.out
    assert "6 of 10,000 pictures" in outcome.out
    evaluate = (
        "eval",
        "--suite",
        "imagenet-shifts",
        "--model",
        "pictogram-clip",
        "--data-root",
        root,
    )
    outcome = cli(*evaluate)
    assert outcome.code == 5
    assert "To score the rest of the suite, add --without imagenet" in outcome.err
    shutil.rmtree(root / "sketch")
    outcome = cli(*evaluate)
    assert (outcome.code, "ImageNet-Sketch is not under" in outcome.err) == (4, True)


def test_check_of_what_is_right(cli, root, suite_file):
    outcome = cli("data", "check", suite_file, "--data-root", root)
    assert outcome.code == 0, outcome.out
    assert "All is as published; 7 pictures decoded." in outcome.out
    found = json.loads(cli("data", "check", suite_file, "--data-root", root, "--json").out)
    assert found["datasets"]["objectnet"]["decoded"] == 4
    assert cli("data", "check", "emoji-shifts").code == 0


def test_wrong_usage(cli):
    outcome = cli("data", "show")
    assert (outcome.code, "Known: check, filter, frames, list" in outcome.err) == (2, True)
    outcome = cli("data", "check")
    assert (outcome.code, "Name a suite" in outcome.err) == (2, True)
    outcome = cli("data", "check", "imagenet-shift")
    assert (outcome.code, "Did you mean 'imagenet-shifts'" in outcome.err) == (2, True)


# ------------------------------------------------------------------ eval --model


def test_a_model_without_a_run(cli, root, suite_file, tiny_folder, tmp_path):
    arguments = ("eval", "--suite", suite_file, "--model", tiny_folder, "--data-root", root)
    outcome = cli(*arguments)
    assert outcome.code == 0, outcome.err
    assert "shifted: imagenet-r" in outcome.out
    assert "both" in outcome.out
    assert "expected calibration error" in outcome.out
    assert "objectnet: objectnet: wise-ft." in outcome.out
    assert "imagenet-r: classes: 200 of ImageNet's 1000" in outcome.out
    digits = models.load(tiny_folder).weights_hash[:8]
    assert f"Result: eval/my-suite-tiny-{digits}.json" in outcome.out
    saved = json.loads((tmp_path / "eval" / f"my-suite-tiny-{digits}.json").read_text())
    assert saved["seed"] == 0
    assert saved["weights_hash"] == models.load(tiny_folder).weights_hash
    assert {"torch", "open_clip_torch"} <= set(saved["versions"])
    assert saved["protocol"]["templates"] == ["a {}."]
    assert saved["protocol"]["averages"] == SUITE["averages"]
    (model,) = saved["models"].values()
    assert (model["device"], model["precision"]) == ("cpu", "fp32")
    facts = model["datasets"]["objectnet"]
    assert (facts["pictures"], facts["classes"], facts["partial"]) == (4, 4, None)
    assert len(facts["fingerprint"]) == 64
    assert 0 <= facts["calibration_error"]["value"] <= 1
    assert facts["protocol"]["crop"] == "none"
    other = tmp_path / "here" / "result.json"
    more = ("--out", other, "--protocol", "objectnet=clip-benchmark", "--json")
    outcome = cli(*arguments, *more)
    (printed,) = json.loads(outcome.out)["results"]
    assert printed["models"] == json.loads(other.read_text())["models"]
    (model,) = printed["models"].values()
    assert model["datasets"]["objectnet"]["protocol"]["objectnet"] == "clip-benchmark"


def test_a_partial_set_is_marked(cli, root, suite_file, tiny_folder):
    (lost,) = (root / "imagenet-r" / synsets()[1]).iterdir()
    lost.unlink()
    arguments = ("--suite", suite_file, "--model", tiny_folder, "--data-root", root)
    outcome = cli("eval", *arguments)
    assert outcome.code == 0
    assert "shifted: imagenet-r (partial)" in outcome.out
    assert "both: not all is whole" in outcome.out
    assert "imagenet-r is partial (2 of 3 pictures, 2 of 3 classes): it is in no average." in (
        outcome.out
    )


def test_a_set_that_is_not_there_can_be_left_out(cli, root, suite_file, tiny_folder):
    (root / "objectnet-1.0").rename(root / "elsewhere")
    arguments = ("eval", "--suite", suite_file, "--model", tiny_folder, "--data-root", root)
    assert cli(*arguments).code == 4
    outcome = cli(*arguments, "--without", "objectnet")
    assert outcome.code == 0, outcome.err
    assert "objectnet:" not in outcome.out
    outcome = cli(*arguments, "--without", "objctnet")
    assert (outcome.code, "Did you mean 'objectnet'" in outcome.err) == (2, True)


def test_a_partial_set_of_a_suite_without_averages(cli, root, suite_file, tiny_folder):
    """In place of the table by roles, which has no place for the mark."""
    suite_file.write_text(json.dumps({k: v for k, v in SUITE.items() if k != "averages"}))
    arguments = ("eval", "--suite", suite_file, "--model", tiny_folder, "--data-root", root)
    assert "shifted: mean of 2" in cli(*arguments).out
    for wnid in (synsets()[1], synsets()[2]):
        (lost,) = (root / "imagenet-r" / wnid).iterdir()
        lost.unlink()
    (root / "objectnet-1.0" / "images" / "dress").rename(root / "dress")
    outcome = cli(*arguments)
    assert outcome.code == 0, outcome.err
    assert "shifted: objectnet (partial)" in outcome.out


def test_published_numbers_stand_beside_ours(cli, root, suite_file, monkeypatch, tiny_folder):
    """A model of a known name, here with weights of our own, so that it is far from them."""
    rows = {"ViT-B-32:openai": {"imagenet-r": 69.33, "objectnet": 44.31}}
    anchors = [{"source": "a table", "tolerance": 0.15, "scores": rows,
                "protocols": {"objectnet": "clip-benchmark"}}]  # fmt: skip
    suite_file.write_text(json.dumps({**SUITE, "anchors": anchors}))
    load = models.load
    monkeypatch.setattr(models, "load", lambda name: load(tiny_folder))
    arguments = ("--suite", suite_file, "--model", "ViT-B-32:openai", "--data-root", root)
    outcome = cli("eval", *arguments)
    assert outcome.code == 0, outcome.err
    line = next(line for line in outcome.out.splitlines() if "shifted: imagenet-r" in line)
    value, published, difference = line.split()[2], *line.split()[-2:]
    assert published == "69.33"
    assert float(difference) == pytest.approx(float(value) - 69.33, abs=0.06)
    assert "44.31" not in outcome.out  # found with the other protocol
    assert "published: a table; NOT within: imagenet-r 0.15 points." in outcome.out


def test_a_bundle_without_a_run(cli, root, suite_file, exported, tmp_path):  # noqa: F811
    """The same numbers as the PyTorch model that it was exported from."""
    folder = tmp_path / "model"
    folder.mkdir()
    loaded = tiny_bundle.make()
    models.save(folder, loaded, loaded.model.state_dict())
    results = []
    for name in (folder, exported):
        arguments = ("--suite", suite_file, "--model", name, "--data-root", root, "--json")
        outcome = cli("eval", *arguments)
        assert outcome.code == 0, outcome.err
        results.append(json.loads(outcome.out)["results"][0])
    one, two = ((*result["models"].values(),)[0] for result in results)
    assert (one["runtime"], two["runtime"]) == ("pytorch", "onnx")
    assert results[0]["weights_hash"] == results[1]["weights_hash"]
    for name in ("imagenet-r", "objectnet"):
        assert one["datasets"][name]["accuracy"] == two["datasets"][name]["accuracy"]
        assert one["datasets"][name]["calibration_error"]["value"] == pytest.approx(
            two["datasets"][name]["calibration_error"]["value"], abs=1e-5
        )


def test_a_run_on_such_a_suite(cli, root, suite_file, merged):
    """A column a model, the averages under them, and over alpha too."""
    arguments = ("eval", "--suite", suite_file, "--data-root", root)
    outcome = cli(*arguments, "--runtime", "torch", "--protocol", "objectnet=clip-benchmark")
    assert outcome.code == 0, outcome.err
    row = next(line for line in outcome.out.splitlines() if line.startswith("  both"))
    assert row.count("±") == 2
    assert "objectnet: objectnet: clip-benchmark." in outcome.out
    file = "my-suite-objectnet-clip-benchmark-alpha-0.50-torch.json"
    saved = json.loads((merged.evaluations / file).read_text())
    assert saved["seed"] == 3
    assert saved["models"]["zero-shot"]["averages"]["both"]["datasets"] == [
        "imagenet-r",
        "objectnet",
    ]
    assert "anchors" not in saved["models"]["zero-shot"]
    outcome = cli(*arguments, "--alphas", "0:1:0.5", "--without", "objectnet", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert [list(point["datasets"]) for point in result["points"]] == [["imagenet-r"]] * 3
    assert "torch" in result["versions"]


def test_broken_pictures_of_a_suite_are_allowed(cli, root, suite_file, tiny_folder):
    (broken, *_) = (root / "imagenet-r" / synsets()[1]).iterdir()
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = ("eval", "--suite", suite_file, "--model", tiny_folder, "--data-root", root)
    assert cli(*arguments).code == 4
    outcome = cli(*arguments, "--broken-images", "1", "--json")
    assert outcome.code == 0, outcome.err
    (model,) = json.loads(outcome.out)["results"][0]["models"].values()
    facts = model["datasets"]["imagenet-r"]
    assert (facts["pictures"], facts["broken"]) == (2, 1)


def test_no_result_takes_the_place_of_another(cli, root, suite_file, tiny_folder, tmp_path):
    """Other protocols, sets left out and models of one folder name have files of their own."""
    tiny.write(tmp_path / "other" / tiny_folder.name, seed=1)
    arguments = ("eval", "--suite", suite_file, "--data-root", root, "--json", "--model")
    files = []
    for more in (
        (tiny_folder,),
        (tiny_folder, "--protocol", "objectnet=clip-benchmark"),
        (tiny_folder, "--without", "objectnet"),
        (tmp_path / "other" / tiny_folder.name,),
    ):
        outcome = cli(*arguments, *more)
        assert outcome.code == 0, outcome.err
        files.append(json.loads(outcome.out)["results"][0]["file"])
    assert len(set(files)) == 4
    outcome = cli(*arguments, tiny_folder, "--protocol", "objectnet=wise-ft")  # the suite's own
    assert json.loads(outcome.out)["results"][0]["file"] == files[0]


def test_many_sets_left_out_have_a_file_name_of_moderate_length():
    suite = load_suite("base-to-novel")
    names = [dataset.name for dataset in suite.datasets]
    one, two = suite.without(names[1:]), suite.without([*names[2:], names[0]])
    assert len(one.file_name) < 150
    assert one.file_name != two.file_name
    assert suite.file_name == "base-to-novel"
    assert suite.without(names[:2]).file_name == suite.without(names[1::-1]).file_name


def test_options_that_do_not_go_together(cli, tiny_folder):
    for arguments, message in {
        ("--model", tiny_folder): "--model needs --suite",
        ("--model", tiny_folder, "--run", "x"): "--model stands alone",
        ("--out", "x.json"): "--out goes with --model",
        ("--suite", "emoji-shifts", "--model", "pictogram-clip", "--protocol", "noto"): (
            "takes DATASET=PROTOCOL"
        ),
        ("--suite", "emoji-shifts", "--model", "pictogram-clip", "--protocol", "x=y"): (
            "emoji-shifts has no data set 'x'"
        ),
    }.items():
        outcome = cli("eval", *arguments)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_missing_data_is_said_before_a_model_is_loaded(cli, tmp_path):
    outcome = cli("eval", "--suite", "imagenet-shifts", "--model", "ViT-B-16:openai")
    assert outcome.code == 4
    assert outcome.err.count("Published at ") == 6


# ------------------------------------------------------------------ recipes


@pytest.fixture(scope="session")
def training_tree(tmp_path_factory):
    """imagenet/train with 20 pictures of three classes."""
    root = tmp_path_factory.mktemp("training")
    tree.fill(root / "imagenet" / "train", "train", [0, 10, 100], each=20)
    return root


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_trains_on_its_miniature(cli, name, training_tree, tiny_folder, tmp_path):
    overrides = (f"model={tiny_folder}", "optimisation.epochs=1", "workers=0", "device=cpu",
                 "data.hold_out=0.1")  # fmt: skip
    if name != "imagenet-vit-b-16":  # 80,000 texts for one of them are enough
        overrides += ('data.templates=["a {}."]',)
    where = ("--data-root", training_tree)
    outcome = cli("train", name, *overrides, "--dry-run", "--json", *where)
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)["plan"]
    assert plan["pictures"] == 48 if name == "imagenet-16shot" else 48 < plan["pictures"] < 60
    assert not (tmp_path / "runs").exists()
    outcome = cli("train", name, *overrides, *where)
    assert outcome.code == 0, outcome.err
    (run,) = (tmp_path / "runs").iterdir()
    classes = json.loads((run / "classes.json").read_text())
    assert len(classes["names"]) == 1000
    assert (run / "adapter.safetensors").is_file()


def test_no_prompt_is_cut(tiny_folder):
    """`text_length` of the recipes is enough for every name in the longest of the templates."""
    from radapter import recipe
    from radapter.data.pairs import templates_of
    from radapter.data.sources.imagenet import class_names

    tokenizer = tiny.build().tokenizer
    length = lambda texts: (tokenizer(texts) != 0).sum(dim=1)  # noqa: E731
    longest = max(templates_of("openai"), key=lambda t: int(length([t])[0]))
    needed = int(length([longest.replace("{}", name) for name in class_names()]).max())
    for name in RECIPES[:3]:
        settings = recipe.load(recipe.shipped()[name]).data
        assert settings.text_length >= needed
        assert settings.templates == "openai"


def test_key_frames(cli, tmp_path):
    pictures = [trees.draw(k) for k in range(4)]
    (tmp_path / "v").mkdir()
    pictures[0].save(tmp_path / "v" / "a.gif", save_all=True, append_images=pictures[1:])
    outcome = cli("data", "frames", tmp_path / "v", "--out", tmp_path / "f", "--frames", "2")
    assert outcome.code == 0, outcome.err
    assert "1 videos, listed in frames.json" in outcome.out
    assert sorted(p.name for p in (tmp_path / "f" / "a").glob("*.jpg")) == ["000.jpg", "001.jpg"]
    (tmp_path / "v" / "b.gif").write_bytes(b"nothing")
    outcome = cli(
        "data", "frames", tmp_path / "v", "--out", tmp_path / "f", "--frames", "2", "--json"
    )
    assert outcome.code == 4
    facts = json.loads(outcome.out)
    assert (facts["videos"], facts["made"], len(facts["broken"])) == ({"a.gif": 2}, 0, 1)
    assert "b.gif" in outcome.err
    assert cli("data", "frames", tmp_path / "v").code == 2
    outcome = cli("data", "check", "retrieval", "--out", "x")
    assert (outcome.code, "No such option: --out" in outcome.err) == (2, True)


def test_the_check_of_a_recipe_counts_unlabelled_pictures(cli, shapes, tiny_folder, tmp_path):
    """And those that are held out, too, under another name."""
    more = tiny.draw_shapes(tmp_path / "more", each=2)
    (more / "._hidden.png").write_bytes(b"")
    (tmp_path / "r.yaml").write_text(
        tiny.text(tiny_folder, shapes).replace("data:", "data:\n  hold_out: 0.99")
        + f"unlabelled: {{source: folder, root: {more}}}\n"
    )
    outcome = cli("data", "check", tmp_path / "r.yaml")
    assert outcome.code == 0, outcome.err
    assert "unlabelled: 6 pictures of folder" in outcome.out
    assert "unlabelled: left out: 1 hidden" in outcome.out
    assert "unlabelled: duplicates: 6 held-out pictures are trained on too" in outcome.out
