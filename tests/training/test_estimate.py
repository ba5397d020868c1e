"""The estimate of a step's memory: against measured peaks, and for every shipped recipe."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import tiny
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from radapter import models, registry
from radapter import recipe as recipes
from radapter.models.loading import BUILT_IN
from radapter.registry import METHODS
from radapter.training import estimate, execution, planning
from radapter.training.estimate import Sizes, fitting_micro_batch, step_memory

STARTED = "base-0"
"""The built-in model's architecture, in a folder that its pre-training starts from"""
MEASURE = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    vision = {"image_size": 96, "layers": 5, "width": 256, "head_width": 64, "patch_size": 16}
    text = {"width": 192, "heads": 3, "layers": 4}
    return tiny.write(
        tmp_path_factory.mktemp("model") / "m", vision=vision, text=text, quick_gelu=True
    )


CASES = {
    "full": ["method={name: full}"],
    "r-adapter": [],
    "lora": ["method={name: lora}"],
    "bf16": ["precision=bf16"],
    "micro batches": ["method={name: full}", "optimisation.micro_batch=24"],
    "low rank": ["method.rank=16"],
    "the release's": ["method.drop_unit=position", "method.learn_scale=true"],
    "checkpointing": ["activation_checkpointing=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_process_takes(middle, case):
    """In a process of its own, whose allocator gives freed blocks back at once."""
    command = [sys.executable, str(MEASURE), "one", str(middle), "96", json.dumps(CASES[case])]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}
    out = subprocess.check_output(command, text=True, env=environment)
    found = json.loads(out.splitlines()[-1])
    assert found["measured"] == pytest.approx(found["estimate"], rel=0.15)


def skeleton(name):
    """The model of a recipe without weights: nothing is written to what it allocates."""
    if name == STARTED:
        name = BUILT_IN
    if name.startswith(BUILT_IN):
        return models.load(name).model
    architecture = name.partition(":")[0]
    quick = {"force_quick_gelu": True} if name.endswith(":openai") else {}
    with torch.device("meta"):
        model = open_clip.create_model(architecture, pretrained=None, device="meta", **quick)
    return model.to_empty(device="cpu")


@functools.cache
def memory_of(model, method, batch, micro_batch, text_length, precision, frames):
    recipe = recipes.parse(
        json.dumps(
            {
                "name": "x",
                "model": model,
                "method": json.loads(method),
                "data": {"source": "emoji"},
                "precision": precision,
            }
        )
    )
    built = skeleton(model)
    chosen = registry.load(METHODS, recipe.method.name)
    attached = chosen.attach(built, **recipe.method.arguments())
    execution.set_up(built, recipe)
    length = min(text_length or 77, built.context_length)
    sizes = Sizes(batch, batch, batch, length, micro_batch, frames)
    return step_memory(built, attached, recipe, sizes)


def memory(recipe, micro_batch="recipe"):
    o = recipe.optimisation
    return memory_of(
        recipe.model,
        recipe.method.model_dump_json(),
        o.batch_size,
        o.micro_batch if micro_batch == "recipe" else micro_batch,
        recipe.data.text_length,
        recipe.precision,
        getattr(recipe.data, "frames", None),
    )


FASTEST = "emoji"


@pytest.mark.parametrize(
    "name",
    [
        name if name == FASTEST else pytest.param(name, marks=pytest.mark.slow)
        for name in recipes.shipped()
    ],
)
def test_every_recipe_fits_the_gpu_that_it_names(name):
    recipe = recipes.load(recipes.shipped()[name])
    assert recipe.gpu is not None
    total = memory(recipe).total
    assert total <= planning.ROOM * recipe.gpu.gigabytes * planning.GIB


def parts_of(tiny_folder, shapes, *overrides):
    return planning.prepare(tiny.recipe(tiny_folder, shapes, *overrides))


def test_nothing_of_the_model_changes(tiny_folder, shapes):
    parts = parts_of(tiny_folder, shapes)
    before = {name: value.clone() for name, value in parts.base.model.state_dict().items()}
    state = torch.get_rng_state()
    planning.fit(parts)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in parts.trained)
    assert {a.drop for a in parts.attached.modules.values()} == {0.2}
    for name, value in parts.base.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_more_takes_more(tiny_folder, shapes):
    def total(*overrides):
        return planning.fit(parts_of(tiny_folder, shapes, *overrides)).total

    usual = total()
    assert total("optimisation.micro_batch=2", "precision=bf16") < usual
    assert total("data.hold_out=0.3", "monitor.every_steps=1") > usual


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("change", [[], ["optimisation.micro_batch=2"], ["method={name: lora}"]])
def test_a_step_is_made_where_the_model_is(tiny_folder, shapes, monkeypatch, change):
    """On a GPU that is not there: the forward passes and the loss, as without CUDA torch has no
    backward pass for it."""
    parts = parts_of(tiny_folder, shapes, *change)
    model, recipe = parts.base.model, parts.recipe
    sizes = Sizes(8, 8, 8, 9, recipe.optimisation.micro_batch)
    graphs = []

    def backward(tensors, *_, **__):
        (tensor,) = tensors if isinstance(tensors, list) else [tensors]
        graphs.append(tensor.device.type)

    monkeypatch.setattr(torch.autograd, "backward", backward)
    with FakeTensorMode(allow_non_fake_inputs=True), estimate._Alive() as alive:
        adapters = parts.attached.modules.values()
        for module in (m for owner in (model, *adapters) for m in owner.modules()):
            for name, p in module._parameters.items():
                if p is not None:
                    there = torch.empty(p.shape, device="cuda")
                    module._parameters[name] = torch.nn.Parameter(there, p.requires_grad)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device="cuda")
        found = estimate._step(model, recipe, sizes, alive, [])
    assert all(size > 0 for size in found)
    assert set(graphs) == {"cuda"}
    assert len(graphs) == (5 if recipe.optimisation.micro_batch else 3)


def test_several_processes_share_a_batch(tiny_folder, shapes):
    parts = parts_of(tiny_folder, shapes)
    one, two = planning.fit(parts), planning.fit(parts, 2)
    assert two.memory.kept < one.memory.kept
    assert two.memory.weights == one.memory.weights


def test_workers_hold_pictures_ready(tiny_folder, shapes):
    found = planning.fit(parts_of(tiny_folder, shapes, "workers=3"))
    assert found.read_ahead == 3 * 2 * 8 * 3 * 32 * 32


def test_the_longest_text_counts(tiny_folder, shapes):
    short = planning._text_length(parts_of(tiny_folder, shapes))
    long = planning._text_length(parts_of(tiny_folder, shapes, "data.templates=['a b c d e f {}']"))
    assert (short, long) == (9, 10)
    assert planning._text_length(parts_of(tiny_folder, shapes, "data.text_length=5")) == 5


@pytest.mark.parametrize(
    ("room", "size"), [(99, None), (110, 1), (150, 4), (1000, 64), (10**9, 64)]
)
def test_the_largest_micro_batch_that_fits(room, size):
    assert fitting_micro_batch(lambda n: 100 + 10 * n, 128, room) == size
