"""Files of weights as other programs write them."""

import argparse
import copy
import warnings
import zipfile

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from radapter import models
from radapter.errors import BrokenInput
from radapter.models import checkpoints, torchscript


@pytest.fixture(scope="module")
def loaded():
    return tiny.build(quick_gelu=True)


def wrapped(state):
    """By what wrote it."""
    prefixed = {
        prefix: {f"{prefix}{name}": tensor for name, tensor in state.items()}
        for prefix in ("_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "model.")
    }
    tower = {name.replace("visual.", "visual._orig_mod."): tensor for name, tensor in state.items()}
    return {
        "plain": state,
        **prefixed,
        "one compiled tower": tower,
        "state_dict": {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}},
        "model": {"model": state, "args": argparse.Namespace(lr=1e-3)},
        "both": {"model": {"state_dict": prefixed["module."]}},
        "numpy": {"state_dict": state, "best": np.float64(71.3), "seen": np.int64(7)},
        "numpy arrays": {"state_dict": state, "rng": np.random.RandomState(0).get_state()},
        "ours beside": {**state, "epoch": 3},
    }


@pytest.mark.parametrize("form", wrapped({}))
def test_what_others_wrap_weights_in_is_taken_off(loaded, tmp_path, form):
    state = loaded.model.state_dict()
    torch.save(wrapped(state)[form], tmp_path / "weights.pt")
    found = checkpoints.read(tmp_path / "weights.pt")
    assert models.weights_hash(found) == loaded.weights_hash


def test_numbers_of_either_numpy(loaded, tmp_path):
    """numpy 1 called its module numpy.core, numpy 2 numpy._core: a file has one of the names."""
    content = {"state_dict": loaded.model.state_dict(), "best": np.float64(71.3)}
    torch.save(content, tmp_path / "weights.pt")
    for old, new in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        with zipfile.ZipFile(tmp_path / "weights.pt") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data.replace(old, new))
        found = checkpoints.read(tmp_path / "other.pt")
        assert models.weights_hash(found) == loaded.weights_hash


class Settings:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.ones(2)}, "cfg": Settings()}, "holds more than .*Settings"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors by name, but the keys epoch, lr"),
        ([torch.ones(2)], "holds no tensors by name, but list"),
        (torch.ones(2), "holds no tensors by name, but Tensor"),
    ],
)
def test_what_cannot_be_read_is_told_in_few_words(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(BrokenInput, match=message) as caught:
        checkpoints.read(tmp_path / "weights.pt")
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_damaged_files(tmp_path):
    for data in (b"", b"hello", b"PK\x03\x04", bytes(range(200))):
        (tmp_path / "weights.pt").write_bytes(data)
        with pytest.raises(BrokenInput, match="weights.pt is"):
            checkpoints.read(tmp_path / "weights.pt")


# ---------------------------------------------------------------- OpenAI's own form


@pytest.fixture(scope="module")
def archive(loaded, tmp_path_factory):
    """A TorchScript archive with the same extras as OpenAI's files."""
    path = tmp_path_factory.mktemp("torchscript") / "ViT-X.pt"
    images, tokens = tiny.batch(loaded)
    model = copy.deepcopy(loaded.model)
    for number, name in enumerate(("input_resolution", "context_length", "vocab_size")):
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = {"encode_image": images, "encode_text": tokens}
        torch.jit.save(torch.jit.trace_module(model, inputs, check_trace=False), path)
    return path


def test_a_torchscript_archive_is_read_without_its_program(loaded, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", None)
    assert torchscript.is_openais(archive)
    found = checkpoints.read(archive)
    assert models.weights_hash(found) == loaded.weights_hash
    # the program may be anything
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as other:
        for name in whole.namelist():
            other.writestr(name, b"no program" if "/code/" in name else whole.read(name))
    assert models.weights_hash(checkpoints.read(tmp_path / "b.pt")) == loaded.weights_hash


def test_an_archive_that_names_other_things_is_refused_and_not_run(archive, tmp_path):
    with zipfile.ZipFile(archive) as whole:
        names = whole.namelist()
        root = names[0].split("/")[0]
        for data in (
            b"cos\nmkdir\n(S'" + str(tmp_path / "ran").encode() + b"'\ntR.",
            b"hello",
            b"",
        ):
            with zipfile.ZipFile(tmp_path / "b.pt", "w") as other:
                other.writestr(f"{root}/constants.pkl", whole.read(f"{root}/constants.pkl"))
                other.writestr(f"{root}/data.pkl", data)
            with pytest.raises(BrokenInput, match="TorchScript archive.*convert it"):
                torchscript.read(tmp_path / "b.pt")
    assert not (tmp_path / "ran").exists()


def test_openais_file_is_used_as_openais_tag(archive, monkeypatch):
    """Not as what all tags of ViT-B-32 agree on, which is too little."""
    monkeypatch.setattr(models.loading, "_model_cfg", lambda _: tiny.build().config["model_cfg"])
    asked = {}
    monkeypatch.setattr(models.loading, "_create", lambda *a: asked.update(a=a) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        models.load(f"ViT-B-32:{archive}")
    *_, preprocess_cfg, quick_gelu = asked["a"]
    assert quick_gelu is True
    assert preprocess_cfg["resize_mode"] == "shortest"


# ---------------------------------------------------------------- what does not fit


def test_weights_of_another_shape_are_told_in_few_words(tmp_path):
    folder = tiny.write(tmp_path / "model")
    path = folder / "open_clip_model.safetensors"
    state = checkpoints.read(path)
    save_file({**state, "ln_final.bias": torch.zeros(3)}, path)
    message = (
        r"1 tensor of another shape \(ln_final.bias is \[3\] in the file, \[16\] in the model\)"
    )
    with pytest.raises(BrokenInput, match=message):
        models.load(folder)
    others = {f"{name}x": tensor for name, tensor in state.items() if name.startswith("ln_final")}
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("ln_final")}
    save_file(rest | others, path)
    with pytest.raises(BrokenInput, match=r"2 tensors missing \(ln_final.*2 tensors unknown"):
        models.load(folder)


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.bin", "pytorch_model.bin"])
def test_a_folder_with_weights_that_torch_wrote(tmp_path, file):
    folder = tiny.write(tmp_path / "model")
    state = checkpoints.read(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / file)
    assert models.load(folder).weights_hash == models.weights_hash(state)


@pytest.mark.parametrize("name", ["absent.pt", "absent/weights", "/absent/weights.safetensors"])
def test_a_file_that_is_not_there(name):
    with pytest.raises(BrokenInput, match=f"No such file: {name}") as caught:
        models.load(f"ViT-B-32:{name}")
    assert caught.value.exit_code == 4
