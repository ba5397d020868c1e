"""What adapters that do not fold, and heads, cost at inference, beside the model without them.

    python benchmarks/inference.py [--model ViT-B-32:random] [--batch 1 --batch 32] [--rounds 10]

R-Adapter, LoRA and full fine-tuning fold into the weights: theirs is the model without adapters. A
clip costs it its frames, and a query of a picture and a text costs it both. The bundle of each
method is exported in fp32 and run by onnxruntime on one thread, by turns, so that a slow moment
hits all alike. Texts have 16 tokens, or as many as a text tower takes that takes one length alone,
or no more. Adapters and heads have the weights that training begins with, and caches random
features; a time does not depend on them. A head comes after the picture tower: it adds its share of
that tower's time. Every class has sixteen examples.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from radapter import models
from radapter.benchmarking import Subject
from radapter.benchmarking.benchmark import TOWERS, towers_of
from radapter.benchmarking.inputs import Batches
from radapter.benchmarking.measuring import Case, measure
from radapter.export import Contents, export_bundle
from radapter.export.graphs import Probabilities
from radapter.export.towers import BATCH, onnx_of
from radapter.heads.head import Start
from radapter.models import LoadedModel
from radapter.models.frames import mean_of_frames
from radapter.registry import HEADS, METHODS, load, schema
from radapter.runtimes.onnx import OnnxRuntime

OURS = "folded: R-Adapter, LoRA, full"
FRAMES = 8
ATTACHED: dict[str, dict[str, Any]] = {
    "UniAdapter, rank 128": {"name": "uniadapter", "rank": 128, "norm": "own"},
    "UniAdapter, rank 512": {"name": "uniadapter", "rank": 512, "norm": "own"},
    "Multiway-Adapter, rank 64": {"name": "multiway", "rank": 64, "scale": 0.6},
    "Multiway-Adapter, enhancer as released": {"name": "multiway", "enhancer": "mlp"},
    "UCDR-Adapter": {"name": "ucdr-adapter", "domains": 4, "classes": 300},
    "inversion (LinCIR)": {"name": "inversion"},
    "MoTa": {"name": "mota"},
    f"MV-Adapter, {FRAMES} frames": {"name": "mv-adapter", "frames": FRAMES},
    f"STAN, {FRAMES} frames": {"name": "stan", "frames": FRAMES},
    f"GRU, {FRAMES} frames": {"name": "gru", "frames": FRAMES},
}
EXAMPLES, SHOTS = (1_000, 16_000), 16
LENGTH, OPSET = 16, 20
FACTS = dict.fromkeys(("recipe", "recipe_hash", "method", "base_model", "base_hash"), "none")


def attached(base: LoadedModel, method: dict[str, Any]) -> LoadedModel:
    """The base model with a copy of its weights and a method's adapters."""
    name = method["name"]
    settings = schema(name, METHODS[name], "attach").model_validate(method).arguments()
    model = copy.deepcopy(base.model)
    load(METHODS, name).attach(model, **settings)
    return dataclasses.replace(base, model=model.eval())


def inputs_of(loaded: LoadedModel) -> Batches:
    """Noise and short texts."""
    length = loaded.context_length
    if models.takes_short_texts(loaded.model):
        length = min(length, LENGTH)
    return Batches(Subject(loaded.name, loaded, None), {}, length)


def opened(loaded: LoadedModel, folder: Path) -> OnnxRuntime:
    """The model's bundle, written there, in onnxruntime on one thread."""
    facts = FACTS | {"alpha": 1.0}
    export_bundle(loaded, folder, Contents(["fp32"], max_batch=3), facts=facts)
    return OnnxRuntime(folder, threads=1)


def folded_calls(runtime: OnnxRuntime, inputs: Batches, batch: int) -> dict[str, Any]:
    """By tower: what the model without adapters does in its place."""
    pixels, tokens = inputs.pictures(batch), inputs.tokens(batch)
    clips = inputs.clips(batch, FRAMES)
    return {
        "pictures": lambda: runtime.encode_image(pixels),
        "texts": lambda: runtime.encode_text(tokens),
        "clips": lambda: mean_of_frames(runtime.encode_image, clips),
        "queries": lambda: runtime.encode_image(pixels) + runtime.encode_text(tokens),
    }


