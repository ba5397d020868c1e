"""The tower of queries: its file beside PyTorch, searching with it, and a suite on both."""

import functools
import json
import runpy
import sys

import numpy as np
import pytest
import tiny
import torch
from tiny_bundle import FACTS

from radapter import bundle, registry
from radapter.benchmarking import Settings, bench
from radapter.data.pictures import open_pictures
from radapter.errors import BrokenInput
from radapter.evaluation.suite import Suite
from radapter.export import Contents, export_bundle, gate
from radapter.inference import embed, open_model, search
from radapter.inference.searching import check_model, query_of
from radapter.models.queries import asked
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.opened import from_loaded, open_bundle
from radapter.runtimes.pytorch import PyTorchRuntime

pytestmark = pytest.mark.slow  # they export
EMOJI = {"source": "emoji-edits", "styles": ["twemoji"], "kinds": ["colour", "clock"]}


@functools.cache
def samples():
    sets = [{"name": "emoji", "role": "seen", "data": EMOJI}]
    suite = Suite.model_validate({"name": "s", "tasks": ["composed"], "datasets": sets})
    return [(suite, gate._sampled(suite.open(), 30, 0))]


def inverting(method="inversion", **settings):
    loaded = tiny.build()
    torch.manual_seed(2)
    attach = registry.load(registry.METHODS, method).attach
    attach(loaded.model, template="$ {}", **settings)
    loaded.model.eval().requires_grad_(False)
    return loaded


@pytest.fixture(scope="module", params=["inversion", "mota"])
def written(request, tmp_path_factory):
    loaded, folder = inverting(request.param), tmp_path_factory.mktemp("queries") / "bundle"
    loose = ["int8.cosine=0", "int8.metric=1", "fp16.metric=1"]  # weights are random
    check = functools.partial(gate.run_gate, loaded, samples(), loose, None)
    contents = Contents(precisions=("fp32", "fp16", "int8"), tolerances=loose)
    facts = {**FACTS, "base_hash": tiny.build().weights_hash}
    manifest = export_bundle(loaded, folder, contents, facts=facts)
    return loaded, folder, manifest, check


def test_the_file_gives_what_pytorch_gives(written, monkeypatch):
    loaded, folder, manifest, _ = written
    files = [bundle.in_precision(bundle.QUERY, p) for p in ("fp32", "fp16")]
    assert [manifest["models"][file]["for"] for file in files] == [["onnxruntime"]] * 2
    assert manifest["models"][files[0]]["worst_cosine"] > 0.99999
    template = loaded.model.inversion.template
    assert template in ("$ {}", "$ $ $ $ $ {}")  # with prompts before it
    assert manifest["query"] == {"template": template, "place": "$", "token": 259}
    assert "query_embeds" in (folder / bundle.CARD).read_text()
    pixels, _ = tiny.batch(loaded)
    ids = loaded.tokenize([asked(template, text) for text in ("a", "in a very blue sea", "$")])
    wanted = PyTorchRuntime(loaded).encode_query(pixels, ids)
    for precision, off in (("fp32", 1e-5), ("fp16", 1e-2)):
        runtime = OnnxRuntime(folder, precision=precision)
        assert (runtime.encode_query(pixels, ids) - wanted).abs().max() < off
    assert not OnnxRuntime(folder, precision="int8").makes_queries
    assert not open_bundle(folder).lacks_query
    monkeypatch.setattr(OnnxRuntime, "makes_queries", False)
    assert open_bundle(folder).lacks_query


def test_a_suite_has_a_row_of_it_and_the_gate_compares_it(written):
    _, folder, _, check = written
    (found,) = check(folder)
    metrics = {row["label"]: {m["metric"] for m in row["metrics"]} for row in found["verdicts"]}
    assert "query_r1" in metrics["onnx"]
    assert "query_r1" not in metrics["onnx int8"]


def test_an_index_of_the_base_model_is_searched_by_picture_and_text(
    written, tmp_path, monkeypatch, capsys
):
    """Features of pictures are the base model's, bit for bit; the example ranks alike."""
    loaded, folder, _, _ = written
    photos = tiny.draw_shapes(tmp_path / "photos", each=3)
    base = from_loaded(tiny.build())
    for name, model in {"base": base, "tuned": from_loaded(loaded)}.items():
        embed(model, open_pictures(photos), tmp_path / name)
    one, two = ((tmp_path / name) for name in ("base", "tuned"))
    opened = open_model(folder)
    assert opened.pictures_as == base.weights_hash
    check_model(one, opened, pictures=True)
    with pytest.raises(BrokenInput, match="another model"):
        check_model(two, base, pictures=True)
    reference = photos / "red_square" / "01.png"
    query = query_of(opened, "in blue", reference)
    pixels = loaded.preprocess(open_pictures(reference).read(0))[None]
    wanted = PyTorchRuntime(loaded).encode_query(
        pixels, loaded.tokenize([asked(opened.query, "in blue")])
    )[0]
    torch.testing.assert_close(query, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(query, query_of(opened, "in blue", reference, 0.5), atol=1e-2)
    found = search(one, query, top=9)
    assert [name for name, _ in found] == [name for name, _ in search(two, query, top=9)]

    example = str(tiny.Path(__file__).parents[2] / "examples" / "search_composed.py")
    monkeypatch.syspath_prepend(str(tiny.Path(example).parent))
    monkeypatch.setattr(sys, "argv", [example, str(folder), str(photos), str(reference), "in blue"])
    runpy.run_path(example, run_name="__main__")
    said = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cosines = {tiny.Path(path).relative_to(photos).as_posix(): float(c) for c, path in said}
    assert cosines == pytest.approx(dict(found), abs=2e-3)
    np.testing.assert_array_equal(sorted(cosines), sorted(dict(found)))
    assert json.loads((folder / bundle.MANIFEST).read_text())["query"]["place"] == "$"


def test_bench_measures_queries_too(written):
    _, folder, _, _ = written
    settings = Settings(["torch", "onnx"], ["fp32"], (2,), rounds=1, seconds=0.0, text_length=9)
    result = bench(folder, settings)
    assert [case["tower"] for case in result["cases"]] == ["pictures", "texts", "queries"]
    assert [item["runtime"] for item in result["left_out"]] == ["torch"]
