"""The training loop: from a recipe to a run folder with an averaged adapter in it."""

from __future__ import annotations

import functools
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from radapter import run as runs
from radapter.data import open_data
from radapter.data.dataset import check_broken, rooted
from radapter.data.pairs import Order, Pairs, loader, training_transform
from radapter.errors import BrokenInput, GateFailed, MissingDependency, RadapterError, UsageError
from radapter.methods import METHODS, Attached
from radapter.models import LoadedModel, load, takes_short_texts
from radapter.recipe import Recipe
from radapter.training import checkpoints, memory, objective
from radapter.training.optimisation import adamw, learning_rate

LARGEST_LOGIT_SCALE = math.log(100.0)  # CLIP's own limit while the temperature is trained


class Interrupted(RadapterError):
    """Training was asked to stop; its state is saved."""

    exit_code = 130

    def __init__(self, run: runs.Run, step: int):
        super().__init__(
            f"Stopped after step {step}; the state is saved. "
            f"Next: radapter train --resume {run.path}",
            details={"run": str(run.path), "step": step},
        )
        self.run, self.step = run, step


@dataclass(frozen=True)
class Plan:
    """What training will do, known before it starts."""

    pictures: int
    pairs: int
    batch_size: int
    steps: int
    trainable: int
    """Parameters that are trained"""
    parameters: int
    """Parameters of the model"""
    state_bytes: int
    """Memory for weights, gradients, averages and the optimizer's two moments, fp32"""
    device: str


@dataclass
class _Parts:
    recipe: Recipe
    base: LoadedModel
    base_hash: str
    parameters: int
    """Of the base model"""
    attached: Attached
    trained: list[torch.nn.Parameter]
    optimizer: torch.optim.AdamW
    pairs: Pairs
    retained: objective.Retention | None
    device: torch.device

    def order(self, start_step: int = 0) -> Order:
        o = self.recipe.optimisation
        return Order(len(self.pairs), o.batch_size, o.epochs, self.recipe.seed, start_step)

    def plan(self) -> Plan:
        order = self.order()
        trainable = sum(p.numel() for p in self.trained)
        frozen = sum(p.numel() for p in self.base.model.parameters() if not p.requires_grad)
        return Plan(
            pictures=len(self.pairs.dataset),
            pairs=len(self.pairs),
            batch_size=order.batch_size,
            steps=order.steps,
            trainable=trainable,
            parameters=self.parameters,
            state_bytes=4 * (frozen + 5 * trainable),
            device=str(self.device),
        )


def plan(recipe: Recipe) -> Plan:
    """Check data and model as `train` would and say what training would do; nothing is written."""
    return _prepare(recipe).plan()


