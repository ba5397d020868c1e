"""predict, embed and search: numbers against open_clip itself, and every way they refuse."""

import dataclasses
import json
import shutil
from pathlib import Path

import open_clip
import pytest
import tiny
import torch
import trees
from PIL import Image
from safetensors.torch import load_file

from radapter import merging, models
from radapter.data.clip_pieces import open_clips
from radapter.data.pixels import IMAGE_EXTENSIONS
from radapter.export import export_bundle
from radapter.export.facts import run_facts
from radapter.run import Run
from radapter.runtimes.opened import from_loaded
from radapter.training import train


@pytest.fixture(scope="module")
def _exported(_trained, tmp_path_factory):
    """A run that was merged and exported."""
    run = Run(shutil.copytree(_trained.path, tmp_path_factory.mktemp("runs") / _trained.name))
    merging.write_merged(run, 0.5)
    loaded, facts = merging.read_merged(run)
    known = run_facts(run, run.recipe(), facts)
    export_bundle(loaded, run.bundle_for(facts["weights_hash"]), facts=known, classes=run.classes())
    return run


@pytest.fixture
def exported(_exported, tmp_path):
    """The same in ./runs of the working folder."""
    return Run(shutil.copytree(_exported.path, tmp_path / "runs" / _exported.name))


@pytest.fixture
def bundle_alone(_exported, tmp_path):
    """Its bundle in an empty working folder."""
    (folder,) = (_exported.path / "bundles").iterdir()
    return shutil.copytree(folder, tmp_path / "deployed")


@pytest.fixture
def photos(shapes, tmp_path):
    """Pictures at two depths, to be changed by a test."""
    shutil.copytree(shapes, tmp_path / "photos")
    return "photos"


