"""What holds for every optimizer, with each of its EXAMPLES: to register one is to test it."""

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from radapter import merging, precision, registry
from radapter.errors import GateFailed
from radapter.methods.attached import Attached
from radapter.optimizers.ftp import row_norms
from radapter.registry import OPTIMIZERS, Average
from radapter.training import checkpoints, resume, train
from radapter.training.session import Interrupted

CASES = [
    pytest.param(name, settings, id=f"{name}-{number}")
    for name in OPTIMIZERS
    for number, settings in enumerate(registry.load(OPTIMIZERS, name).EXAMPLES)
]
SHAPES = {"matrix": (5, 4), "bias": (5,), "kernel": (3, 2, 2, 2), "scalar": ()}
LR, BETAS, EPS = 0.02, (0.9, 0.98), 1e-6


def section(name, settings):
    return ", ".join(f"{key}: {value}" for key, value in {"name": name, **settings}.items())


def attached(seed=0, *, adapters=False):
    """Parameters of a model's own, or of an adapter."""
    generator = torch.Generator().manual_seed(seed)
    parts = {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for name, shape in SHAPES.items()
    }
    given = {"adapter": nn.ParameterDict(parts)} if adapters else parts
    return Attached(nn.Identity(), given, lambda kept, alpha: None, Average(momentum=0.0))


def made(name, settings, of):
    settings = {"betas": BETAS, "eps": EPS, **settings}
    return registry.load(OPTIMIZERS, name).optimizer(of, LR, **settings)


def gradient(value, step, number):
    """Of a bowl that is not round and turns, so that steps lead away from the start and back."""
    waves = np.cos(0.7 * step + np.arange(value.size).reshape(value.shape) + number)
    return 0.5 * value + waves


def go(of, optimizer, steps):
    for step in steps:
        for number, parameter in enumerate(of.parameters()):
            found = gradient(parameter.detach().numpy(), step, number)
            parameter.grad = torch.as_tensor(found, dtype=parameter.dtype)
        optimizer.step()


def adam(value, gradient, state, *, weight_decay=0.0):
    """A step of AdamW by its formula."""
    state["t"] = t = state.get("t", 0) + 1
    state["m"] = BETAS[0] * state.get("m", 0) + (1 - BETAS[0]) * gradient
    state["v"] = BETAS[1] * state.get("v", 0) + (1 - BETAS[1]) * gradient**2
    m, v = state["m"] / (1 - BETAS[0] ** t), state["v"] / (1 - BETAS[1] ** t)
    return value - LR * (m / (np.sqrt(v) + EPS) + weight_decay * value)


def adamw_step(value, g, start, state, *, weight_decay=0.0):
    return adam(value, g, state, weight_decay=weight_decay if value.ndim >= 2 else 0.0)


def spd_step(value, g, start, state, *, decay=1.0):
    new = adam(value, g, state)
    if np.sum(g * (value - start)) > 0:
        before, now = np.linalg.norm(value - start), np.linalg.norm(new - start)
        new = new - decay * np.clip((now - before) / now, 0, 1) * (new - start)
        state["fired"] = state.get("fired", 0) + (now > before)
    return new


def ftp_step(value, g, start, state, *, k=1.0, radius_lr=1e-2, weight_decay=0.0):
    new = adam(value, g, state, weight_decay=weight_decay if value.ndim >= 2 else 0.0)
    change = new - start
    rows = np.abs(change.reshape(len(change) if change.ndim > 1 else 1, -1)).sum(1) + 1e-8
    rows = rows.reshape((-1,) + (1,) * (change.ndim - 1)) if change.ndim > 1 else rows[0]
    if "direction" in state:
        of_radius = np.sum(g * state["direction"])
        of_radius *= k if of_radius > 0 else 1
        state["rm"] = 0.9 * state["rm"] + 0.1 * of_radius
        state["rv"] = 0.999 * state["rv"] + 0.001 * of_radius**2
        m, v = state["rm"] / (1 - 0.9 ** state["t"]), state["rv"] / (1 - 0.999 ** state["t"])
        radius = state["radius"] - radius_lr * m / (np.sqrt(v) + 1e-8)
        state["radius"] = min(max(radius, 1e-8), np.max(rows))
    else:
        state.update(radius=1e-8, rm=0.0, rv=0.0)
    state["direction"] = change / rows
    state["fired"] = state.get("fired", 0) + np.any(state["radius"] < rows)
    return start + np.minimum(1, state["radius"] / rows) * change


