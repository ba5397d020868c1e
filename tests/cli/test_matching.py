"""UniAdapter with its multimodal branch, from training to a bundle and re-ranked captions."""

import json
from pathlib import Path

import pytest
import trees

from radapter import bundle
from radapter.run import Run

pytestmark = pytest.mark.slow  # they train and export


@pytest.fixture
def trained(cli, coca_folder, tmp_path):
    for name, tree in (("coco", trees.coco), ("flickr30k", trees.flickr30k)):
        trees.distinct_captions(tree(tmp_path / "data" / name))
    small = (
        f"model={coca_folder}", "device=cpu", "workers=0", "precision=fp32", "method.rank=4",
        "method.scale=1.0", "optimisation={lr: 1e-2, batch_size: 12, epochs: 2}",
        "--data-root", tmp_path / "data",
    )  # fmt: skip
    outcome = cli("train", "uniadapter-coca-flickr30k", *small, "--json")
    assert outcome.code == 0, outcome.err
    return Run(Path(json.loads(outcome.out)["run"]))


def test_from_training_to_re_ranked_captions(cli, trained):
    assert all(line["loss"] > 0 for line in trained.logged("loss"))
    merged = cli("merge")
    assert merged.code == 2
    assert "What uniadapter trains does not fold into plain weights" in merged.err
    refused = cli("export", "--checkpoint", "open_clip")
    assert refused.code == 2
    exported = cli("export", "--precision", "fp32", "--precision", "fp16", "--json")
    assert exported.code == 0, exported.out
    manifest = json.loads(exported.out)["manifest"]
    assert bundle.MATCHING in manifest["files"]
    assert manifest["verified"]
    assert manifest["adapters"]["multimodal"] is True
    metrics = {row["metric"] for own in manifest["parity"][0]["verdicts"] for row in own["metrics"]}
    assert "text_to_image_r1" in metrics
    assert not [name for name in metrics if "reranked" in name]  # the file is compared by itself

    scored = cli("eval", "--json")
    assert scored.code == 0, scored.err
    (result,) = json.loads(scored.out)["results"]
    assert [verdict["passed"] for verdict in result["parity"]] == [True, True]
    own = result["models"]["alpha 1.00"]["datasets"]
    assert {name: facts["reranked"]["top"] for name, facts in own.items()} == {
        "flickr30k": 128, "coco": 256,
    }  # fmt: skip
    assert "text_to_image_reranked_r1" in own["coco"]
    for label in ("zero-shot", "onnx", "onnx fp16"):
        for facts in result["models"][label]["datasets"].values():
            assert "reranked" not in facts
    shown = cli("eval", "--runtime", "torch")
    assert "re-ranked" in shown.out
    assert "pairs of a picture and a text" in " ".join(shown.out.split())

    plain = cli("eval", "--no-rerank", "--runtime", "torch", "--json")
    (without,) = json.loads(plain.out)["results"]
    assert without["file"].endswith("retrieval-no-rerank-alpha-1.00-torch.json")
    theirs = without["models"]["alpha 1.00"]["datasets"]
    assert "reranked" not in theirs["coco"]
    assert theirs["coco"]["text_to_image_r1"] == own["coco"]["text_to_image_r1"]
    curve = cli("eval", "--alphas", "0:1:0.5", "--json")
    (over,) = json.loads(curve.out)["results"]
    assert "reranked" not in json.dumps(over["points"])
    for words in (("compare", trained.name), ("report", "--out", "r.html")):
        outcome = cli(*words)
        assert outcome.code == 0, outcome.err


def test_a_two_tower_model_is_refused_in_a_sentence(cli, tiny_folder, tmp_path):
    trees.flickr30k(tmp_path / "data" / "flickr30k")
    small = (f"model={tiny_folder}", "--data-root", tmp_path / "data", "--dry-run")
    outcome = cli("train", "uniadapter-coca-flickr30k", *small)
    assert outcome.code == 2
    assert (
        "method.multimodal needs a text decoder with cross-attention, as CoCa has one, and this "
        "model has none: set method.multimodal=false."
    ) in " ".join(outcome.err.split())
