"""Training on shards that are read nearly from start to end."""

import pytest
import tiny
import torch
from ranks import in_ranks, results
from safetensors.torch import load_file
from trees import encoded, shard

from radapter import recipe as recipes
from radapter.errors import UsageError
from radapter.training import Interrupted, plan, resume, train


@pytest.fixture
def recipe(tiny_folder, tmp_path):
    """Four shards of eight pictures: four steps of eight pairs an epoch."""
    for number in range(4):
        samples = {}
        for i in range(8 * number, 8 * number + 8):
            samples |= {f"{i:02d}.png": encoded(i, "PNG"), f"{i:02d}.txt": f"number {i}".encode()}
        shard(tmp_path / f"{number}.tar", samples)
    text = tiny.text(tiny_folder, tmp_path)
    source = f"source: shards\n  shards: {tmp_path}/{{0..3}}.tar\n  task: captions"
    text = text.replace(f"source: folder\n  root: {tmp_path}", source)

    def recipe(*overrides):
        shuffled = ["data.shuffle_buffer=12", "data.streams=2", *overrides]
        return recipes.parse(text, "tiny.yaml", shuffled)

    return recipe


def test_it_goes_on_in_the_middle_of_an_epoch_bit_for_bit(recipe, tmp_path):
    """Also with workers, which change nothing."""
    whole = train(recipe(), tmp_path / "whole")
    calls = []
    with pytest.raises(Interrupted) as caught:
        train(
            recipe("workers=1"),
            tmp_path / "cut",
            should_stop=lambda: calls.append(1) or len(calls) == 6,
        )
    assert caught.value.step == 6  # of twelve
    torch.manual_seed(99)
    assert resume(caught.value.run).adapter.read_bytes() == whole.adapter.read_bytes()
    others = train(recipe("data.streams=1"), tmp_path / "others")
    assert others.adapter.read_bytes() != whole.adapter.read_bytes()


def trained(recipe, root):
    return train(recipe, root).path


def test_two_ranks_with_streams_of_their_own_train_as_one_process(recipe, tmp_path):
    settings = recipe("optimisation.eps=1e-3")  # Adam makes full steps of rounding, otherwise
    alone = train(settings, tmp_path / "alone")
    path = results(in_ranks(2, trained, settings, tmp_path / "together"))[0]
    found = load_file(path / "adapter.safetensors")
    for name, value in load_file(alone.adapter).items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["data.streams=3"],
            "optimisation.batch_size is 8, and must be a multiple of data.streams, 3",
        ),
        (["data.shuffle_buffer=null"], "streams needs shuffle_buffer"),
        (["data.shuffle_buffer=0"], "override data.shuffle_buffer: data.shuffle_buffer: input"),
    ],
)
def test_what_does_not_fit_is_said(recipe, overrides, said):
    with pytest.raises(UsageError, match=said):
        plan(recipe(*overrides))
