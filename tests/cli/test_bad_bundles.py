"""Bundles that are damaged, newer or made to reach elsewhere: exit 4, and nothing is run."""

import errno
import json
import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tiny_bundle import bundle_copy, exported, tiny  # noqa: F401 - fixtures

from radapter import bundle
from radapter.errors import BrokenInput
from radapter.export.trt.build import read_graph
from radapter.files import file_hash

pytestmark = pytest.mark.slow  # they export


@pytest.fixture
def refused(cli, bundle_copy, shapes, monkeypatch):  # noqa: F811
    """That every command which takes a bundle refuses it, before any session is made."""
    import onnxruntime

    made = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: made.append(a))

    def refused(*parts):
        for command in (
            ("predict", shapes, "--model", bundle_copy),
            ("embed", shapes, "--out", "f.safetensors", "--model", bundle_copy),
        ):
            outcome = cli(*command)
            assert outcome.code == 4, outcome.err
            text = " ".join(outcome.err.split())
            for part in parts:
                assert part in text
            assert "Traceback" not in outcome.err
            assert outcome.out == ""
        assert not made
        assert [p.name for p in bundle_copy.parent.glob("*.safetensors*")] == []

    return refused


def listed(folder, *names):
    """Write the manifest's hashes of these files anew: whoever can change a file can do so too."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] |= {name: file_hash(folder / name) for name in names}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def externalize(path, location, **more):
    """Let the largest weight of an ONNX file be in another file; returns its bytes."""
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    content = largest.raw_data
    largest.ClearField("raw_data")
    largest.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "length": str(len(content)), **more}.items():
        largest.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return content


def test_a_changed_byte(refused, bundle_copy):  # noqa: F811
    path = bundle_copy / bundle.VISION
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(f"{path} is damaged: it does not have the hash in manifest.json. {bundle.AGAIN}")


@pytest.mark.parametrize("name", ["golden/golden.json", "golden/pixel_values.npy", "README.md"])
def test_a_changed_byte_of_what_is_only_read_by_others(refused, bundle_copy, name):  # noqa: F811
    with open(bundle_copy / name, "ab") as file:
        file.write(b" ")
    refused(f"{bundle_copy / name} is damaged")


@pytest.mark.parametrize("name", [bundle.VISION, bundle.TEXT])
def test_a_truncated_model(refused, bundle_copy, name):  # noqa: F811
    path = bundle_copy / name
    path.write_bytes(path.read_bytes()[:-1000])
    refused(f"{path} is damaged")
    listed(bundle_copy, name)
    refused(f"onnx cannot load {path}: ", bundle.AGAIN)


def test_a_newer_manifest(refused, bundle_copy):  # noqa: F811
    path = bundle_copy / "manifest.json"
    newer = bundle.SCHEMA_VERSION + 1
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": newer}))
    refused(
        f"{path} has schema version {newer}; this radapter reads up to {bundle.SCHEMA_VERSION}. "
        "Upgrade radapter, or export the bundle again with this one."
    )


@pytest.mark.parametrize(
    "location", ["../../secret", "../../../secret", "{root}/secret", "a\\..\\b"]
)
@pytest.mark.parametrize("name", [bundle.VISION, bundle.TEXT])
def test_weights_outside_of_the_bundle(refused, bundle_copy, name, location):  # noqa: F811
    """With right hashes, and with a file there that would fit."""
    location = location.format(root=bundle_copy.parent)
    content = externalize(bundle_copy / name, location)
    (bundle_copy.parent / "secret").write_bytes(content)
    listed(bundle_copy, name)
    refused(f"{bundle_copy / name} names a file outside of the bundle: ", "Do not use this bundle.")


def test_a_link_out_of_the_bundle(refused, bundle_copy):  # noqa: F811
    content = externalize(bundle_copy / bundle.TEXT, "weights")
    (bundle_copy.parent / "secret").write_bytes(content)
    (bundle_copy / "onnx" / "weights").symlink_to(bundle_copy.parent / "secret")
    listed(bundle_copy, bundle.TEXT)
    refused("names a file outside of the bundle: 'onnx/weights'")


def test_weights_that_the_manifest_does_not_know(refused, bundle_copy):  # noqa: F811
    content = externalize(bundle_copy / bundle.TEXT, "weights")
    (bundle_copy / "onnx" / "weights").write_bytes(content)
    listed(bundle_copy, bundle.TEXT)
    refused("keeps weights in onnx/weights, which manifest.json does not list")


def test_weights_beside_the_model_are_found_and_run(bundle_copy, exported):  # noqa: F811
    from radapter.runtimes.onnx import OnnxRuntime

    content = externalize(bundle_copy / bundle.VISION, "weights")
    (bundle_copy / "onnx" / "weights").write_bytes(content)
    listed(bundle_copy, bundle.VISION, "onnx/weights")
    manifest = bundle.verify(bundle_copy)
    assert bundle.external_data(bundle_copy, manifest, bundle.VISION) == ["onnx/weights"]
    assert bundle.external_data(bundle_copy, manifest, bundle.TEXT) == []
    pixels = np.load(exported / "golden" / "pixel_values.npy")
    import torch

    engines = [OnnxRuntime(folder) for folder in (bundle_copy, exported)]
    one, other = (engine.encode_image(torch.from_numpy(pixels)) for engine in engines)
    assert torch.equal(one, other)


def test_tensors_anywhere_in_a_model_are_seen(tmp_path):
    """In an attribute of a node in a branch, where no list of weights has it."""
    hidden = numpy_helper.from_array(np.zeros(3, np.float32))
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../../passwords")
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=hidden)], "b", [], [value]
    )
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [condition], [value])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(BrokenInput, match=r"outside of the bundle: '\.\./\.\./passwords'"):
        bundle.external_data(tmp_path, {"files": {}}, "m.onnx")
    with pytest.raises(BrokenInput, match=r"outside of its folder: '\.\./\.\./passwords'"):
        read_graph(tmp_path / "m.onnx")


def test_a_full_disk_while_a_triton_repository_is_written(cli, merged, monkeypatch):
    copy = shutil.copyfile

    def fail(source, target):
        if "text_model" in str(source):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return copy(source, target)

    monkeypatch.setattr("radapter.export.triton.shutil.copyfile", fail)
    outcome = cli("export", "--triton", "repository")
    assert outcome.code == 4
    assert "No space left on device" in outcome.err
    assert [p.name for p in (merged.path.parents[1] / "repository").iterdir()] == ["tiny_vision"]
    (made,) = (p.parent for p in merged.path.glob("bundles/*/manifest.json"))
    bundle.verify(made)


def test_a_triton_model_of_someone_else_is_not_replaced(cli, merged, tmp_path):
    place = tmp_path / "repository" / "tiny_text"
    place.mkdir(parents=True)
    (place / "config.pbtxt").write_text('name: "tiny_text"')
    outcome = cli("export", "--triton", "repository")
    assert outcome.code == 2
    assert "tiny_text is not a folder that radapter wrote" in outcome.err
    assert not (merged.path / "bundles").exists()
    assert [p.name for p in place.iterdir()] == ["config.pbtxt"]


def test_a_golden_picture_is_a_picture(exported):  # noqa: F811
    """And nothing else in a bundle is a pickle."""
    with Image.open(exported / "golden" / "picture_0.png") as picture:
        picture.verify()
    for path in exported.rglob("*.npy"):
        np.load(path, allow_pickle=False)
