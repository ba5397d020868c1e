"""Further precisions and files of a bundle: each is the model, to its precision."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import parser
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny import draw_shapes
from tiny_bundle import FACTS, NAMES, make

from radapter import bundle
from radapter.data import open_data
from radapter.errors import GateFailed, UsageError
from radapter.export import Contents, Sample, cases, export_bundle, graphs, training_sample
from radapter.export.bundling import plan
from radapter.recipe import parse
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.pytorch import PyTorchRuntime

pytestmark = pytest.mark.slow  # they export

HEAD = {"names": ["cat", "dog"], "prompts": [["a cat"], ["a dog", "two dogs"]]}


def pictures(n: int = 12, size: tuple[int, int] = (70, 50)) -> list[Image.Image]:
    """Smooth pictures, wider than high."""
    noise = np.random.default_rng(1).integers(0, 256, (n, 6, 8, 3), dtype=np.uint8)
    return [Image.fromarray(x).resize(size, Image.Resampling.BICUBIC) for x in noise]


SAMPLE = Sample(pictures(), [f"a photo of {i} things" for i in range(12)])


@pytest.fixture(scope="module")
def loaded():
    return make()


@pytest.fixture(scope="module")
def everything(loaded, tmp_path_factory) -> Path:
    """A bundle with every file there is, for reading only."""
    folder = tmp_path_factory.mktemp("precisions") / "bundle"
    export_bundle(
        loaded,
        folder,
        Contents(["fp32", "fp16", "int8"], classifier=HEAD, from_bytes=True, max_batch=7),
        facts=FACTS,
        classes={"names": NAMES},
        sample=SAMPLE,
    )
    return folder


def session(path: Path) -> onnxruntime.InferenceSession:
    disabled = ["NchwcTransformer"] if "_fp16" in path.name else []
    return onnxruntime.InferenceSession(path, disabled_optimizers=disabled)


@pytest.mark.slow
def test_the_manifest_says_which_file_is_for_which_runtime(everything):
    manifest = bundle.verify(everything)
    assert manifest["precisions"] == ["fp32", "fp16", "int8"]
    assert manifest["verification"]["batches"] == [1, 2, 5, 7]
    assert manifest["classifier"] == ["cat", "dog"]
    assert {file: (m["precision"], m["for"]) for file, m in manifest["models"].items()} == {
        "onnx/vision_model.onnx": ("fp32", ["onnxruntime", "tensorrt"]),
        "onnx/text_model.onnx": ("fp32", ["onnxruntime", "tensorrt"]),
        "onnx/vision_model_fp16.onnx": ("fp16", ["onnxruntime", "tensorrt"]),
        "onnx/text_model_fp16.onnx": ("fp16", ["onnxruntime", "tensorrt"]),
        "onnx/vision_model_int8.onnx": ("int8", ["onnxruntime"]),
        "onnx/text_model_int8.onnx": ("int8", ["onnxruntime"]),
        "tensorrt/vision_model_qdq.onnx": ("int8-qdq", ["tensorrt"]),
        "tensorrt/text_model_qdq.onnx": ("int8-qdq", ["tensorrt"]),
        "onnx/vision_model_from_bytes.onnx": ("fp32", ["onnxruntime"]),
        "onnx/classifier.onnx": ("fp32", ["onnxruntime"]),
        "onnx/vision_model_from_bytes_fp16.onnx": ("fp16", ["onnxruntime"]),
        "onnx/classifier_fp16.onnx": ("fp16", ["onnxruntime"]),
        "onnx/vision_model_from_bytes_int8.onnx": ("int8", ["onnxruntime"]),
        "onnx/classifier_int8.onnx": ("int8", ["onnxruntime"]),
    }
    written = {p.relative_to(everything).as_posix() for p in everything.rglob("*.onnx")}
    assert written == set(manifest["models"])


@pytest.mark.slow
def test_the_plan_names_every_file(everything, loaded):
    files = {
        p.relative_to(everything).as_posix(): p.stat().st_size
        for p in everything.rglob("*")
        if p.is_file()
    }
    precisions = ["fp32", "fp16", "int8"]
    planned = plan(loaded, {"names": NAMES}, Contents(precisions, classifier=HEAD, from_bytes=True))
    assert set(planned) == set(files)
    for file in (bundle.TEXT, bundle.in_precision(bundle.TEXT, "fp16")):
        assert planned[file] == pytest.approx(files[file], rel=0.1)
    int8 = bundle.in_precision(bundle.TEXT, "int8")
    assert planned[int8] == pytest.approx(files[int8], rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "cosine"), [("fp16", 0.99999), ("int8", 0.998)])
def test_features_in_a_precision(everything, loaded, precision, cosine):
    engine, reference = OnnxRuntime(everything, precision=precision), PyTorchRuntime(loaded)
    assert engine.precision == precision
    pixels = torch.stack([loaded.preprocess(p) for p in pictures(3)])
    tokens = loaded.tokenizer(["a cat", "two dogs"])[:, :8]
    for ours, theirs in (
        (engine.encode_image(pixels), reference.encode_image(pixels)),
        (engine.encode_text(tokens), reference.encode_text(tokens)),
    ):
        assert (ours * theirs).sum(1).min() > cosine
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(ours)), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_half_precision_keeps_layer_norm_and_the_ends_in_fp32(everything):
    model = onnx.load(everything / "onnx/vision_model_fp16.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert norms
    assert {types[node.input[1]] for node in norms} == {onnx.TensorProto.FLOAT}
    weights = [t for t in model.graph.initializer if len(t.dims) == 2 and min(t.dims) > 8]
    assert weights
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert ends == [onnx.TensorProto.FLOAT] * 2


@pytest.mark.slow
def test_int8_leaves_convolutions_and_tokens_alone(everything):
    for file in ("onnx/vision_model_int8.onnx", "tensorrt/vision_model_qdq.onnx"):
        operators = {node.op_type for node in onnx.load(everything / file).graph.node}
        assert "Conv" in operators
        assert not operators & {"ConvInteger", "QLinearConv"}
    quantized = {"DynamicQuantizeLinear", "MatMulInteger"}
    for tower in ("vision", "text"):
        dynamic = onnx.load(everything / f"onnx/{tower}_model_int8.onnx").graph
        static = onnx.load(everything / f"tensorrt/{tower}_model_qdq.onnx").graph
        assert quantized <= {node.op_type for node in dynamic.node}
        weights = {node.input[1] for node in dynamic.node if node.op_type == "MatMulInteger"}
        types = {t.data_type for t in dynamic.initializer if t.name in weights}
        assert types == {onnx.TensorProto.UINT8}  # signed ones overflow without VNNI
        operators = {node.op_type for node in static.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators
        assert not quantized & operators
        zeros = [t for t in static.initializer if t.name.endswith("zero_point")]
        assert zeros
        for tensor in zeros:
            assert tensor.data_type == onnx.TensorProto.INT8
            assert not onnx.numpy_helper.to_array(tensor).any()  # symmetric


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_bytes_in_probabilities_out(everything, loaded, precision):
    """Against open_clip's own preprocessing, in other sizes than the export's."""
    reference = PyTorchRuntime(loaded)
    prompts = [reference.encode_text(loaded.tokenizer(texts)).mean(0) for texts in HEAD["prompts"]]
    head = torch.nn.functional.normalize(torch.stack(prompts), dim=-1)
    tolerance = {"fp32": 5e-3, "fp16": 6e-3, "int8": 3e-2}[precision]
    tower = session(everything / bundle.in_precision(bundle.FROM_BYTES, precision))
    classifier = session(everything / bundle.in_precision(bundle.CLASSIFIER, precision))
    for size in ((70, 50), (33, 101), (32, 32), (20, 20), (321, 45)):
        drawn = pictures(3, size)
        pixels = np.stack([np.asarray(picture) for picture in drawn])
        features = reference.encode_image(torch.stack([loaded.preprocess(p) for p in drawn]))
        (got,) = tower.run(None, {"pixels": pixels})
        np.testing.assert_allclose(got, features, atol=tolerance)
        (got,) = classifier.run(None, {"pixels": pixels})
        expected = (reference.logit_scale * features @ head.T).softmax(dim=1)
        np.testing.assert_allclose(got, expected, atol=5 * tolerance)
        np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_example_checks_the_golden_files_of_a_precision(everything, precision):
    example = Path(__file__).parents[2] / "examples" / "check_bundle.py"
    command = [sys.executable, str(example), str(everything), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("worst cosine 0.99") == 2


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_the_graph_prepares_pictures_as_open_clip_does(tmp_path, resize_mode, interpolation):
    """To a level of 255 or two: it rounds as Pillow does, except where Pillow's sums do."""
    tower = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[b, 3, 32, 32] pixel_values)'
        " => (float[b, 3, 32, 32] image_embeds) {image_embeds = Identity (pixel_values)}"
    )
    onnx.save(tower, tmp_path / "tower.onnx")
    cfg = {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    cfg |= {"resize_mode": resize_mode, "interpolation": interpolation}
    graphs.from_bytes(tmp_path / "tower.onnx", tmp_path / "bytes.onnx", cfg)
    prepare = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    for size in ((90, 41), (20, 31), (64, 65)):
        drawn = pictures(2, size)
        expected = torch.stack([prepare(picture) for picture in drawn])
        pixels = np.stack([np.asarray(picture) for picture in drawn])
        (got,) = session(tmp_path / "bytes.onnx").run(None, {"pixels": pixels})
        levels = np.abs(got - expected.numpy()) * 0.2 * 255
        assert levels.max() < 2.01
        assert levels.mean() < 0.05


def test_preprocessing_that_has_no_graph(tmp_path):
    for change in ({"resize_mode": "longest"}, {"size": (32, 48)}):
        cfg = {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3} | change
        with pytest.raises(UsageError, match="--input uint8"):
            graphs.from_bytes(tmp_path / "none", tmp_path / "bytes", cfg)


@pytest.mark.slow
def test_int8_alone_and_without_training_data(tmp_path):
    manifest = export_bundle(make(), tmp_path / "bundle", Contents(["int8"]), facts=FACTS)
    assert list(manifest["models"]) == ["onnx/vision_model_int8.onnx", "onnx/text_model_int8.onnx"]
    written = sorted(p.name for p in (tmp_path / "bundle").rglob("*.onnx"))
    assert written == ["text_model_int8.onnx", "vision_model_int8.onnx"]
    assert OnnxRuntime(tmp_path / "bundle").precision == "int8"
    with pytest.raises(UsageError, match="has no fp32, only int8"):
        OnnxRuntime(tmp_path / "bundle", precision="fp32")


@pytest.mark.parametrize("precisions", [[], ["fp8"], ["fp32", "fp32"]])
def test_precisions_that_are_not_there(tmp_path, precisions):
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        export_bundle(make(), tmp_path / "bundle", Contents(precisions), facts=FACTS)


def test_a_file_below_the_tolerance_of_its_precision():
    figures = {"worst_cosine": 0.999, "max_abs_difference": 0.01}
    cases.check_agreement("a.onnx", "int8", figures)
    for precision in ("fp32", "fp16"):
        with pytest.raises(GateFailed, match=r"a\.onnx does not agree"):
            cases.check_agreement("a.onnx", precision, figures)


@pytest.mark.slow
def test_two_exports_are_byte_equal(everything, loaded, tmp_path):
    """The second with a class that has the name of another, which is no further answer."""
    twice = {key: [*of, of[0]] for key, of in HEAD.items()}
    export_bundle(
        loaded,
        tmp_path / "again",
        Contents(["fp32", "fp16", "int8"], classifier=twice, from_bytes=True, max_batch=7),
        facts=FACTS,
        classes={"names": [*NAMES, NAMES[1]]},
        sample=SAMPLE,
    )
    assert bundle.read_classes(tmp_path / "again")[0] == NAMES
    for path in everything.rglob("*.onnx"):
        other = tmp_path / "again" / path.relative_to(everything)
        ours, theirs = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, other))
        assert ours == theirs, path.name


def test_the_sample_is_drawn_from_training_data(tmp_path):
    root = draw_shapes(tmp_path / "shapes")
    (root / sorted(p.name for p in root.iterdir())[0] / "0.png").write_bytes(b"broken")
    recipe = parse(
        f"name: a\nmodel: none\nmethod: {{name: full}}\n"
        f"data: {{source: folder, root: {root}, hold_out: 0.3, templates: ['a drawn {{}}.']}}\n"
    )
    first, again = training_sample(recipe, 5), training_sample(recipe, 5)
    assert len(first.pictures) == len(first.texts) == 5
    assert first.texts == again.texts
    assert all(text.startswith("a drawn ") for text in first.texts)
    every = training_sample(recipe, 1000)
    assert 0 < len(every.pictures) <= len(open_data(recipe.data)) < 24
