"""The tower of patches: the formula in NumPy, its file beside PyTorch, and engines on a suite."""

import numpy as np
import pytest
import torch
from tiny_bundle import FACTS, make
from torch import nn

from radapter import bundle, models, registry
from radapter.errors import UsageError
from radapter.export import export_bundle, towers
from radapter.export.bundling import Contents
from radapter.methods import multiway
from radapter.models.patches import has_patches, patch_features
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.pytorch import PyTorchRuntime


def norm(x, layer):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return (x - mean) / np.sqrt(variance + layer.eps) * weight + bias


def test_patches_are_values_of_the_last_block_projected():
    model = make().model.eval()
    last, seen = model.visual.transformer.resblocks[-1], []
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    pixels = torch.randn(2, 3, *models.image_size(model))
    with torch.no_grad():
        model.encode_image(pixels)
        found = patch_features(model, pixels).numpy()
    (tokens,) = seen
    x = norm(tokens.numpy(), last.ln_1)
    width = x.shape[-1]
    weight, bias = (p.detach().numpy()[2 * width :]
                    for p in (last.attn.in_proj_weight, last.attn.in_proj_bias))  # fmt: skip
    values = x @ weight.T + bias
    out = last.attn.out_proj
    values = values @ out.weight.detach().numpy().T + out.bias.detach().numpy()
    wanted = norm(values, model.visual.ln_post)[:, 1:] @ model.visual.proj.detach().numpy()
    rows, columns = model.visual.grid_size
    np.testing.assert_allclose(found, wanted.reshape(2, rows, columns, -1), atol=1e-5)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    loaded, folder = make(), tmp_path_factory.mktemp("patches") / "bundle"
    contents = Contents(patches=True, precisions=("fp32", "fp16"))
    return loaded, folder, export_bundle(loaded, folder, contents, facts=FACTS)


def test_the_file_gives_what_pytorch_gives(written):
    loaded, folder, manifest = written
    files = [bundle.in_precision(bundle.PATCHES, p) for p in ("fp32", "fp16")]
    assert [manifest["models"][file]["for"] for file in files] == [["onnxruntime"]] * 2
    assert manifest["models"][files[0]]["worst_cosine"] > 0.99999
    assert "patch_embeds" in (folder / bundle.CARD).read_text()
    pixels = torch.randn(3, 3, *models.image_size(loaded.model))
    wanted = PyTorchRuntime(loaded).encode_patches(pixels)
    for precision, off in (("fp32", 1e-5), ("fp16", 1e-2)):
        found = OnnxRuntime(folder, precision=precision).encode_patches(pixels)
        assert found.shape == (3, *loaded.model.visual.grid_size, 16)
        assert (found - wanted).abs().max() < off


@pytest.mark.slow  # one more export
def test_weights_that_are_too_many_for_one_file_stand_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(towers, "ONE_FILE", 1000)
    loaded, folder = make(), tmp_path / "bundle"
    manifest = export_bundle(loaded, folder, Contents(patches=True), facts=FACTS)
    assert (folder / f"{bundle.PATCHES}.data").is_file()
    assert manifest["models"][bundle.PATCHES]["worst_cosine"] > 0.99999
    pixels = torch.randn(3, 3, *models.image_size(loaded.model))
    found = OnnxRuntime(folder).encode_patches(pixels)
    assert (found - PyTorchRuntime(loaded).encode_patches(pixels)).abs().max() < 1e-5


def test_a_bundle_without_it_says_what_to_type(exported):
    with pytest.raises(UsageError, match="export it with --patches"):
        OnnxRuntime(exported).encode_patches(torch.zeros(1, 3, 32, 32))


def test_another_tower_is_refused_before_the_work(tmp_path, monkeypatch):
    loaded = make()
    monkeypatch.setattr(loaded.model, "visual", nn.Identity())
    assert not has_patches(loaded.model)
    with pytest.raises(UsageError, match="for pictures, which tiny is not"):
        Contents(patches=True).check(loaded)
    with pytest.raises(UsageError, match="this image tower is a Identity"):
        patch_features(loaded.model, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("name", ["mv-adapter", "stan", "gru"])
def test_a_model_of_clips_is_refused(name):
    """It would take pictures for frames of the clip that it saw last."""
    loaded = make()
    settings = {"depth": 2} if name == "stan" else {}
    registry.load(registry.METHODS, name).attach(loaded.model, **settings)
    with pytest.raises(UsageError, match="for pictures, which tiny is not"):
        Contents(patches=True).check(loaded)
    with pytest.raises(UsageError, match="this model is one of clips"):
        patch_features(loaded.model, torch.zeros(1, 3, *models.image_size(loaded.model)))


def test_a_module_behind_the_tower_reads_patches_too():
    loaded = make()
    pixels = torch.randn(2, 3, *models.image_size(loaded.model))
    before = patch_features(loaded.model.eval(), pixels).detach()
    torch.manual_seed(1)
    attached = multiway.attach(loaded.model, rank=4, place="joint", extractor=False)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.normal_()
    found = patch_features(loaded.model.eval(), pixels)
    wanted = before + loaded.model.joint(before.flatten(0, 2)).view_as(before)
    torch.testing.assert_close(found, wanted)
    assert (found - before).abs().max() > 0.1
