"""An engine by its name on the command line, and which of a bundle's engines run here."""

import importlib
import subprocess
import sys

import pytest
import torch
from fake_tensorrt import GPU, with_engines

from radapter.errors import MissingDependency, UsageError
from radapter.runtimes.engines import ENGINES, EXPORTED, PROGRAMS, open_engine, runnable
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.providers import NAMES
from radapter.runtimes.trt import cuda, flavours
from radapter.runtimes.trt.fitting import choose_engines


def test_every_list_of_engines_is_of_the_table():
    from radapter_cli.eval import RuntimeChoice
    from radapter_cli.model_options import EngineChoice

    assert list(RuntimeChoice) == ["torch", *EXPORTED, "all"]
    assert tuple(EngineChoice) == PROGRAMS == ("torch", "onnx", "tensorrt")
    assert set(NAMES.values()) == {name for name in ENGINES if name.startswith("onnx")}
    for engine in ENGINES.values():
        assert callable(importlib.import_module(engine.module).open_engine)


def test_listing_engines_imports_no_torch():
    code = "import sys, radapter.runtimes.engines; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_cpu_is_onnx(exported):
    assert isinstance(open_engine(exported, "onnx"), OnnxRuntime)
    assert runnable(exported) == (["onnx"], {})


def test_an_unknown_engine(exported):
    with pytest.raises(UsageError, match="Did you mean 'tensorrt'"):
        open_engine(exported, "tensort")


@pytest.mark.parametrize("engine", ["onnx-cuda", "onnx-tensorrt"])
def test_a_provider_that_is_not_there(exported, engine):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MissingDependency, match="ExecutionProvider"):
        open_engine(exported, engine)


def test_built_engines_run_where_there_is_a_gpu_and_the_library(exported, tmp_path, monkeypatch):
    folder = with_engines(exported, tmp_path / "bundle", "rtx")

    def none():
        raise MissingDependency("no driver")

    monkeypatch.setattr(cuda, "gpus", none)
    assert runnable(folder) == (["onnx"], {"tensorrt": "no driver"})
    monkeypatch.setattr(cuda, "gpus", lambda: [GPU])
    assert "does not use the NVIDIA Fake" in runnable(folder)[1]["tensorrt"]  # torch for the CPU
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    engines, unfit = runnable(folder)
    assert engines == ["onnx"]
    assert "TensorRT-RTX is not installed" in unfit["tensorrt"]
    monkeypatch.setattr(flavours, "find_spec", lambda name: name == "tensorrt_rtx" or None)
    assert runnable(folder) == (["onnx", "tensorrt"], {})


def test_of_two_flavours_the_one_for_this_gpu_is_chosen(tmp_path, monkeypatch):
    """On an H100 a bundle may have engines of both, and TensorRT-RTX's are not for it."""
    monkeypatch.setattr(flavours, "installed", lambda: list(flavours.FLAVOURS.values()))
    h100 = cuda.Gpu("NVIDIA H100", "9.0")
    fits = {
        "rtx": {"target_gpus": ["8.9"]},
        "tensorrt": {"gpu": vars(h100), "hardware": "none"},
    }
    engines = [
        {"onnx": f"onnx/{tower}.onnx", "precision": "fp32", "flavour": flavour, **facts}
        for flavour, facts in fits.items()
        for tower in ("vision_model", "text_model")
    ]
    for gpu, expected in ((h100, "tensorrt"), (cuda.Gpu("RTX 4090", "8.9"), "rtx")):
        found = choose_engines(tmp_path, {"engines": engines}, None, None, gpu)
        assert {entry["flavour"] for entry in found.values()} == {expected}
