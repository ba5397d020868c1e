"""The bundle's manifest: what is damaged, stale, newer or leads elsewhere is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import NAMES, bundle_copy, exported, tiny  # noqa: F401 - fixtures

from radapter import bundle
from radapter.errors import BrokenInput


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_file(folder: Path, name: str) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change_manifest(folder, files={**files, name: "0" * 64})


def test_a_whole_bundle_passes_and_names_every_file(exported):  # noqa: F811
    manifest = bundle.verify(exported)
    on_disk = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == on_disk - {"manifest.json"}
    assert manifest["schema_version"] == bundle.SCHEMA_VERSION
    assert manifest["alpha"] == 0.5
    assert manifest["base_model"] == "tiny"


def test_every_file_is_checked(bundle_copy):  # noqa: F811
    for name in bundle.read_manifest(bundle_copy)["files"]:
        path = bundle_copy / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BrokenInput, match="damaged") as caught:
            bundle.verify(bundle_copy)
        assert name in str(caught.value).replace(os.sep, "/")
        path.write_bytes(whole)
    bundle.verify(bundle_copy)


def test_a_missing_file_is_named(bundle_copy):  # noqa: F811
    (bundle_copy / "tokenizer.json").unlink()
    with pytest.raises(BrokenInput, match=r"lacks tokenizer\.json"):
        bundle.verify(bundle_copy)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/outside", "onnx/../../outside", "", "..", "C:\\x", "\\\\host\\x", "a\\..\\b"],
)
def test_names_that_lead_out_are_refused(bundle_copy, name):  # noqa: F811
    (bundle_copy.parent / "outside").write_text("x")
    with_file(bundle_copy, name)
    with pytest.raises(BrokenInput, match="outside of the bundle"):
        bundle.verify(bundle_copy)


def test_a_symbolic_link_out_is_refused(bundle_copy):  # noqa: F811
    model = bundle_copy / bundle.VISION
    moved = model.rename(bundle_copy.parent / "elsewhere.onnx")
    model.symlink_to(moved)  # same bytes, same hash: only its place is wrong
    with pytest.raises(BrokenInput, match="outside of the bundle"):
        bundle.verify(bundle_copy)


def test_a_newer_schema_is_refused(bundle_copy):  # noqa: F811
    change_manifest(bundle_copy, schema_version=bundle.SCHEMA_VERSION + 1)
    with pytest.raises(BrokenInput, match="Upgrade radapter"):
        bundle.verify(bundle_copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "not a bundle manifest"),
        ("{}", "not a bundle manifest"),
        ('{"schema_version": true}', "not a bundle manifest"),
        ('{"schema_version": 1}', "does not list files"),
        ('{"schema_version": 1, "files": {"a": 1}}', "does not list files"),
        ('{"schema_version": 1, "files": {}}', "does not list config.json"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(BrokenInput, match=message):
        bundle.verify(tmp_path)


def test_no_bundle_names_the_command(tmp_path):
    with pytest.raises(BrokenInput, match="radapter export"):
        bundle.verify(tmp_path / "nowhere")


def test_a_bundle_from_other_weights_is_stale(exported, tiny):  # noqa: F811
    bundle.verify(exported, weights_hash=tiny.weights_hash)
    with pytest.raises(BrokenInput, match="stale"):
        bundle.verify(exported, weights_hash="f" * 64)


def test_classes_are_the_mean_of_their_prompts(exported, tiny):  # noqa: F811
    names, features, logit_scale = bundle.read_classes(exported)
    assert names == NAMES
    assert logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    texts = tiny.tokenizer(["a cat", "a photo of a cat"])
    rows = tiny.model.encode_text(texts).detach().numpy()
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
    np.testing.assert_allclose(features[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"\x80\x04."])
def test_damaged_class_features_are_refused(bundle_copy, damage):  # noqa: F811
    (bundle_copy / "class_features.npy").write_bytes(damage)
    with pytest.raises(BrokenInput, match="classes of bundle"):
        bundle.read_classes(bundle_copy)


def test_classes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 class names"):
        bundle.write_classes(tmp_path, ["a", "b"], np.eye(3), 1.0)
    with pytest.raises(ValueError, match="unit norm"):
        bundle.write_classes(tmp_path, ["a", "b"], 2 * np.eye(2), 1.0)
    assert bundle.read_classes(tmp_path) is None