def head_session(name: str, dim: int, count: int) -> Callable[[Tensor], Tensor]:
    """A head of `count` training pictures, from features [n, dim], in onnxruntime on one thread."""
    classes = count // SHOTS
    generator = torch.Generator().manual_seed(0)
    weights, keys = (
        F.normalize(torch.randn(n, dim, generator=generator), dim=-1) for n in (classes, count)
    )
    start = Start(weights, 100.0, lambda passes: (keys, torch.arange(count) % classes))
    graph = Probabilities(load(HEADS, name).head(start).eval().requires_grad_(False))
    given = {"image_embeds": weights[:3]}
    program = onnx_of(graph, given, "probabilities", {"image_embeds": {0: BATCH}}, opset=OPSET)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda values: torch.from_numpy(session.run(None, {"image_embeds": values.numpy()})[0])


def ratio(case: Case, other: Case) -> float:
    """The median over rounds of how many times as long a call of one takes as one of the other."""
    turns = zip(case.rounds, other.rounds, strict=True)
    return float(np.median([statistics.median(a) / statistics.median(b) for a, b in turns]))


def main(
    model: Annotated[str, typer.Option(help="What `models.load` takes.")] = "ViT-B-32:random",
    batch: Annotated[list[int] | None, typer.Option(help="Default: 1 and 32.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each case.")] = 10,
    seconds: Annotated[float, typer.Option(help="Of a turn.")] = 0.5,
) -> None:
    """Print the tables."""
    sizes = batch or [1, 32]
    base = models.load(model)
    dim = int(base.config["model_cfg"]["embed_dim"])
    cases: dict[tuple[str, str, int], Case] = {}

    def add(label: str, tower: str, size: int, call: Callable[[], Tensor]) -> None:
        cases[label, tower, size] = Case(tower, label, "fp32", "cpu", size, 1, call, label == OURS)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plain, inputs = opened(base, folder / OURS), inputs_of(base)
        for size in sizes:
            for tower, call in folded_calls(plain, inputs, size).items():
                add(OURS, tower, size, call)
        for label, own in ATTACHED.items():
            loaded = attached(base, own)
            runtime, inputs = opened(loaded, folder / label), inputs_of(loaded)
            for tower in towers_of(runtime):
                for size in sizes:
                    add(label, tower, size, TOWERS[tower](runtime, inputs, size))
        behind = {
            (name, count, size): _of_head(name, count, size, head_session(name, dim, count), dim)
            for name in HEADS
            for count in EXAMPLES
            for size in sizes
        }
        measure([*cases.values(), *behind.values()], rounds, seconds)
    columns = [(tower, size) for tower in TOWERS for size in sizes]
    print(f"{model}, onnxruntime {onnxruntime.__version__}, one thread: time of a call, folded = 1")
    print("| | " + " | ".join(f"{tower}, batch {size}" for tower, size in columns) + " |")
    print(f"|---|{'---|' * len(columns)}")
    for label in ATTACHED:
        own_cases = [(cases.get((label, *of)), cases[OURS, *of]) for of in columns]
        cells = [f"{ratio(case, other):.2f}" if case else "" for case, other in own_cases]
        print(f"| {label} | {' | '.join(cells)} |")
    plain_ms = [
        1000 * statistics.median(s for turn in cases[OURS, *of].rounds for s in turn)
        for of in columns
    ]
    print(f"| {OURS}, ms | {' | '.join(f'{ms:.1f}' for ms in plain_ms)} |")
    print("\nHeads: what they add to the time of the folded picture tower")
    head_columns = [(count, size) for count in EXAMPLES for size in sizes]
    titles = [f"{count:,} examples, batch {size}" for count, size in head_columns]
    print(f"| | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}")
    for name in HEADS:
        shares = [
            ratio(behind[name, count, size], cases[OURS, "pictures", size])
            for count, size in head_columns
        ]
        print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |")


def _of_head(name: str, count: int, size: int, call: Callable[[Tensor], Tensor], dim: int) -> Case:
    features = F.normalize(
        torch.randn(size, dim, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    label = f"{name}, {count} examples"
    return Case("head", label, "fp32", "cpu", size, 1, lambda: call(features), reference=False)


if __name__ == "__main__":
    typer.run(main)