def train(
    recipe: Recipe,
    root: Path = runs.DEFAULT_ROOT,
    *,
    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> runs.Run:
    """Train what the recipe says and leave the averaged adapter in a new run folder.

    Args:
        recipe: a validated recipe.
        root: the folder that run folders are made in.
        on_start: called once with the run and its plan.
        on_step: called after every step with `step`, `steps`, `loss`, `lr`, `seconds`.
        should_stop: asked after every step; if true, the state is saved and Interrupted raised.

    Raises:
        BrokenInput, UsageError, MissingDependency: before anything is written.
        GateFailed: the loss is no longer finite.
        Interrupted: on `should_stop`.
    """
    parts = _prepare(recipe)
    run = runs.create(rooted(recipe), root)
    with run.lock():
        _write_environment(run)
        on_start(run, parts.plan())
        _loop(run, parts, None, on_step, should_stop)
    return run


def resume(
    run: runs.Run,
    *,
    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> runs.Run:
    """Go on from the run's newest whole checkpoint; a finished run is left as it is. See `train`.

    On one machine's CPU the result is bit for bit that of a run that was never stopped.
    """
    recipe = run.recipe()
    if run.adapter.is_file():
        return run
    with run.lock():
        runs.clear_temporary(run.path)
        parts = _prepare(recipe)
        checkpoint = checkpoints.load(run.checkpoints)
        on_start(run, parts.plan())
        _loop(run, parts, checkpoint, on_step, should_stop)
    return run


def _prepare(recipe: Recipe) -> _Parts:
    """Open the data, load the model, attach the method. Data first: it is what is often wrong."""
    device = _device(recipe.device)
    dataset = open_data(recipe.data)
    base = load(recipe.model, seed=recipe.seed)
    base_hash = base.weights_hash
    parameters = sum(p.numel() for p in base.model.parameters())
    base.model.to(device)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        settings = recipe.method.model_dump(exclude={"name"})
        attached = METHODS[recipe.method.name].attach(base.model, **settings)
    _check_text_length(recipe.data.text_length, base)
    transform = training_transform(recipe.data.augmentation, base.config["preprocess_cfg"])
    mix = recipe.objective.mix_captions
    if mix and not (recipe.data.task == "classification" and all(dataset.captions or [[]])):
        raise UsageError(
            "objective.mix_captions puts captions among class prompts: it needs `task: "
            "classification` and pictures that have captions."
        )
    pairs = Pairs(dataset, recipe.data, transform, recipe.seed, mix)
    if len(pairs) < 2:
        raise BrokenInput(f"{dataset.source} has {len(pairs)} pair: training needs at least two.")
    trained = list(attached.parameters())
    optimizer = adamw(trained, recipe.optimisation)
    retained = None
    if recipe.objective.retain is not None:
        retained = objective.Retention(
            recipe.objective.retain,
            objective.retained_captions(recipe.objective.retain, dataset),
            functools.partial(base.tokenizer, context_length=recipe.data.text_length),
            objective.zero_shot_model(attached, base.model),
        )
    return _Parts(
        recipe,
        base,
        base_hash,
        parameters,
        attached,
        trained,
        optimizer,
        pairs,
        retained,
        device,
    )


def _check_text_length(wanted: int | None, base: LoadedModel) -> None:
    if wanted is None:
        return
    if not takes_short_texts(base.model):
        raise UsageError(f"data.text_length: the text tower of {base.name} takes full length only.")
    if wanted > base.tokenizer.context_length:
        raise UsageError(
            f"data.text_length is {wanted}, and the context length of {base.name} is "
            f"{base.tokenizer.context_length}."
        )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingDependency("The recipe wants `device: cuda`, and torch finds no CUDA device.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _loop(
    run: runs.Run,
    parts: _Parts,
    checkpoint: checkpoints.Checkpoint | None,
    on_step: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> None:
    recipe, o, attached = parts.recipe, parts.recipe.optimisation, parts.attached
    optimizer = parts.optimizer
    step, before = 0, 0.0
    if checkpoint is not None:
        attached.load_state(checkpoint.method)
        checkpoints.load_optimizer(optimizer, checkpoint.optimizer)
        step, before = checkpoint.step, checkpoint.seconds
    order = parts.order(start_step=step)
    log_every = max(1, order.steps // 500)
    _cut_metrics(run.metrics, step)
    broken: set[str] = set()
    recent: list[float] = []
    start = saved = time.monotonic()
    _training_mode(parts.base.model)

    def save_checkpoint() -> None:
        state = checkpoints.Checkpoint(
            step,
            before + time.monotonic() - start,
            attached.state(),
            checkpoints.optimizer_tensors(optimizer),
        )
        checkpoints.save(run.checkpoints, state, recipe.checkpoints.keep)

    with open(run.metrics, "a", encoding="utf-8") as metrics_file:
        for batch in loader(parts.pairs, order, parts.base.tokenizer, recipe.workers):
            _count_broken(broken, batch["broken"], recipe.data.broken_images)
            lr = learning_rate(
                step,
                steps=order.steps,
                peak=o.lr,
                warmup_steps=o.warmup_steps,
                final=o.final_lr,
            )
            for group in optimizer.param_groups:
                group["lr"] = lr
            # Each step's draws depend on its number alone, so no generator state is stored.
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            if len(batch["groups"]):
                recent.append(_step(parts, batch))
            step += 1
            metrics = {
                "step": step,
                "steps": order.steps,
                "loss": sum(recent) / max(1, len(recent)),
                "lr": lr,
                "start_share": attached.start_share(),
                "seconds": round(before + time.monotonic() - start, 3),
                **memory.peak(parts.device),
            }
            if step % log_every == 0 or step == order.steps:
                metrics_file.write(json.dumps(metrics) + "\n")
                metrics_file.flush()
                recent.clear()
            on_step(metrics)
            if step < order.steps:
                if should_stop():
                    save_checkpoint()
                    raise Interrupted(run, step)
                if time.monotonic() - saved > recipe.checkpoints.every_seconds:
                    save_checkpoint()
                    saved = time.monotonic()
    _write_adapter(run, parts, order.steps)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _training_mode(model: torch.nn.Module) -> None:
    """Training mode, but for BatchNorm: its statistics are no parameters, so they stay the base's,
    in training as in the merged model."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def _step(parts: _Parts, batch: dict[str, Any]) -> float:
    """One optimizer step; the loss."""
    optimizer, recipe, model = parts.optimizer, parts.recipe, parts.base.model
    loss = objective.loss(
        model,
        batch,
        recipe.objective,
        device=parts.device,
        low_precision=recipe.precision == "bf16",
        retained=parts.retained,
    )
    if not math.isfinite(loss.item()):
        raise GateFailed(
            f"The loss became {loss.item()}; nothing of this step was kept. "
            "Try a smaller optimisation.lr."
        )
    optimizer.zero_grad()
    loss.backward()
    if recipe.optimisation.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(parts.trained, recipe.optimisation.clip_norm)
    optimizer.step()
    logit_scale: torch.Tensor = model.logit_scale  # type: ignore[assignment]
    if logit_scale.requires_grad:
        with torch.no_grad():
            logit_scale.clamp_(0.0, LARGEST_LOGIT_SCALE)
    parts.attached.update_average()
    return loss.item()


def _count_broken(broken: set[str], found: list[str], limit: int) -> None:
    for message in found:
        if message not in broken and limit:
            print(f"skipped: {message}", file=sys.stderr)
        broken.add(message)
    check_broken(sorted(broken), limit, "data.broken_images")


def _cut_metrics(path: Path, step: int) -> None:
    """Drop the lines after the step that a resumed run starts from, and a half-written last one."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            break
    runs.write_atomic(path, "".join(kept))


def _write_adapter(run: runs.Run, parts: _Parts, steps: int) -> None:
    """adapter.safetensors; no time and no run id in it, so one seed gives one file."""
    facts = {
        "schema_version": 1,
        "method": parts.recipe.method.model_dump(mode="json"),
        "base_model": parts.recipe.model,
        "base_seed": parts.recipe.seed if parts.recipe.model.endswith(":random") else 0,
        "base_hash": parts.base_hash,
        "steps": steps,
        "trained_parameters": sum(p.numel() for p in parts.trained),
        "start_share": parts.attached.start_share(),
    }
    if parts.pairs.classify:
        # Before the adapter: a run that has finished training has what `export` needs.
        names = parts.pairs.dataset.class_names
        prompts = [[t.replace("{}", name) for t in parts.pairs.templates] for name in names]
        classes = {"schema_version": 1, "names": names, "prompts": prompts}
        runs.write_atomic(run.path / "classes.json", json.dumps(classes, indent=1) + "\n")
    # One metadata entry: the order of several is not fixed in the file.
    metadata = {"radapter": json.dumps(facts, sort_keys=True)}
    runs.write_atomic(run.adapter, to_safetensors(parts.attached.stored(), metadata=metadata))


def _write_environment(run: runs.Run) -> None:
    packages = {}
    for name in ("radapter", "torch", "torchvision", "open_clip_torch", "numpy", "safetensors"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed as a package"
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": packages,
    }
    runs.write_atomic(run.path / "environment.json", json.dumps(facts, indent=2) + "\n")
