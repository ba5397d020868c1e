"""What a bundle says of itself: the card as the hub reads it, with what the run has measured."""

import json

import pytest
import tiny
import tiny_bundle
from huggingface_hub import ModelCard

from radapter import bundle, merging
from radapter import export as exporting
from radapter import recipe as recipes
from radapter.export.facts import data_licence, hub_name
from radapter.run import Run

pytestmark = pytest.mark.slow  # they export


@pytest.fixture
def suite(shapes, tmp_path):
    data = f"{{source: folder, root: {shapes}, split: all}}"
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntasks: [classification]\n"
        f"datasets: [{{name: drawn, role: shifted, data: {data}}}]\n"
    )
    return "mine.yaml"


def test_the_card_and_the_manifest_grow_with_the_run(cli, merged: Run, suite, monkeypatch):
    assert cli("export").code == 0
    (folder,) = (path.parent for path in merged.path.glob("bundles/*/manifest.json"))
    first = bundle.verify(folder)
    assert "results" not in first
    assert "alpha_curves" not in first
    assert first["data"] == [{"name": "your own (folder)", "licence": "that of your data"}]
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "onnx"
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert card.data.license is None
    assert card.data.base_model is None
    assert "## Results" not in card.text

    assert cli("eval", "--suite", suite).code == 0
    assert cli("eval", "--suite", suite, "--alphas", "0:1:0.5").code == 0
    assert cli("merge", "--alpha", "auto").code == 0
    merging.write_merged(merged, 0.5)
    monkeypatch.setattr(exporting, "export_bundle", lambda *a, **k: pytest.fail("exported again"))
    outcome = cli("export", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["written"] is False
    second = bundle.verify(folder)
    changed = {name for name in first["files"] if first["files"][name] != second["files"][name]}
    assert changed == {"README.md"}
    assert {k: v for k, v in second.items() if k in first and k != "files"} == {
        k: v for k, v in first.items() if k != "files"
    }

    (result,) = second["results"]
    saved = json.loads((merged.evaluations / "mine-alpha-0.50.json").read_text())
    assert result["suite"] == "mine"
    assert list(result["models"]) == list(saved["models"]) == ["zero-shot", "alpha 0.50", "onnx"]
    for label, datasets in result["models"].items():
        own = saved["models"][label]["datasets"]["drawn"]["accuracy"]
        assert datasets["drawn"]["accuracy"]["value"] == own["value"]
        assert datasets["drawn"]["accuracy"]["interval"] == own["interval"]
    held_out, over = second["alpha_curves"]
    choice = json.loads((merged.path / "merged" / "alpha-auto.json").read_text())
    assert held_out["on"] == "held-out"
    assert [p["held-out"] for p in held_out["points"]] == [p["score"] for p in choice["curve"]]
    assert over["on"] == "mine"
    assert [p["alpha"] for p in over["points"]] == [0, 0.5, 1]
    at_half = saved["models"]["alpha 0.50"]["datasets"]["drawn"]["accuracy"]["value"]
    assert over["points"][1]["shifted"] == pytest.approx(at_half)

    card = ModelCard.load(folder / "README.md")
    measured = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert measured["class accuracy, alpha 0.50"] == pytest.approx(at_half, abs=1e-4)
    assert "| drawn | shifted | class accuracy |" in card.text
    assert f"{100 * at_half:.1f} (" in card.text
    assert "Over alpha, on mine, class accuracy in %" in card.text
    assert "your own (folder)" in card.text

    before = (folder / "manifest.json").stat().st_mtime_ns
    assert cli("export").code == 0
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_results_of_other_weights_are_left_out(cli, merged: Run, suite):
    assert cli("eval", "--suite", suite).code == 0
    merging.write_merged(merged, 0.25)
    assert cli("export").code == 0
    _, facts = merging.read_merged(merged)
    manifest = bundle.verify(merged.bundle_for(facts["weights_hash"]))
    assert manifest["alpha"] == 0.25
    assert "results" not in manifest


def test_checkpoints_and_a_triton_repository(cli, merged: Run, tmp_path):
    arguments = ["export", "--checkpoint", "open_clip", "--triton", "repository"]
    planned = json.loads(cli(*arguments, "--dry-run", "--json").out)["files"]
    assert "open_clip/open_clip_model.safetensors" in planned
    assert not (tmp_path / "repository").exists()
    outcome = cli(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["triton"] == ["repository/tiny_vision", "repository/tiny_text"]
    assert result["manifest"]["checkpoints"] == ["open_clip"]
    files = (tmp_path / result["bundle"]).rglob("*")
    assert set(planned) == {
        p.relative_to(tmp_path / result["bundle"]).as_posix() for p in files if p.is_file()
    }
    again = cli(*arguments)
    assert "Up to date" in again.out
    assert "Triton model: repository/tiny_text" in again.out
    assert cli("export").out.startswith("Up to date")  # what is not said stays
    outcome = cli("export", "--checkpoint", "keras")
    assert outcome.code == 2


def with_data(data, tmp_path):
    text = tiny.text(tmp_path, tmp_path)
    start, end = text.index("data:"), text.index("objective:")
    return recipes.parse(text[:start] + f"data: {data}\n" + text[end:], "r.yaml")


def test_training_pictures_go_along_only_where_they_may(tmp_path, shapes):
    pictures, notice = exporting.golden_pictures(with_data("{source: emoji}", tmp_path))
    assert [picture.size for picture in pictures] == [(64, 64)] * 3
    assert len({picture.tobytes() for picture in pictures}) == 3
    again, _ = exporting.golden_pictures(with_data("{source: emoji}", tmp_path))
    assert [p.tobytes() for p in again] == [p.tobytes() for p in pictures]
    assert "Copyright Google Inc." in notice
    private = with_data(f"{{source: folder, root: {shapes}}}", tmp_path)
    assert exporting.golden_pictures(private) == (None, "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{source: emoji}", ["`noto`: ", "Copyright Google Inc.", "Apache License"]),
        ("{source: emoji, styles: [twemoji]}", ["Twitter, Inc", "creativecommons.org/licenses/by"]),
        ("{source: icons}", ["64 x 64", "licence: MIT", "Permission is hereby granted"]),
    ],
)
def test_a_bundle_says_whose_pictures_it_has(tmp_path, data, said):
    pictures, notice = exporting.golden_pictures(with_data(data, tmp_path))
    folder = tmp_path / "bundle"
    manifest = exporting.export_bundle(
        tiny_bundle.make(), folder, facts=tiny_bundle.FACTS, pictures=pictures, notice=notice
    )
    written = (folder / "golden/NOTICE.md").read_text(encoding="utf-8")
    assert "golden/NOTICE.md" in manifest["files"]
    for part in (*said, "Changes made", "`picture_0.png`: ", "`picture_2.png`: "):
        assert part in written
    assert "`golden/NOTICE.md` says whose" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("data", "name", "licence"),
    [
        ("{source: imagenet}", "imagenet", "non-commercial research"),
        ("{source: imagenet, variant: r}", "imagenet-r", "code MIT"),
        ("{source: coop, dataset: eurosat}", "eurosat", "MIT"),
        ("{source: karpathy, path: d/dataset_coco.json}", "coco", "captions CC BY 4.0"),
        ("{source: karpathy, path: dataset_flickr30k.json}", "flickr30k", "research and teaching"),
        ("{source: karpathy, path: dataset_mine.json}", "dataset_mine", "that of your data"),
        ("{source: coco-captions, path: captions_train2014.json}", "coco", "captions CC BY 4.0"),
        ("{source: emoji}", "radapter's built-in emoji set", "CC-BY-4.0"),
    ],
)
def test_licences_of_the_training_data(tmp_path, data, name, licence):
    found = data_licence(with_data(data, tmp_path).data)
    assert found["name"] == name
    assert licence in found["licence"]


def test_names_on_the_hub():
    assert hub_name("ViT-B-16:openai") == "timm/vit_base_patch16_clip_224.openai"
    assert hub_name("pictogram-clip") is None
    assert hub_name("ViT-B-16:random") is None
    assert hub_name("some/folder") is None
