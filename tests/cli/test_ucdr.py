"""UCDR-Adapter from two recipes to a verified bundle, scored on pictures of a third domain."""

import json

import pytest
import tiny
from PIL import Image, ImageDraw, ImageOps

from radapter.run import Run

TERMS = {"first": "[{name: class-texts}, {name: triplet}]", "second": "[{name: class-texts}]"}
METHODS = {
    "first": "{name: ucdr-prompts, context: 2, average: {momentum: 0.9, keep: last}}",
    "second": "{name: ucdr-adapter, context: 2, divisor: 4}",
}


def draw(root):
    """Three classes in three domains, eight pictures each: filled, in outline, in other colours."""
    tiny.draw_shapes(root / "filled")
    for path in sorted((root / "filled").rglob("*.png")):
        picture, name = Image.open(path), path.relative_to(root / "filled")
        edges = Image.new("RGB", picture.size, "white")
        box = (4 + len(path.stem), 5, 30, 30)
        shape = {"r": "rectangle", "b": "ellipse", "g": "line"}[path.parent.name[0]]
        getattr(ImageDraw.Draw(edges), shape)(
            box, fill=None if shape == "line" else "white", width=2
        )
        for domain, other in (("outline", edges), ("inverted", ImageOps.invert(picture))):
            (root / domain / name).parent.mkdir(parents=True, exist_ok=True)
            other.save(root / domain / name)


def source(root, *domains):
    return {"source": "domains", "root": str(root), "domains": list(domains)}


@pytest.mark.slow
def test_from_two_recipes_to_a_verified_bundle(cli, tiny_folder, tmp_path):
    root = tmp_path / "data"
    draw(root)
    sets = [{"name": "ucdr", "role": "shifted", "data": source(root, "inverted"),
             "gallery": {"data": [source(root, "filled")]}}]  # fmt: skip
    suite = {"name": "mine", "tasks": ["picture-retrieval"], "datasets": sets}
    (tmp_path / "mine.yaml").write_text(json.dumps(suite))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(tiny.text(tiny_folder, root))
    runs = []
    for phase, method in METHODS.items():
        outcome = cli(
            "train", recipe, f"name={phase}", f"method={method}", f"objective={TERMS[phase]}",
            f"data={json.dumps(source(root, 'filled', 'outline'))}", "alpha=0.9",
            f"suites=['{tmp_path / 'mine.yaml'}']", *(["start=first"] if runs else []),
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        runs += [path for path in (tmp_path / "runs").iterdir() if path.name.startswith(phase)]
    precisions = [word for name in ("fp32", "fp16", "int8") for word in ("--precision", name)]
    exported = cli("export", "--json", *precisions)
    assert exported.code == 0, exported.out + exported.err
    manifest = json.loads(exported.out)["manifest"]
    assert manifest["verified"]
    assert (manifest["method"], manifest["alpha"]) == ("ucdr-adapter", 0.9)
    assert (manifest["adapters"]["domains"], manifest["adapters"]["classes"]) == (2, 3)
    (compared,) = manifest["parity"]
    assert {row["metric"] for row in compared["verdicts"][0]["metrics"]} >= {"map", "precision_10"}
    (card,) = Run(runs[1]).path.glob("bundles/*/README.md")
    assert "each picture goes through the image tower twice" in card.read_text()
    assert cli("export").out.startswith("Up to date")

    scored = cli("eval", "--runtime", "all", "--json")
    assert scored.code == 0, scored.err
    (result,) = json.loads(scored.out)["results"]
    kinds = [model["kind"] for model in result["models"].values()]
    assert kinds == ["zero-shot", "trivial", "tuned", "engine", "engine", "engine"]
    assert [found["passed"] for found in result["parity"]] == [True, True, True]
    assert all(model["datasets"]["ucdr"]["queries"] == 24 for model in result["models"].values())
    assert cli("merge").code == 2
    for words in (
        ("runs", "show"),
        ("compare", *(run.name for run in runs)),
        ("predict", root / "inverted" / "red_square" / "00.png"),
        ("embed", root / "filled", "--out", "f.safetensors"),
        ("search", "--image", root / "inverted" / "red_square" / "00.png", "--in", "f.safetensors"),
        ("eval", "--run", runs[0], "--suite", tmp_path / "mine.yaml", "--alphas", "0:1:0.5"),
        ("report", "--out", "r.html"),
    ):
        outcome = cli(*words)
        assert outcome.code == 0, outcome.err