def by_open_clip(folder, paths, prompts):
    """Probabilities [pictures, classes] from open_clip's own model, transform and tokenizer."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        rows = []
        for texts in prompts:
            features = model.encode_text(tokenizer(texts))
            mean = (features / features.norm(dim=1, keepdim=True)).mean(0)
            rows.append(mean / mean.norm())
        pixels = torch.stack([preprocess(Image.open(path)) for path in paths])
        features = model.encode_image(pixels)
        features = features / features.norm(dim=1, keepdim=True)
        return (model.logit_scale.exp() * features @ torch.stack(rows).T).softmax(1), features


def check_equal(results, expected, names):
    assert results
    for result, row in zip(results, expected, strict=True):
        shares = {label["label"]: label["probability"] for label in result["labels"]}
        values = list(shares.values())
        assert values == sorted(values, reverse=True)
        assert shares == pytest.approx(dict(zip(names, row.tolist(), strict=True)), abs=1e-5)


def test_probabilities_are_open_clips(cli, merged, photos):
    classes = merged.classes()
    outcome = cli("predict", photos, "--json")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    paths = [result["picture"] for result in content["pictures"]]
    assert len(paths) == 24
    assert paths == sorted(paths)
    expected, _ = by_open_clip(merged.merged(), paths, classes["prompts"])
    check_equal(content["pictures"], expected, classes["names"])
    assert content["classes"] == 3
    lines = cli("predict", photos, "--jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == content["pictures"]
    outcome = cli("predict", paths[0], "--top", "1")
    first = content["pictures"][0]["labels"][0]
    assert outcome.out.split("\n")[1].split() == [
        paths[0], f"{100 * first['probability']:.1f}", *first["label"].split()
    ]  # fmt: skip


def test_classes_and_templates_of_ones_own(cli, merged, photos, tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffa  cat \n\nÉmile\n")
    path = f"{photos}/red_square/00.png"
    arguments = ("predict", path, "--classes", "names.txt", "--json")
    (result,) = json.loads(cli(*arguments).out)["pictures"]
    prompts = [["a photo of a a cat.", "a a cat"], ["a photo of a Émile.", "a Émile"]]
    expected, _ = by_open_clip(merged.merged(), [path], prompts)  # by the templates of the recipe
    check_equal([result], expected, ["a cat", "Émile"])
    own = ("--templates", "{}!", "--templates", "see {}")
    (result,) = json.loads(cli(*arguments, *own).out)["pictures"]
    expected, _ = by_open_clip(
        merged.merged(), [path], [["a cat!", "see a cat"], ["Émile!", "see Émile"]]
    )
    check_equal([result], expected, ["a cat", "Émile"])
    # Trained classes with other prompts, open_clip's 80.
    (result,) = json.loads(cli("predict", path, "--templates", "openai", "--json").out)["pictures"]
    names = merged.classes()["names"]
    prompts = [[t(name) for t in open_clip.OPENAI_IMAGENET_TEMPLATES] for name in names]
    expected, _ = by_open_clip(merged.merged(), [path], prompts)
    check_equal([result], expected, names)


@pytest.mark.slow
def test_a_bundle_alone_predicts_what_the_run_does(
    cli, exported, bundle_alone, photos, tmp_path, monkeypatch
):
    # Without --templates the run's prompts count; open_clip repairs all but the first name.
    names = "cat\nbaker’s “dozen”\nﬁsh &amp; chips\nsomething else, entirely\n"
    (tmp_path / "names.txt").write_text(names, encoding="utf-8")
    chosen = ["--classes", "names.txt"]
    for more in ([], chosen, [*chosen, "--templates", "a {}, or so"]):
        from_run = json.loads(cli("predict", photos, *more, "--json").out)
        with_onnx = json.loads(cli("predict", photos, *more, "--runtime", "onnx", "--json").out)
        with monkeypatch.context() as alone:
            shutil.move(tmp_path / "runs", tmp_path / "away")
            alone.setattr(models, "load", None)
            alone.setattr("radapter.merging.merged.load", None)
            outcome = cli("predict", photos, *more, "--model", bundle_alone, "--json")
            shutil.move(tmp_path / "away", tmp_path / "runs")
        assert outcome.code == 0, outcome.err
        alone_result = json.loads(outcome.out)
        assert from_run["runtime"] == "pytorch"
        for content in (with_onnx, alone_result):
            assert content["runtime"] == "onnx"
            assert content["weights_hash"] == from_run["weights_hash"]
            for ours, theirs in zip(content["pictures"], from_run["pictures"], strict=True):
                assert ours["picture"] == theirs["picture"]
                shares = {label["label"]: label["probability"] for label in ours["labels"]}
                expected = {label["label"]: label["probability"] for label in theirs["labels"]}
                assert shares == pytest.approx(expected, abs=1e-5)
        assert alone_result["pictures"] == with_onnx["pictures"]


def test_pictures_that_cannot_be_read_do_not_stop_the_rest(cli, merged, photos, tmp_path):
    (tmp_path / photos / "blue_circle" / "02.png").write_bytes(b"no picture")
    (tmp_path / photos / "red_square" / "07.png").write_bytes(b"")
    outcome = cli("predict", photos, "--jsonl")
    assert outcome.code == 4
    results = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(results) == 24
    assert [r["picture"] for r in results if "error" in r] == [
        "photos/blue_circle/02.png", "photos/red_square/07.png"
    ]  # fmt: skip
    assert sum("labels" in r for r in results) == 22
    assert outcome.err.count("Picture cannot be read: photos/") == 2
    assert "error: 2 of 24 pictures could not be read." in outcome.err
    outcome = cli("predict", photos, "--json")
    content = json.loads(outcome.out)
    assert (outcome.code, content["ok"], content["error"]["code"]) == (4, False, 4)
    assert content["pictures"] == results
    outcome = cli("predict", photos, "--top", "1")
    assert outcome.code == 4
    assert len(outcome.out.splitlines()) == 1 + 22


@pytest.mark.slow
def test_embed_and_search(cli, exported, bundle_alone, photos, tmp_path):
    outcome = cli("embed", photos, "--out", "f.safetensors", "--json")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    paths = sorted((tmp_path / photos).rglob("*.png"))
    prompts = [["a red square"], ["x"]]
    _, features = by_open_clip(exported.merged(), paths, prompts)
    ours = load_file(tmp_path / "f.safetensors")["features"]
    torch.testing.assert_close(ours, features, atol=2e-6, rtol=0)
    assert content["facts"]["weights_hash"] == models.load(exported.merged()).weights_hash
    before = (tmp_path / "f.safetensors").read_bytes()
    assert cli("embed", photos, "--out", "f.safetensors").out.startswith("Up to date: f.saf")
    assert (tmp_path / "f.safetensors").read_bytes() == before

    model = open_clip.create_model(f"local-dir:{exported.merged()}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{exported.merged()}")(["a red square"])
    with torch.no_grad():
        query = model.encode_text(tokens)[0]
    cosines = features @ (query / query.norm())
    order = cosines.argsort(descending=True)[:4]
    expected = [paths[i].relative_to(tmp_path / photos).as_posix() for i in order]
    ways = ([], ["--run", exported.name], ["--runtime", "onnx"], ["--model", "deployed"])
    for way in ways:  # whatever runs it, the weights are those of the file
        arguments = ("search", "a red square", "--in", "f.safetensors", "--top", "4", *way)
        results = json.loads(cli(*arguments, "--json").out)["results"]
        assert [r["picture"] for r in results] == expected
        assert [r["cosine"] for r in results] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    table = cli(*arguments).out.splitlines()
    assert [line.split()[1] for line in table[1:]] == [f"{photos}/{name}" for name in expected]

    query = f"{photos}/green_cross/03.png"
    outcome = cli("search", "--image", query, "--in", "f.safetensors", "--json", *ways[-1])
    first = json.loads(outcome.out)["results"][0]
    assert first["picture"] == "green_cross/03.png"
    assert first["cosine"] == pytest.approx(1, abs=1e-5)


def test_embed_leaves_out_what_cannot_be_read(cli, merged, photos, tmp_path):
    (tmp_path / photos / "blue_circle" / "02.png").write_bytes(b"no picture")
    outcome = cli("embed", photos, "--out", "f.safetensors")
    assert outcome.code == 4
    assert "left out: Picture cannot be read: photos/blue_circle/02.png" in outcome.err
    assert "error: 1 of 24 pictures could not be read and are not in f.safetensors." in outcome.err
    assert "Features: f.safetensors (23 pictures, 16 dimensions" in outcome.out
    assert cli("search", "x", "--in", "f.safetensors").code == 0
    # What is missing is still missing the next time, and --json says it all.
    content = json.loads(cli("embed", photos, "--out", "f.safetensors", "--json").out)
    assert (content["ok"], content["facts"]["skipped"], content["written"]) == (False, 1, False)


def test_embed_a_table_with_another_model(cli, tiny_folder, photos, tmp_path):
    (tmp_path / photos / "t.csv").write_text(
        "picture,title\nred_square/00.png,a\nred_square/00.png,b\nblue_circle/03.png,c\n"
    )
    arguments = ("embed", f"{photos}/t.csv", "--out", "f.safetensors", "--model", tiny_folder)
    outcome = cli(*arguments)
    assert outcome.code == 4
    assert "t.csv has no column 'filepath'" in outcome.err
    outcome = cli(*arguments, "--image-column", "picture")
    assert outcome.code == 0, outcome.err
    assert (
        f"radapter search 'a red bicycle' --in f.safetensors --model {tiny_folder}" in outcome.err
    )
    outcome = cli("search", "x", "--in", "f.safetensors", "--model", tiny_folder, "--json")
    found = {result["picture"] for result in json.loads(outcome.out)["results"]}
    assert found == {"red_square/00.png", "blue_circle/03.png"}


def test_ctrl_c_says_that_parts_are_kept(cli, merged, photos, tmp_path, monkeypatch):
    from radapter.inference import features

    real, seen = features.encode_batches, []

    def interrupted(runtime, preprocess, read, place, **more):
        seen.append(place)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(runtime, preprocess, read, place, **more)

    monkeypatch.setattr(features, "PART", 8)
    monkeypatch.setattr(features, "encode_batches", interrupted)
    outcome = cli("embed", photos, "--out", "f.safetensors")
    assert outcome.code == 130
    assert "are kept in f.safetensors.parts; the same command goes on." in outcome.err
    assert not (tmp_path / "f.safetensors").exists()
    assert cli("embed", photos, "--out", "f.safetensors").code == 0
    assert len(seen) == 4  # the first two parts were not encoded again


# ---------------------------------------------------------------- bad input


def check(outcome, code, message):
    """One exact message, the right code, nothing on stdout."""
    assert outcome.code == code, outcome.err
    assert outcome.err.strip() == f"error: {message}"
    assert outcome.out == ""


def test_no_classes(cli, tiny_folder, photos):
    check(
        cli("predict", photos, "--model", tiny_folder),
        2,
        f"{tiny_folder} has no trained classes: name those to choose from, one a line in a file, "
        "by --classes names.txt",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "n.txt names no classes: write one a line."),
        ("cat\n\ndog\n cat\n", "n.txt:4: 'cat' is named in line 1 already."),
        (None, "No such file of class names: n.txt."),
    ],
)
def test_bad_class_names(cli, tiny_folder, photos, tmp_path, content, message):
    if content is not None:
        (tmp_path / "n.txt").write_text(content)
    check(cli("predict", photos, "--model", tiny_folder, "--classes", "n.txt"), 4, message)


def test_a_bad_template(cli, merged, photos):
    check(
        cli("predict", photos, "--templates", "a photo"),
        2,
        "A template needs exactly one {} for the class name, found 'a photo'.",
    )


def test_empty_and_missing_folders(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    kinds = f"{len(IMAGE_EXTENSIONS)} endings are read, such as .jpg, .png and .webp"
    for command in (["predict", "empty"], ["embed", "empty", "--out", "f.safetensors"]):
        check(cli(*command), 4, f"No pictures in empty or below it. {kinds}.")
        command[1] = "nothing"
        check(cli(*command), 4, "No such picture, folder or table: nothing.")
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_one_model_at_a_time(cli, merged, photos, tiny_folder):
    check(
        cli("predict", photos, "--run", merged.name, "--model", tiny_folder),
        2,
        "--run and --model both name a model: give one of them.",
    )
    check(
        cli("predict", photos, "--model", f"runs/{merged.name}"),
        2,
        f"runs/{merged.name} is a run: give it as --run runs/{merged.name}",
    )
    check(
        cli("predict", photos, "--runtime", "onnx"),
        4,
        f"Run {merged.name} has no bundle exported from its present merged model. "
        f"Type first: radapter export --run runs/{merged.name}",
    )


def test_a_run_that_was_never_merged(cli, trained, photos):
    for command in (["predict", photos], ["embed", photos, "--out", "f.safetensors"]):
        check(
            cli(*command),
            4,
            f"Run {trained.name} has no merged model. "
            f"Type first: radapter merge --run runs/{trained.name}",
        )


def test_json_and_jsonl(cli, photos):
    outcome = cli("predict", photos, "--json", "--jsonl")
    message = "--json prints one object, --jsonl one a picture: give one of them."
    assert outcome.code == 2
    assert json.loads(outcome.out)["error"]["message"] == message


def test_features_of_another_model(cli, merged, photos, tmp_path):
    other = tiny.write(tmp_path / "other", seed=4)
    assert cli("embed", photos, "--out", "f.safetensors", "--model", "other").code == 0
    ours = models.load(merged.merged()).weights_hash[:16]
    check(
        cli("search", "x", "--in", "f.safetensors"),
        4,
        "f.safetensors was made with another model: other (weights "
        f"{models.load(other).weights_hash[:16]}), not {merged.name}, alpha 0.5 ({ours}). "
        "Give the one it was made with by --run or --model, or embed again.",
    )
    outcome = cli("embed", photos, "--out", "f.safetensors")
    assert outcome.code == 4
    assert "f.safetensors was made with another model (" in outcome.err
    assert cli("search", "x", "--in", "f.safetensors", "--model", "other").code == 0


def test_a_truncated_features_file(cli, merged, photos, tmp_path):
    assert cli("embed", photos, "--out", "f.safetensors").code == 0
    whole = (tmp_path / "f.safetensors").read_bytes()
    (tmp_path / "f.safetensors").write_bytes(whole[:-5])
    for command in (
        ["search", "x", "--in", "f.safetensors"],
        ["embed", photos, "--out", "f.safetensors"],
    ):
        outcome = cli(*command)
        assert outcome.code == 4
        assert outcome.err.startswith("error: f.safetensors is damaged or truncated: ")
        assert len(outcome.err.splitlines()) == 1
    assert (tmp_path / "f.safetensors").read_bytes() == whole[:-5]


def test_what_to_search_for(cli, photos, tmp_path):
    message = "What to look for is a text, --image, or both: give one of them."
    check(cli("search", "--in", "f.safetensors"), 2, message)
    message = "--text-weight is for a text beside --image: give both, or leave it out."
    check(cli("search", "x", "--text-weight", "0.3", "--in", "f.safetensors"), 2, message)
    check(
        cli("search", "x", "--in", "f.safetensors"),
        4,
        "No features file at f.safetensors. Type first: radapter embed FOLDER --out f.safetensors",
    )
    check(
        cli("embed", photos, "--out", "photos"), 2,
        "--out takes a file to write, and photos is a folder.",
    )  # fmt: skip


def test_a_picture_and_what_is_to_be_changed_of_it(cli, merged, photos):
    assert cli("embed", photos, "--out", "f.safetensors").code == 0
    image = ("--image", f"{photos}/green_cross/03.png")

    def cosines(*query):
        outcome = cli("search", *query, "--in", "f.safetensors", "--top", "24", "--json")
        assert outcome.code == 0, outcome.err
        content = json.loads(outcome.out)
        found = {r["picture"]: r["cosine"] for r in content["results"]}
        return content["query"], torch.tensor([found[name] for name in sorted(found)])

    facts, both = cosines("a red square", *image, "--text-weight", "0.3")
    assert facts == {"text": "a red square", "image": image[1], "text_weight": 0.3}
    # A sum of unit vectors, divided by one number: cosines are in the proportion of the sum's.
    summed = 0.7 * cosines(*image)[1] + 0.3 * cosines("a red square")[1]
    torch.testing.assert_close(both / both.norm(), summed / summed.norm(), atol=1e-5, rtol=0)
    assert cosines("a red square", *image)[0]["text_weight"] == 0.5


def test_an_engine_that_makes_no_queries_says_so(cli, tiny_folder, photos, tmp_path, monkeypatch):
    """Its model was trained to make one of picture and text; a sum takes its place."""
    from radapter_cli import model_options, search

    def lacking(*chosen):
        return dataclasses.replace(model_options.open_chosen(*chosen), lacks_query=True)

    more = ("--model", tiny_folder)
    assert cli("embed", photos, "--out", "f.safetensors", *more).code == 0
    image = next(path for path in sorted(Path(photos).rglob("*")) if path.is_file())
    command = ("search", "blue", "--image", image, "--in", "f.safetensors", *more)
    said = "has no query model, so the query is the sum of picture and text, 0.5 each"
    assert said not in " ".join(cli(*command).err.split())
    monkeypatch.setattr(search, "open_chosen", lacking)
    outcome = cli(*command)
    assert outcome.code == 0
    assert said in " ".join(outcome.err.split())
    assert said not in " ".join(cli(*command, "--text-weight", "0.3").err.split())


def test_a_query_picture_that_cannot_be_read(cli, merged, photos, tmp_path):
    assert cli("embed", photos, "--out", "f.safetensors").code == 0
    (tmp_path / "query.jpg").write_bytes(b"no picture")
    outcome = cli("search", "--image", "query.jpg", "--in", "f.safetensors")
    assert outcome.code == 4
    assert "error: Picture cannot be read: query.jpg: " in outcome.err


def test_features_of_videos(cli, tiny_folder, tmp_path):
    for number, name in enumerate(("a.gif", "b.gif")):
        frames = [trees.draw(9 * number + k) for k in range(5)]
        (tmp_path / "v").mkdir(exist_ok=True)
        frames[0].save(tmp_path / "v" / name, save_all=True, append_images=frames[1:])
    (tmp_path / "v" / "d.gif").write_bytes(b"broken")
    out = tmp_path / "f.safetensors"
    command = ("embed", tmp_path / "v", "--frames", "4", "--out", out, "--model", tiny_folder)
    outcome = cli(*command)
    assert (outcome.code, "d.gif" in outcome.err) == (4, True)
    (tmp_path / "v" / "d.gif").unlink()
    assert cli(*command).code == 0
    outcome = cli("search", "red", "--in", out, "--model", tiny_folder, "--json")
    found = json.loads(outcome.out)["results"]
    assert {result["picture"] for result in found} == {"a.gif", "b.gif"}
    assert all(result["path"].endswith(f"v/{result['picture']}") for result in found)
    assert not any("when" in result for result in found)


def test_a_model_of_clips_says_how_many_frames_it_takes(cli, tiny_folder, shapes, tmp_path):
    """As many are taken where none are named; more are refused before a video is read."""
    frames = [trees.draw(k) for k in range(9)]
    (tmp_path / "v").mkdir()
    frames[0].save(tmp_path / "v" / "a.gif", save_all=True, append_images=frames[1:])
    method = "method={name: gru, width: 4, frames: 3}"
    run = train(tiny.recipe(tiny_folder, shapes, method, "optimisation.epochs=1"), tmp_path)
    command = ("embed", tmp_path / "v", "--run", run.path, "--json", "--out")
    for given, taken in ((("--window", "10"), "3"), (("--frames", "2"), "2")):
        outcome = cli(*command, tmp_path / f"{taken}.safetensors", *given)
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["facts"]["reading"]["frames"] == taken
    for refused in (
        (*command, tmp_path / "f.safetensors", "--frames", "12"),
        (*command, tmp_path / "f.safetensors", "--frames", "12", "--window", "10"),
        ("predict", tmp_path / "v", "--run", run.path, "--frames", "12"),
    ):
        outcome = cli(*refused)
        assert outcome.code == 2
        said = "takes clips of up to 3 frames, and --frames is 12: give --frames 3."
        assert said in " ".join((outcome.out + outcome.err).split())
    assert not (tmp_path / "f.safetensors").exists()


def test_what_is_in_videos(cli, tiny_folder, tmp_path):
    """The classes of the mean of frames; of one video alone the same."""
    (tmp_path / "v").mkdir()
    for number, name in enumerate(("a.gif", "b.gif")):
        frames = [trees.draw(9 * number + k) for k in range(5)]
        frames[0].save(tmp_path / "v" / name, save_all=True, append_images=frames[1:])
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    more = ("--frames", "4", "--classes", tmp_path / "names.txt", "--model", tiny_folder, "--json")
    outcome = cli("predict", tmp_path / "v", *more)
    assert outcome.code == 0, outcome.err
    first, second = json.loads(outcome.out)["pictures"]
    assert [Path(found["picture"]).name for found in (first, second)] == ["a.gif", "b.gif"]
    loaded, clips = models.load(tiny_folder), open_clips(tmp_path / "v", 4)
    runtime = from_loaded(loaded).runtime
    pixels = torch.stack([loaded.preprocess(frame) for frame in clips.read(0)])[None]
    texts = runtime.encode_text(loaded.tokenizer(["a photo of a cat.", "a photo of a dog."]))
    shares = (runtime.logit_scale * runtime.encode_video(pixels) @ texts.T).softmax(dim=1)[0]
    labels = {label["label"]: label["probability"] for label in first["labels"]}
    expected = dict(zip(("cat", "dog"), shares.tolist(), strict=True))
    assert labels == pytest.approx(expected, abs=1e-5)
    (alone,) = json.loads(cli("predict", tmp_path / "v" / "a.gif", *more).out)["pictures"]
    labels = {label["label"]: label["probability"] for label in alone["labels"]}
    assert labels == pytest.approx(expected, abs=1e-5)
    outcome = cli("predict", tmp_path / "v", tmp_path / "v", *more)
    assert (outcome.code, "takes one video" in outcome.out + outcome.err) == (2, True)
