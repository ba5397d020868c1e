"""The Triton repository, checked against the model files. No Triton runs here: its configuration is
parsed with the part of Triton's own schema that it uses, by names and numbers of fields."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import TensorProto, external_data_helper
from tiny_bundle import FACTS, make

from radapter import bundle
from radapter.errors import BrokenInput, UsageError
from radapter.export import Contents, export_bundle, triton
from radapter.export.triton import write_repository
from radapter.files import file_hash

pytestmark = pytest.mark.slow  # they export

# From model_config.proto of triton-inference-server/common.
ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_INT32": 8, "TYPE_INT64": 9,
                 "TYPE_FP16": 10, "TYPE_FP32": 11},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2},
}  # fmt: skip
MESSAGES = {
    "ModelInput": [("name", 1, "string"), ("data_type", 2, "DataType"), ("dims", 4, "int64*")],
    "ModelOutput": [("name", 1, "string"), ("data_type", 2, "DataType"), ("dims", 3, "int64*")],
    "ModelDynamicBatching": [("preferred_batch_size", 1, "int32*"),
                             ("max_queue_delay_microseconds", 2, "uint64")],
    "Graph": [("level", 1, "int32")],
    "ModelOptimizationPolicy": [("graph", 1, "Graph")],
    "ModelInstanceGroup": [("count", 2, "int32"), ("kind", 4, "Kind")],
    "ModelParameter": [("string_value", 1, "string")],
    "ParametersEntry": [("key", 1, "string"), ("value", 2, "ModelParameter")],
    "ModelConfig": [("name", 1, "string"), ("max_batch_size", 4, "int32"),
                    ("input", 5, "ModelInput*"), ("output", 6, "ModelOutput*"),
                    ("instance_group", 7, "ModelInstanceGroup*"),
                    ("dynamic_batching", 11, "ModelDynamicBatching"),
                    ("optimization", 12, "ModelOptimizationPolicy"),
                    ("parameters", 14, "ParametersEntry*"), ("backend", 17, "string")],
}  # fmt: skip
NUMPY = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}


def schema():
    file = descriptor_pb2.FileDescriptorProto(name="part.proto", package="t", syntax="proto3")
    scalars = {"string": 9, "int64": 3, "int32": 5, "uint64": 4}
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            own = message.field.add(name=field, number=number, label=3 if repeated else 1)
            own.type = scalars.get(kind) or (14 if kind in ENUMS else 11)
            if kind not in scalars:
                own.type_name = f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))


def parse(place):
    return text_format.Parse((place / "config.pbtxt").read_text(), schema()())


def type_name(tensor):
    names = {value: name for name, value in ENUMS["DataType"].items()}
    return names[tensor.data_type]


def test_a_wrong_field_does_not_pass():
    with pytest.raises(text_format.ParseError, match="max_batch"):
        text_format.Parse("max_batch: 3", schema()())


def test_both_towers_with_the_shapes_of_their_files(exported, tmp_path):
    models = write_repository(exported, tmp_path / "repository", "tiny")
    assert [place.name for place in models] == ["tiny_vision", "tiny_text"]
    manifest = bundle.read_manifest(exported)
    for place, file in zip(models, (bundle.VISION, bundle.TEXT), strict=True):
        assert sorted(p.name for p in place.iterdir()) == ["1", "config.pbtxt"]
        assert [p.name for p in (place / "1").iterdir()] == ["model.onnx"]
        assert file_hash(place / "1" / "model.onnx") == manifest["files"][file]
        config = parse(place)
        assert (config.name, config.backend) == (place.name, "onnxruntime")
        assert config.max_batch_size == manifest["max_batch"] == 32
        assert config.dynamic_batching.max_queue_delay_microseconds > 0
        assert not config.HasField("optimization")
        assert config.parameters[0].value.string_value == manifest["weights_hash"]
        session = onnxruntime.InferenceSession(place / "1" / "model.onnx")
        for ours, theirs in (
            (config.input, session.get_inputs()),
            (config.output, session.get_outputs()),
        ):
            assert [tensor.name for tensor in ours] == [tensor.name for tensor in theirs]
            for tensor, real in zip(ours, theirs, strict=True):
                sizes = [-1 if isinstance(size, str) else size for size in real.shape]
                assert [-1, *tensor.dims] == sizes  # Triton adds the batch axis itself
                assert {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}[
                    type_name(tensor)
                ] == real.type


@pytest.mark.parametrize("batch", [1, 32])
def test_a_request_as_the_configuration_says_runs(exported, tmp_path, batch):
    """What Triton would hand over, from the configuration alone."""
    for place in write_repository(exported, tmp_path, "tiny"):
        config = parse(place)
        (tensor,) = config.input
        shape = [batch, *(9 if size == -1 else size for size in tensor.dims)]
        value = np.ones(shape, dtype=NUMPY[type_name(tensor)])
        session = onnxruntime.InferenceSession(place / "1" / "model.onnx")
        (output,) = session.run([config.output[0].name], {tensor.name: value})
        assert output.shape == (batch, *config.output[0].dims)
        assert output.dtype == NUMPY[type_name(config.output[0])]


def test_other_models_are_left_alone(exported, tmp_path):
    (tmp_path / "other" / "1").mkdir(parents=True)
    first = write_repository(exported, tmp_path, "tiny")
    (first[0] / "1" / "model.onnx").write_bytes(b"old")
    write_repository(exported, tmp_path, "tiny")
    assert onnx.load(first[0] / "1" / "model.onnx").graph.node
    assert (tmp_path / "other" / "1").is_dir()
    (first[1] / "config.pbtxt").write_text('name: "someone else\'s"')
    with pytest.raises(UsageError, match="tiny_text is not a folder that radapter wrote"):
        write_repository(exported, tmp_path, "tiny")
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".old"))]


def test_other_precisions(tmp_path):
    """fp16 without the optimizer that crashes on it; int8, whose operators are the CPU's, there."""
    export_bundle(make(), tmp_path / "bundle", Contents(["fp16", "int8"]), facts=FACTS)
    for precision in (None, "int8"):
        for place in write_repository(tmp_path / "bundle", tmp_path / "r", "x", precision):
            config = parse(place)
            assert config.optimization.graph.level == (0 if precision else 1)
            kinds = [group.kind for group in config.instance_group]
            assert kinds == ([ENUMS["Kind"]["KIND_CPU"]] if precision else [])
            assert [type_name(t) for t in config.output] == ["TYPE_FP32"]
    with pytest.raises(UsageError, match="no fp32, only fp16, int8"):
        write_repository(tmp_path / "bundle", tmp_path / "r", "x", "fp32")


def test_weights_that_are_kept_apart_come_along(bundle_copy, tmp_path):
    path = bundle_copy / bundle.VISION
    model = onnx.load(path)
    external_data_helper.convert_model_to_external_data(model, location="vision_model.onnx.data")
    onnx.save(model, path)
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    for name in (bundle.VISION, f"{bundle.VISION}.data"):
        manifest["files"][name] = file_hash(bundle_copy / name)
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    vision, _ = write_repository(bundle_copy, tmp_path / "r", "tiny")
    assert (vision / "1" / "vision_model.onnx.data").stat().st_size > 10_000
    session = onnxruntime.InferenceSession(vision / "1" / "model.onnx")
    assert session.run(None, {"pixel_values": np.ones((2, 3, 32, 32), np.float32)})[0].shape[0] == 2


def test_a_file_with_a_fixed_batch_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    other = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = onnx.helper.make_graph([node], "g", [value], [other])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(BrokenInput, match="x has no free batch axis"):
        triton.config_text(tmp_path / "m.onnx", "m", {"max_batch": 1, "weights_hash": "0"})