# None of these parameters is in a transformer's layer: Muon leaves them to AdamW.
FORMULAS = {"adamw": adamw_step, "spd": spd_step, "ftp": ftp_step, "muon": adamw_step}


@pytest.mark.parametrize("adapters", [False, True], ids=["weights", "adapters"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_twenty_steps_are_those_of_the_formula(name, settings, adapters):
    of = attached(adapters=adapters)
    values = [p.detach().numpy().copy() for p in of.parameters()]
    # SPD takes zero as the start of adapters, where they have no effect; FTP their first values.
    starts = [np.zeros_like(v) if adapters and name == "spd" else v.copy() for v in values]
    states = [{} for _ in values]
    go(of, made(name, settings, of), range(20))
    for step in range(20):
        for number, value in enumerate(values):
            g = gradient(value, step, number)
            found = FORMULAS[name](value, g, starts[number], states[number], **settings)
            values[number] = np.asarray(found)
    for ours, theirs in zip(of.parameters(), values, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9, atol=1e-12)
    if FORMULAS[name] is not adamw_step:
        assert any(state["fired"] for state in states)
        assert not all(state["fired"] == 20 for state in states)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_what_a_checkpoint_keeps_is_all_that_it_goes_on_from(name, settings):
    straight = attached()
    go(straight, made(name, settings, straight), range(7))
    first = attached()
    optimizer = made(name, settings, first)
    go(first, optimizer, range(3))
    stored = {key: v.clone() for key, v in checkpoints.optimizer_tensors(optimizer).items()}
    second = attached()
    optimizer = made(name, settings, second)
    second.load_state(first.state())
    checkpoints.load_optimizer(optimizer, stored)
    go(second, optimizer, range(3, 7))
    assert all(map(torch.equal, straight.parameters(), second.parameters()))


def test_a_row_is_an_output_and_a_bias_is_one_row():
    assert row_norms(torch.ones(3, 2, 2)).flatten().tolist() == pytest.approx([4.0] * 3)
    assert row_norms(torch.ones(3)).tolist() == pytest.approx(3.0)
    assert row_norms(torch.tensor(-2.0)).tolist() == pytest.approx(2.0)


def test_ftp_keeps_what_another_run_has_moved():
    """Its first radius holds the whole change that training begins with; then it is trained."""
    of = attached()
    optimizer = made("ftp", {}, of)
    with torch.no_grad():
        for parameter in of.parameters():
            parameter.add_(1.0)
    start = [of.start[name] for name in of.trained]
    go(of, optimizer, range(1))
    for parameter, first in zip(of.parameters(), start, strict=True):
        change = parameter.detach() - first
        limit = row_norms(torch.ones_like(first)).max()
        assert optimizer.state[parameter]["radius"] == limit
        assert (row_norms(change) <= limit * (1 + 1e-9)).all()
        torch.testing.assert_close(change, torch.ones_like(change), atol=2 * LR, rtol=0)
    go(of, optimizer, range(1, 3))
    assert all(
        optimizer.state[p]["radius"] != row_norms(torch.ones_like(p)).max() for p in of.parameters()
    )


def test_spd_without_a_decay_is_adam_and_stands_still_at_the_start():
    one, two = attached(), attached()
    go(one, made("spd", {"decay": 0.0}, one), range(5))
    go(two, made("adamw", {}, two), range(5))
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    of = attached(adapters=True)
    with torch.no_grad():
        for parameter in of.parameters():
            parameter.zero_()
    optimizer = made("spd", {}, of)
    for parameter in of.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(not parameter.any() for parameter in of.parameters())


def orthogonal(matrix):
    """Five Newton-Schulz steps (Jordan et al. 2024) towards the nearest orthogonal matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / np.linalg.norm(matrix)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "a CPU without bf16"])
def test_muon_moves_matrices_of_layers_along_orthogonal_ones(bf16, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: bf16)
    shapes = {"resblocks.0.tall": (24, 8), "resblocks.0.wide": (8, 24), "resblocks.0.bias": (8,)}
    shapes["table"] = (24, 8)
    generator = torch.Generator().manual_seed(0)
    parts = {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}
    of = Attached(nn.Identity(), parts, lambda kept, alpha: None, Average(momentum=0.0))
    values = {name: p.detach().double().numpy().copy() for name, p in parts.items()}
    before = {name: value.copy() for name, value in values.items()}
    momentum = {name: np.zeros_like(value) for name, value in values.items()}
    states = {name: {} for name in values}
    go(of, made("muon", {"weight_decay": 0.1}, of), range(3))
    for step in range(3):
        for number, (name, value) in enumerate(values.items()):
            g = gradient(value, step, number)
            if name in ("table", "resblocks.0.bias"):
                decay = 0.1 if name == "table" else 0.0
                values[name] = adam(value, g, states[name], weight_decay=decay)
                continue
            momentum[name] = 0.95 * momentum[name] + 0.05 * g
            way = orthogonal(0.05 * g + 0.95 * momentum[name])
            size = 0.2 * np.sqrt(max(value.shape))  # the mean square of a step of AdamW
            values[name] = value * (1 - 0.1 * LR) - LR * size * way
    for name, parameter in parts.items():
        moved = np.linalg.norm(values[name] - before[name])
        off = np.linalg.norm(parameter.detach().numpy() - values[name])
        # torch makes them orthogonal in bf16; fp32 differs from the formula in its rounding alone.
        assert off < (0.02 if bf16 else 1e-5) * moved, name


# ---------------------------------------------------------------- in a run

PARTS = {
    "full": ["method={name: full}"],
    "low rank": ["method.rank=2"],
    "lora": ["method={name: lora, rank: 2}"],
    "a head": [
        "method={name: r-adapter, towers: image}",
        "head={name: linear}",
        "objective=[{name: cross-entropy}]",
    ],
}


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def tensors(run):
    return (run.adapter).read_bytes()


@pytest.mark.parametrize("method", PARTS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_to_the_same_bits(recipe, tmp_path, name, method):
    settings = recipe(*PARTS[method], f"optimisation.name={name}")
    straight = train(settings, tmp_path / "straight")
    seen = []

    def should_stop():
        seen.append(1)
        return len(seen) == 4

    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path / "stopped", should_stop=should_stop)
    assert tensors(resume(caught.value.run)) == tensors(straight)


@pytest.mark.parametrize("name", ["spd", "ftp"])
def test_it_holds_a_run_nearer_to_its_start(recipe, tmp_path, name):
    def distance(chosen):
        changes = ["method={name: full}", "optimisation.lr=1e-3", f"optimisation.name={chosen}"]
        run = train(recipe(*changes), tmp_path / chosen)
        zero, one = merging.merge(run, 0.0), merging.merge(run, 1.0)
        return sum(float((one[key] - zero[key]).square().sum()) for key in zero) ** 0.5

    assert 0 < distance(name) < 0.95 * distance("adamw")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_is_left_out_changes_nothing(recipe, tmp_path, monkeypatch, name, precision):
    """Neither weights nor what the optimizer keeps: gradients that are not finite reach neither."""
    from radapter.training import loop, step

    parts, states, calls = [], [], []
    real, prepare = step.gradients, loop.prepare

    def gradients(*arguments, **settings):
        loss = real(*arguments, **settings)
        calls.append(1)
        if len(calls) == 3:
            parts[0].trained[0].grad.fill_(float("inf"))
        return loss

    def on_step(m):
        state = checkpoints.optimizer_tensors(parts[0].optimizer) | parts[0].attached.state()
        states.append({key: value.clone() for key, value in state.items()})

    monkeypatch.setattr(step, "gradients", gradients)
    monkeypatch.setattr(loop, "prepare", lambda r: (parts.append(prepare(r)), parts[-1])[1])
    changes = [f"optimisation.name={name}", "optimisation.stop_after_bad_steps=2"]
    settings = recipe("method={name: full}", f"precision={precision}", *changes)
    try:
        train(settings, tmp_path, on_step=on_step)
    except GateFailed as error:
        pytest.fail(str(error))
    same = [key for key in states[1] if torch.equal(states[1][key], states[2][key])]
    assert set(same) == set(states[1])
    assert any(not torch.equal(states[3][key], value) for key, value in states[2].items())
    assert all(value.isfinite().all() for value in states[-1].values())
