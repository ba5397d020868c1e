"""--device: what the commands that score ask of PyTorch, wherever the test runs."""

import pytest
import torch

from radapter.evaluation import alphas, of_run
from radapter.runtimes.pytorch import PyTorchRuntime

COMMANDS = {
    "eval": ["eval", "--runtime", "torch"],
    "eval over alpha": ["eval", "--alphas", "0:1:1"],
    "merge": ["merge", "--alpha", "auto"],
    "eval of a model": ["eval", "--suite", "mine.yaml", "--model"],
}


@pytest.fixture
def command(merged, shapes, tmp_path, request):
    (tmp_path / "mine.yaml").write_text(
        f"""name: mine
tasks: [classification]
datasets:
  - {{name: own, role: zero-shot, data: {{source: folder, root: {shapes}, split: all}}}}
"""
    )
    words = COMMANDS[request.param]
    return [*words, merged.merged()] if words[-1] == "--model" else words


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_every_model_is_scored_on_the_device_that_was_chosen(cli, command, monkeypatch):
    asked = []
    init, curve = PyTorchRuntime.__init__, alphas.alpha_curve

    def recorded(self, loaded, device="cpu", precision="fp32"):
        asked.append(device)
        init(self, loaded, "cpu", precision)

    def over_alphas(*arguments, device="cpu", **more):
        # What follows knows which device `auto` is.
        yield from curve(*arguments, device="cpu", **more)
        asked[:] = [device]

    monkeypatch.setattr(PyTorchRuntime, "__init__", recorded)
    for module in (alphas, of_run):
        monkeypatch.setattr(module, "alpha_curve", over_alphas)
    assert cli(*command).code == 0
    assert asked
    assert set(asked) == {"auto"}
    asked.clear()
    assert cli(*command, "--device", "cpu").code == 0
    assert set(asked) == {"cpu"}


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_device_that_is_not_there(cli, command):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    outcome = cli(*command, "--device", "cuda")
    assert outcome.code == 5
    assert "PyTorch has no device 'cuda' here" in outcome.err


def test_auto_is_cuda_where_there_is_any(merged):
    from radapter.models import load

    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert PyTorchRuntime(load(merged.merged()), "auto").device == expected
