"""What a training step costs: ratios of time and peak memory, method against method and lever by
lever, and what is stored of it, as a share of the model's parameters.

    python benchmarks/training.py methods [--model ViT-B-32:random] [--batch 96]
    python benchmarks/training.py levers [--model ViT-B-32:random] [--batch 32]
    python benchmarks/training.py methods --device cuda --precision bf16 --model ViT-B-16:random
    python benchmarks/training.py saved [--model ViT-B-32:random] [--batch 32]

Each case is a process of its own, since peak memory is a process's. The cases of a model take
turns, and the shortest of all their steps counts. On a CPU time is the process's own, of one
thread, so that others on the machine change it little. On a GPU it is the clock's, from when the
device has nothing to do until it has nothing to do again, with the batch on the host before; memory
is what torch has allocated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import torch
import typer

METHODS: dict[str, dict[str, Any]] = {
    "full fine-tuning": {"method": "full"},
    "full fine-tuning, texts of full length": {"method": "full", "off": ["short texts"]},
    "R-Adapter, full rank": {},
    "R-Adapter, rank 64": {"settings": {"rank": 64}},
    "R-Adapter as its authors run it": {"off": ["short texts", "folding", "copy-free attention"]},
    "LoRA, rank 8": {"method": "lora"},
    "UniAdapter, rank 128": {"method": "uniadapter", "settings": {"norm": "own"}},
    "Multiway-Adapter, rank 64": {"method": "multiway", "settings": {"scale": 0.6}},
    "Multiway-Adapter as released": {"method": "multiway", "settings": {"enhancer": "mlp"}},
    "open_clip's training loop": {"method": "open_clip"},
}
LEVERS: dict[str, dict[str, Any]] = {
    "R-Adapter, full rank": {},
    "without short texts": {"off": ["short texts"]},
    "without folding: modules after the layers": {"off": ["folding"]},
    "without copy-free attention: nn.MultiheadAttention's own": {"off": ["copy-free attention"]},
    "without scaled_dot_product_attention": {"off": ["copy-free attention", "sdpa"]},
    "with gradients below the first adapter": {"off": ["frozen below"]},
    "without the fused optimizer": {"off": ["fused"]},
    "four pairs a text, each text once": {"pairs_of_a_text": 4},
    "four pairs a text, a text for each pair": {"pairs_of_a_text": 4, "off": ["distinct texts"]},
    "channels last": {"on": ["channels last"]},
    "bf16": {"recipe": ["precision=bf16"]},
    "bf16 with fused attention": {"recipe": ["precision=bf16"], "off": ["plain attention"]},
    "activation checkpointing": {"recipe": ["activation_checkpointing=true"]},
    "torch.compile": {"recipe": ["compile=true"]},
}
TEXTS = ["a photo of a cat.", "two dogs on a red sofa", "the sea at night", "a small green bird"]
NO_ROOM = "does not fit"
app = typer.Typer(add_completion=False)
Models = Annotated[list[str] | None, typer.Option(help="May be given several times.")]


@app.command()
def one(
    case: str, model: str, batch: int, steps: int, device: str = "cpu", precision: str = "fp32"
) -> None:
    """Seconds of the shortest step, peak memory and the share of the model's parameters that is
    stored, of one case, as JSON."""
    from radapter import models
    from radapter.errors import MissingDependency, ran_out_of_memory
    from radapter.training import memory

    settings = {"device": device, "precision": precision, **json.loads(case)}
    loaded = models.load(model)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    content = content_of(loaded, batch, settings.get("pairs_of_a_text", 1))
    if device == "cpu":
        torch.set_num_threads(1)
    run = _open_clip if settings.get("method") == "open_clip" else _ours
    try:
        loaded.model.to(device)
        with contextlib.redirect_stdout(sys.stderr):
            seconds = list(run(loaded, content, settings, steps + 1))  # the first one allocates
    except Exception as error:
        if ran_out_of_memory(error):
            raise SystemExit(MissingDependency.exit_code) from error
        raise
    peak = memory.peak(torch.device(device))["peak_memory_bytes"]
    stored = settings.get("stored", parameters) / parameters
    print(json.dumps({"seconds": min(seconds[1:]), "peak": peak, "stored": stored}))


def _now(device: str) -> float:
    """Seconds, once the device has done all that it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def content_of(loaded: Any, batch: int, each: int = 1) -> dict[str, Any]:
    """A batch as loaders give it: bytes of noise and short texts, `each` pairs a text."""
    size = loaded.config["preprocess_cfg"]["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "images": torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8),
        "tokens": loaded.tokenizer([f"{TEXTS[i % 4]} {i}" for i in range(batch // each)]),
        "text_of": torch.arange(batch) // each,
        "groups": torch.arange(batch) // each,
        "own": torch.zeros(batch, dtype=torch.bool),
    }


def _pixels(loaded: Any, device: str) -> Any:
    from radapter.training.feeding import Pixels

    cfg = loaded.config["preprocess_cfg"]
    return Pixels(cfg["mean"], cfg["std"], torch.device(device))


def prepared(loaded: Any, content: dict[str, Any], case: dict[str, Any]) -> Any:
    """What a step of radapter's loop needs (and no data), with levers switched off."""
    from radapter import recipe as recipes
    from radapter import registry
    from radapter.methods import folded, r_adapter
    from radapter.objectives import contrastive
    from radapter.optimizers import adamw
    from radapter.training import execution, gradients
    from radapter.training.preparing import Parts
    from radapter.training.step import training_mode

    method, off, on = case.get("method", "r-adapter"), case.get("off", []), case.get("on", [])
    data = "{source: emoji, task: captions}"
    text = f"{{name: step, model: x, method: {{name: {method}}}, data: {data}}}"
    changes = [f"precision={case['precision']}", *case.get("recipe", [])]
    recipe = recipes.parse(text, "recipe", changes)
    device = case["device"]
    torch.manual_seed(0)
    attached = registry.load(registry.METHODS, method).attach(
        loaded.model, **case.get("settings", {})
    )
    trained = list(attached.parameters())
    optimizer = adamw.optimizer(attached, recipe.optimisation.lr)
    if "short texts" in off:
        gradients.shorten = lambda model, tokens: tokens
    if "folding" in off:
        r_adapter.Adapter.after_linear = lambda self, linear, h, z=None: self(
            torch.nn.functional.linear(h, linear.weight, linear.bias) if z is None else z
        )
    if "copy-free attention" in off:
        folded.can_attend = lambda *arguments: False
    if "frozen below" in off:
        for part in (loaded.model.visual.conv1, loaded.model.token_embedding):
            part.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    if "plain attention" in off:
        execution.SHORT = 0
    if "fused" in off:
        optimizer = torch.optim.AdamW(trained, lr=recipe.optimisation.lr, weight_decay=0.0)
    if "distinct texts" in off:
        content["tokens"] = content["tokens"][content["text_of"]]
        content["text_of"] = torch.arange(len(content["tokens"]))
    if "channels last" in on:
        loaded.model.visual.conv1.to(memory_format=torch.channels_last)
        content["images"] = content["images"].contiguous(memory_format=torch.channels_last)
    execution.set_up(loaded.model, recipe)
    training_mode(loaded.model)
    return Parts(
        recipe=recipe,
        base=loaded,
        base_hash="",
        parameters=0,
        method=recipe.method,
        attached=attached,
        trained=trained,
        optimizer=optimizer,
        pairs=None,  # type: ignore[arg-type]
        unlabelled=None,
        terms=[contrastive.term(None)],
        head=None,
        device=torch.device(device),
        precision=recipe.precision,
        scaler=torch.amp.GradScaler(device) if recipe.precision == "fp16" else None,
        held_out=None,
        trackers=[],
        workers=0,
        pixels=_pixels(loaded, device),
    )


def _ours(
    loaded: Any, content: dict[str, Any], case: dict[str, Any], steps: int
) -> Iterator[float]:
    from radapter.precision import exact_fp32
    from radapter.training.step import optimizer_step

    parts, device, off = prepared(loaded, content, case), case["device"], case.get("off", [])
    case["stored"] = sum(tensor.numel() for tensor in parts.attached.stored().values())
    plain = [torch.nn.attention.SDPBackend.MATH]
    attention = torch.nn.attention.sdpa_kernel(plain) if "sdpa" in off else contextlib.nullcontext()
    with attention, exact_fp32():  # as training is
        for step in range(steps):
            torch.manual_seed(step)
            start = _now(device)
            optimizer_step(parts, content)
            yield _now(device) - start


def _open_clip(
    loaded: Any, content: dict[str, Any], case: dict[str, Any], steps: int
) -> Iterator[float]:
    """Steps of `open_clip_train.train.train_one_epoch`, with the optimizer that its `main` makes
    and batches of the same pictures and texts. (`main` needs pandas.)"""
    import open_clip
    from open_clip_train.train import train_one_epoch

    class Batches:
        num_batches, num_samples = steps, steps * len(content["images"])
        starts: list[float] = []  # noqa: RUF012

        def __iter__(self) -> Iterator[Any]:
            for _ in range(steps):
                self.starts.append(_now(case["device"]))
                yield content["images"], content["tokens"][content["text_of"]]
            self.starts.append(_now(case["device"]))

    precision = {"fp32": "fp32", "bf16": "amp_bf16", "fp16": "amp"}[case["precision"]]
    scaler = torch.amp.GradScaler(case["device"]) if precision == "amp" else None
    model = loaded.model.requires_grad_()
    model.output_dict = True
    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or any(s in n for s in ("bn", "ln", "bias"))]
    others = {id(p) for p in plain}
    rest = [p for _, p in named if id(p) not in others]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=5e-6, betas=(0.9, 0.98), eps=1e-6)
    arguments = argparse.Namespace(
        device=case["device"], precision=precision, distill=False, accum_freq=1,
        skip_scheduler=True, grad_clip_norm=1.0, horovod=False, rank=0, local_rank=0,
        world_size=1, distributed=False, log_every_n_steps=10**9,
        batch_size=len(content["images"]), wandb=False, save_logs=False, log_local=False,
    )  # fmt: skip
    # Its loader gives floats.
    content["images"] = _pixels(loaded, "cpu")(content["images"])
    batches = Batches()
    data = argparse.Namespace(dataloader=batches, set_epoch=lambda epoch: None)
    loss = open_clip.ClipLoss()
    train_one_epoch(model, {"train": data}, loss, 0, optimizer, scaler, None, None, arguments)
    yield from (b - a for a, b in zip(batches.starts, batches.starts[1:], strict=False))


def measure(
    cases: dict[str, dict[str, Any]],
    model: str,
    batch: int,
    steps: int,
    rounds: int,
    device: str = "cpu",
    precision: str = "fp32",
) -> None:
    """Run every case in turns and print a table of ratios to the first one.

    A case that fails is named in the table, as is one that the device has no room for, which is no
    failure."""
    from radapter.errors import MissingDependency

    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    loads = []
    for number in range(rounds):
        for name, case in cases.items():
            if name in failed:
                continue
            loads.append(os.getloadavg()[0])
            command = [sys.executable, __file__, "one", json.dumps(case), model]
            command += [str(batch), str(steps), "--device", device, "--precision", precision]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                no_room = done.returncode == MissingDependency.exit_code
                failed[name] = NO_ROOM if no_room else f"exit code {done.returncode}"
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            known = found.setdefault(name, result)
            known["seconds"] = min(known["seconds"], result["seconds"])
            print(f"round {number + 1}, {name}: {json.dumps(result)}", file=sys.stderr)
    first = next(iter(found or failed))
    print(f"\n{model}, batch {batch}; ratios to {first}, and how many times as fast")
    if device == "cpu":
        print(f"{precision}, one thread, load {min(loads):.1f} to {max(loads):.1f}\n")
    else:
        print(f"{precision}, {torch.cuda.get_device_name(device)}, torch {torch.__version__}\n")
    print("| | step | ratio | times as fast | peak memory | ratio | stored of the model |")
    print("|---|---|---|---|---|---|---|")
    for name, result in found.items():
        time_ratio, peak_ratio = (result[key] / found[first][key] for key in ("seconds", "peak"))
        print(
            f"| {name} | {1000 * result['seconds']:.0f} ms | {time_ratio:.2f} | "
            f"{1 / time_ratio:.2f} | {result['peak'] / 1e6:.0f} MB | {peak_ratio:.2f} | "
            f"{100 * result['stored']:.1f} % |",
            flush=True,
        )
    for name, why in failed.items():
        print(f"| {name} | {why} | | | | | |", flush=True)
    if set(failed.values()) - {NO_ROOM}:
        raise SystemExit(1)


Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16, but where a case says its own.")]


@app.command()
def methods(
    model: Models = None,
    batch: int = 32,
    steps: int = 3,
    rounds: int = 2,
    device: Device = "cpu",
    precision: Precision = "fp32",
) -> None:
    """Full fine-tuning, R-Adapter, LoRA and open_clip's own loop."""
    for name in model or ["pictogram-clip", "ViT-B-32:random", "ViT-B-16:random"]:
        measure(METHODS, name, batch, steps, rounds, device, precision)


@app.command()
def levers(
    model: Models = None,
    batch: int = 32,
    steps: int = 3,
    rounds: int = 2,
    device: Device = "cpu",
    precision: Precision = "fp32",
) -> None:
    """R-Adapter at full rank with one thing changed at a time."""
    cases = {lever: case for lever, case in LEVERS.items() if lever != precision}
    for name in model or ["ViT-B-32:random"]:
        measure(cases, name, batch, steps, rounds, device, precision)


@app.command()
def saved(model: str = "ViT-B-32:random", batch: int = 32) -> None:
    """What each method's forward pass keeps for its backward pass, in MB: where memory goes."""
    from radapter import models

    for name in ("full fine-tuning", "R-Adapter, full rank", "R-Adapter, rank 64", "LoRA, rank 8"):
        loaded, kept = models.load(model), dict[int, int]()
        known = {tensor.untyped_storage().data_ptr() for tensor in loaded.model.parameters()}

        def keep(tensor: torch.Tensor, known: Any = known, kept: Any = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            case = {"device": "cpu", "precision": "fp32", **METHODS[name]}
            list(_ours(loaded, content_of(loaded, batch), case, 1))
        print(f"{name}: {sum(kept.values()) / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    app()
