"""Exported files: byte-equal, without traces of this machine, equal to the model, or not there."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import TEXT, build
from tiny_bundle import FACTS, NAMES, PROMPTS, make

import radapter.export.bundling as exporter
from radapter import bundle
from radapter.errors import GateFailed, UsageError
from radapter.export import Contents, export_bundle
from radapter.export.bundling import plan
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.pytorch import PyTorchRuntime

REPEAT = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from tiny_bundle import FACTS, NAMES, PROMPTS, make
from radapter.export import export_bundle
export_bundle(make(), sys.argv[3], facts=FACTS, classes={"names": NAMES, "prompts": PROMPTS})
"""

WITHOUT = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
sys.modules["onnxruntime"] = None
from tiny_bundle import make
from radapter.errors import MissingDependency
from radapter.export import export_bundle
try:
    export_bundle(make(), sys.argv[3], facts={})
except MissingDependency as error:
    assert 'pip install "radapter[cpu]"' in str(error)
    print("MissingDependency")
"""


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_names_shapes_and_opset(exported):
    for name, inputs, outputs in (
        (bundle.VISION, ("pixel_values", ["batch", 3, 32, 32]), ("image_embeds", ["batch", 16])),
        (bundle.TEXT, ("input_ids", ["batch", "length"]), ("text_embeds", ["batch", 16])),
    ):
        session = onnxruntime.InferenceSession(exported / name)
        assert [(i.name, i.shape) for i in session.get_inputs()] == [inputs]
        assert [(o.name, o.shape) for o in session.get_outputs()] == [outputs]
        opsets = onnx.load(exported / name).opset_import
        assert [(opset.domain, opset.version) for opset in opsets] == [("", 20)]
    assert sorted(p.name for p in (exported / "onnx").iterdir()) == [
        "text_model.onnx",
        "vision_model.onnx",
    ]


def test_the_files_hold_each_weight_once(exported, tiny):
    weights = sum(p.numel() for p in tiny.model.visual.parameters()) * 4
    assert weights < (exported / bundle.VISION).stat().st_size < 1.3 * weights + 100_000


def test_no_trace_of_this_machine(exported):
    root = Path(exporter.__file__).parents[2]
    traces = [str(root), sysconfig.get_paths()["purelib"], str(exported.parent), "site-packages"]
    traces += ["stack_trace", "radapter/", "torch/", "encode_image", sys.prefix]
    for path in exported.rglob("*"):
        # the vocabulary is full of words, and the manifest names what it is not silent about
        if path.is_file() and path.name != "tokenizer.json":
            content = path.read_bytes()
            assert [trace for trace in traces if trace.encode() in content] == []


def test_verification_is_in_the_manifest(exported):
    manifest = bundle.read_manifest(exported)
    assert manifest["verification"]["batches"] == [1, 2, 5, 32]
    lengths = manifest["verification"]["text_lengths"]
    assert lengths[0] < 20
    assert lengths[-1] == TEXT["context_length"]
    assert list(manifest["models"]) == [bundle.VISION, bundle.TEXT]
    for figures in manifest["models"].values():
        assert 0.999999 < figures["worst_cosine"] <= 1
        assert 0 < figures["max_abs_difference"] < 1e-5


@pytest.mark.slow
def test_two_exports_are_byte_equal(exported, tmp_path):
    tests, root = Path(__file__).parents[1], Path(exporter.__file__).parents[2]
    command = [sys.executable, "-c", REPEAT, str(tests), str(root), str(tmp_path / "again")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, cwd=tmp_path)
    assert hashes(tmp_path / "again") == hashes(exported)


@pytest.mark.slow
def test_the_model_is_left_as_it_was_and_nothing_is_printed(tmp_path, capfd, caplog):
    """A ResNet: its batch norms would change if it were ever run in training mode."""
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
    loaded = build(vision=vision)
    model = loaded.model.train()
    model.transformer.eval()
    hook = model.visual.register_forward_hook(lambda *args: None)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    export_bundle(loaded, tmp_path / "bundle", facts={"base_model": str(tmp_path / "base")})
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    assert [module.training for module in model.modules()] == modes
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert list(model.visual._forward_hooks) == [hook.id]
    # exported from training mode all the same, and no class files without classes
    manifest = bundle.verify(tmp_path / "bundle")
    assert manifest["base_model"] == "base"
    assert bundle.CLASSES not in manifest["files"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [{"no_causal_mask": True}, {"pool_type": "eos", "eos_id": 49407}],
    ids=["bidirectional", "end-token"],
)
def test_other_text_towers(tmp_path, text):
    """Where padding counts, the length is fixed, and the runtime pads what is shorter."""
    loaded = make(custom=True, context_length=12, **text)
    manifest = export_bundle(loaded, tmp_path / "bundle", facts=FACTS)
    assert manifest["text_length"] == ("dynamic" if "eos_id" in text else "fixed")
    engine = OnnxRuntime(tmp_path / "bundle")
    for batch in (1, 4):
        tokens = loaded.tokenizer(["a cat", "two dogs", "a bird", "one"][:batch])
        expected = PyTorchRuntime(loaded).encode_text(tokens)
        torch.testing.assert_close(engine.encode_text(tokens), expected, atol=2e-6, rtol=0)
        cut = engine.encode_text(tokens[:, :6])
        torch.testing.assert_close(cut, expected, atol=2e-6, rtol=0)


@pytest.fixture
def no_export(exported, monkeypatch):
    """Spare the time of exporting: take the files of the bundle that the same model made."""
    monkeypatch.setattr(
        exporter,
        "export_towers",
        lambda model, folder, *args, **kwargs: shutil.copytree(
            exported / "onnx", folder / "onnx", dirs_exist_ok=True
        ),
    )


def test_disagreement_is_a_failed_gate_and_leaves_nothing(tmp_path, no_export):
    export_bundle(make(), tmp_path / "good", facts=FACTS)
    other = make()
    with torch.no_grad():
        other.model.text_projection.add_(torch.randn(16, 16))
    with pytest.raises(GateFailed, match=r"onnx/text_model\.onnx does not agree"):
        export_bundle(other, tmp_path / "bad", facts=FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_a_failed_export_leaves_the_old_bundle(tmp_path, no_export):
    export_bundle(make(), tmp_path / "bundle", facts=FACTS)
    before = hashes(tmp_path / "bundle")
    with pytest.raises(GateFailed):
        export_bundle(make(seed=1), tmp_path / "bundle", facts=FACTS)
    assert hashes(tmp_path / "bundle") == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08\x0a"])
def test_a_file_that_does_not_run_is_a_failed_gate(tmp_path, monkeypatch, content):
    def damaged(model, folder, *args, **kwargs):
        (folder / bundle.VISION).write_bytes(content)

    monkeypatch.setattr(exporter, "export_towers", damaged)
    with pytest.raises(GateFailed, match="onnxruntime cannot run the exported files"):
        export_bundle(make(), tmp_path / "bundle", facts=FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_onnxruntime_the_line_to_type_comes_first(tmp_path):
    """A process in which onnxruntime is not installed: everything imports, exporting says so."""
    tests, root = Path(__file__).parents[1], Path(exporter.__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT, str(tests), str(root), str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "MissingDependency", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_opset_that_makes_invalid_files_is_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="18 to 25"):
        export_bundle(tiny, tmp_path / "bundle", Contents(opset=26), facts=FACTS)


def test_the_plan_names_what_is_written(exported, tiny):
    planned = plan(tiny, {"names": NAMES, "prompts": PROMPTS})
    written = {p.relative_to(exported).as_posix(): p.stat().st_size for p in exported.rglob("*")}
    files = {name for name in written if (exported / name).is_file()}
    assert set(planned) == files
    for name in (bundle.VISION, bundle.TEXT, "tokenizer.json"):
        assert planned[name] == pytest.approx(written[name], rel=0.5)
    assert planned[bundle.TEXT] == pytest.approx(written[bundle.TEXT], rel=0.05)


def test_given_features_are_used(tiny):
    features = np.array([[3.0, 4.0] + [0.0] * 14])
    result = exporter.class_features(tiny, {"names": ["a"], "features": features})
    np.testing.assert_allclose(result[0, :2], [0.6, 0.8], rtol=1e-6)


def test_classes_are_encoded_many_prompts_at_a_time(tiny, monkeypatch):
    """A thousand classes with eighty prompts each would be as many calls otherwise."""
    sizes = []
    encode = PyTorchRuntime.encode_text

    def counted(self, tokens):
        sizes.append(len(tokens))
        return encode(self, tokens)

    monkeypatch.setattr(PyTorchRuntime, "encode_text", counted)
    names = [f"thing {number}" for number in range(150)]
    prompts = [
        [f"a photo of {name}", f"a drawing of {name}"][: 1 + i % 2] for i, name in enumerate(names)
    ]
    found = exporter.class_features(tiny, {"names": names, "prompts": prompts})
    assert sizes == [225]
    with torch.no_grad():
        for row, texts in zip(found[::37], prompts[::37], strict=True):
            features = tiny.model.encode_text(tiny.tokenizer(texts))
            mean = (features / features.norm(dim=1, keepdim=True)).mean(0)
            torch.testing.assert_close(row, mean / mean.norm(), atol=2e-6, rtol=0)


def test_classes_and_the_reference_are_computed_on_the_device_asked_for(tiny, monkeypatch):
    asked = []
    init = PyTorchRuntime.__init__

    def recorded(self, loaded, device="cpu", precision="fp32"):
        asked.append(device)
        init(self, loaded, "cpu", precision)

    monkeypatch.setattr(PyTorchRuntime, "__init__", recorded)
    exporter.class_features(tiny, {"names": ["a"]}, "cuda")
    assert asked == ["cuda"]
