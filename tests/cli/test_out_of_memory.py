"""Memory that runs out is exit code 5 in every command, with what of its own options needs less."""

import json
from pathlib import Path

import pytest
import torch

from radapter.runtimes.pytorch import PyTorchRuntime

COMMANDS = {
    "predict": (["predict", "PICTURES"], "--device cpu"),
    "embed": (["embed", "PICTURES", "--out", "f.safetensors"], "--device cpu"),
    "eval": (["eval", "--runtime", "torch", "--no-cache"], "--device cpu"),
    "merge": (["merge", "--alpha", "auto", "--no-cache"], "--device cpu"),
    "export": (["export"], "a smaller --max-batch"),
    "bench": (["bench", "--runtime", "torch"], "a smaller --batch"),
}


def full(self, pixels):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


FILTER = """
name: list
model: {model}
method: {{name: full}}
data: {{source: table, path: list.csv, task: captions}}
"""


def test_of_an_action(cli, tiny_folder, shapes, monkeypatch):
    monkeypatch.setattr(PyTorchRuntime, "encode_image", full)
    picture = next(shapes.rglob("*.png"))
    Path("list.csv").write_text(f"filepath,title\n{picture},a square\n")
    Path("list.yaml").write_text(FILTER.format(model=tiny_folder))
    outcome = cli("data", "filter", "list.yaml", "--dry-run")
    assert outcome.code == 5
    said = " ".join(outcome.err.split())
    assert "What needs less: --precision fp16, or --device cpu" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_out_of_memory(cli, merged, shapes, monkeypatch, command):
    monkeypatch.setattr(PyTorchRuntime, "encode_image", full)
    words, advice = COMMANDS[command]
    words = [str(shapes) if word == "PICTURES" else word for word in words]
    outcome = cli(*words)
    assert outcome.code == 5
    assert "Out of memory: CUDA out of memory. Tried to allocate 2.00 GiB." in outcome.err
    assert "What needs less:" in outcome.err
    assert advice in " ".join(outcome.err.split())
    assert "bug" not in outcome.err


def test_the_machines_own_memory(cli, merged, shapes, monkeypatch):
    def none(self, pixels):
        raise MemoryError

    monkeypatch.setattr(PyTorchRuntime, "encode_image", none)
    outcome = cli("predict", str(shapes), "--json")
    assert outcome.code == 5
    assert json.loads(outcome.out)["error"]["message"].startswith("Out of memory: this machine")
