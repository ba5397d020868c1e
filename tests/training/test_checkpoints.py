import dataclasses
import errno
import json
import os

import pytest
import torch

from radapter.errors import BrokenInput
from radapter.training import checkpoints
from radapter.training.checkpoints import Checkpoint


def checkpoint(step):
    return Checkpoint(
        step,
        1.5 * step,
        {
            "trained.a.b/c": torch.full((2, 3), float(step)),
            "progress": torch.tensor([step]).double(),
        },
        {"0/exp_avg": torch.arange(4.0).view(2, 2).T, "0/step": torch.tensor(float(step))},
    )


def same(one, two):
    assert (one.step, one.seconds) == (two.step, two.seconds)
    for ours, theirs in ((one.method, two.method), (one.optimizer, two.optimizer)):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key])
            assert value.dtype == theirs[key].dtype


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    checkpoints.save(tmp_path, checkpoint(7), keep=2)
    same(checkpoints.load(tmp_path), checkpoint(7))


@pytest.mark.parametrize("older", ["adapter", "factors"])
def test_the_state_of_an_older_version_is_loaded(tmp_path, older):
    before = {key.replace("trained", older): value for key, value in checkpoint(7).method.items()}
    checkpoints.save(tmp_path, dataclasses.replace(checkpoint(7), method=before), keep=2)
    same(checkpoints.load(tmp_path), checkpoint(7))


def test_the_last_few_are_kept(tmp_path):
    for step in (9, 10, 100, 1_000_000):
        checkpoints.save(tmp_path, checkpoint(step), keep=2)
        assert (tmp_path / "newest").read_text().strip() == f"step-{step:08d}"
        assert checkpoints.load(tmp_path).step == step
    assert names(tmp_path) == ["newest", "step-00000100", "step-01000000"]


def test_a_step_saved_twice_is_the_later_one(tmp_path):
    checkpoints.save(tmp_path, checkpoint(3), keep=2)
    again = Checkpoint(3, 99.0, {"a": torch.ones(1)}, {})
    checkpoints.save(tmp_path, again, keep=2)
    same(checkpoints.load(tmp_path), again)


def damage(path, kind):
    state, facts = path / "state.safetensors", path / "state.json"
    if kind == "cut":
        state.write_bytes(state.read_bytes()[:-5])
    elif kind == "bit":
        data = bytearray(state.read_bytes())
        data[-1] ^= 1
        state.write_bytes(data)
    elif kind == "no weights":
        state.unlink()
    elif kind == "no facts":
        facts.unlink()
    elif kind == "empty facts":
        facts.write_text("")
    elif kind == "list":
        facts.write_text("[]")
    else:
        facts.write_text(json.dumps({"step": 1}))


KINDS = ["cut", "bit", "no weights", "no facts", "empty facts", "list", "no hash"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, kind):
    for step in (5, 10):
        checkpoints.save(tmp_path, checkpoint(step), keep=2)
    damage(tmp_path / "step-00000010", kind)
    with pytest.warns(UserWarning, match="step-00000010 is damaged"):
        found = checkpoints.load(tmp_path)
    same(found, checkpoint(5))


@pytest.mark.filterwarnings("ignore:Checkpoint")
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_them_damaged(tmp_path, kind):
    checkpoints.save(tmp_path, checkpoint(5), keep=2)
    damage(tmp_path / "step-00000005", kind)
    with pytest.raises(BrokenInput, match=r"Every checkpoint in .* is damaged"):
        checkpoints.load(tmp_path)


def test_none_at_all(tmp_path):
    assert checkpoints.load(tmp_path / "checkpoints") is None


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, checkpoint(5), keep=1)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            checkpoints.save(tmp_path, checkpoint(10), keep=1)
    assert names(tmp_path) == ["newest", "step-00000005"]
    same(checkpoints.load(tmp_path), checkpoint(5))


def test_an_optimizer_goes_on_as_if_never_stopped():
    def made():
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(2))]
        groups = [{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.0}]
        return parameters, torch.optim.AdamW(groups, lr=0.1, fused=True)

    def go(parameters, optimizer, steps):
        for step in steps:
            for parameter in parameters:
                parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer.step()

    straight, optimizer = made()
    go(straight, optimizer, range(6))
    first, optimizer = made()
    go(first, optimizer, range(3))
    stored = {k: v.clone() for k, v in checkpoints.optimizer_tensors(optimizer).items()}
    assert set(stored) == {f"{i}/{k}" for i in (0, 1) for k in ("step", "exp_avg", "exp_avg_sq")}
    second, optimizer = made()
    with torch.no_grad():
        for parameter, value in zip(second, first, strict=True):
            parameter.copy_(value)
    checkpoints.load_optimizer(optimizer, stored)
    go(second, optimizer, range(3, 6))
    for one, two in zip(straight, second, strict=True):
        assert torch.equal(one, two)
