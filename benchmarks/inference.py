"""What adapters that do not fold, and heads, cost at inference, beside the model without them.

    python benchmarks/inference.py [--model ViT-B-32:random] [--batch 1 --batch 32] [--rounds 10]

R-Adapter, LoRA and full fine-tuning fold into the weights: theirs is the model without adapters.
The towers of each method are exported to ONNX in fp32 and run by onnxruntime on one thread, by
turns, so that a slow moment hits all alike. Texts have 16 tokens, or as many as a text tower takes
that takes one length alone, or no more. Adapters and heads have the weights that training begins
with, and caches random features; a time does not depend on them. A head comes after the picture
tower: it adds its share of that tower's time. Every class has sixteen examples.
"""

from __future__ import annotations

import copy
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

from radapter import bundle, models
from radapter.benchmarking.measuring import Case, measure
from radapter.export.graphs import Probabilities
from radapter.export.towers import BATCH, export_towers, onnx_of
from radapter.heads.head import Start
from radapter.models import LoadedModel
from radapter.registry import HEADS, METHODS, load, schema

OURS = "folded: R-Adapter, LoRA, full"
ATTACHED: dict[str, dict[str, Any]] = {
    "UniAdapter, rank 128": {"name": "uniadapter", "rank": 128, "norm": "own"},
    "UniAdapter, rank 512": {"name": "uniadapter", "rank": 512, "norm": "own"},
    "Multiway-Adapter, rank 64": {"name": "multiway", "rank": 64, "scale": 0.6},
    "Multiway-Adapter, enhancer as released": {"name": "multiway", "enhancer": "mlp"},
}
EXAMPLES, SHOTS = (1_000, 16_000), 16
LENGTH, OPSET = 16, 20


def attached(base: LoadedModel, method: dict[str, Any]) -> torch.nn.Module:
    """A copy of the base model with a method's adapters."""
    name = method["name"]
    settings = schema(name, METHODS[name], "attach").model_validate(method).arguments()
    model = copy.deepcopy(base.model)
    load(METHODS, name).attach(model, **settings)
    return model.eval()


def examples(base: LoadedModel, batch: int) -> dict[str, Tensor]:
    """Noise and short texts, by the names that the towers' inputs have."""
    height, width = models.image_size(base.model)
    noise = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    texts = [f"a picture of thing number {n}" for n in range(batch)]
    length = base.context_length
    if models.takes_short_texts(base.model):
        length = min(length, LENGTH)
    tokens = base.tokenizer(texts, context_length=length)
    return {"pixel_values": noise, "input_ids": tokens}


def sessions(model: torch.nn.Module, base: LoadedModel) -> dict[str, Callable[[Tensor], Tensor]]:
    """The exported towers by name, in onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "onnx").mkdir()
        export_towers(
            model,
            folder,
            examples(base, 3),
            precision="fp32",
            context_length=base.context_length,
            opset=OPSET,
        )
        for tower in bundle.TOWERS:
            session = onnxruntime.InferenceSession(
                str(folder / tower.file), options, providers=["CPUExecutionProvider"]
            )

            def call(values: Tensor, session: Any = session, name: str = tower.input) -> Tensor:
                return torch.from_numpy(session.run(None, {name: values.numpy()})[0])

            found[tower.name] = call
    return found


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


def main(
    model: Annotated[str, typer.Option(help="What `models.load` takes.")] = "ViT-B-32:random",
    batch: Annotated[list[int] | None, typer.Option(help="Default: 1 and 32.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each case.")] = 10,
    seconds: Annotated[float, typer.Option(help="Of a turn.")] = 0.5,
) -> None:
    """Print the table."""
    base = models.load(model)
    subjects = {OURS: sessions(base.model, base)}
    subjects |= {label: sessions(attached(base, own), base) for label, own in ATTACHED.items()}
    cases: dict[tuple[str, int], dict[str, Case]] = {}
    for tower in bundle.TOWERS:
        for size in batch or [1, 32]:
            given = examples(base, size)[tower.input]
            cases[tower.name, size] = {
                label: Case(
                    tower.name, label, "fp32", "cpu", size, 1,
                    lambda call=towers[tower.name], given=given: call(given), label == OURS,
                )
                for label, towers in subjects.items()
            }  # fmt: skip
    dim = int(base.config["model_cfg"]["embed_dim"])
    behind = {
        (name, count, size): _of_head(name, count, size, head_session(name, dim, count), dim)
        for name in HEADS
        for count in EXAMPLES
        for size in batch or [1, 32]
    }
    of_towers = [case for of in cases.values() for case in of.values()]
    measure([*of_towers, *behind.values()], rounds, seconds)
    heads = [f"{name.partition('_')[0]}, batch {size}" for name, size in cases]
    print(f"{model}, onnxruntime {onnxruntime.__version__}, one thread: time of a call, folded = 1")
    print(f"| | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for label in subjects:
        ratios = [
            np.median(
                [
                    statistics.median(own) / statistics.median(plain)
                    for own, plain in zip(of[label].rounds, of[OURS].rounds, strict=True)
                ]
            )
            for of in cases.values()
        ]
        print(f"| {label} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    plain = [
        1000 * statistics.median(s for turn in of[OURS].rounds for s in turn)
        for of in cases.values()
    ]
    print(f"| {OURS}, ms | {' | '.join(f'{ms:.1f}' for ms in plain)} |")
    print("\nHeads: what they add to the time of the folded picture tower")
    columns = [(count, size) for count in EXAMPLES for size in batch or [1, 32]]
    print(
        "| | " + " | ".join(f"{count:,} examples, batch {size}" for count, size in columns) + " |"
    )
    print(f"|---|{'---|' * len(columns)}")
    picture = next(tower.name for tower in bundle.TOWERS if tower.input == "pixel_values")
    for name in HEADS:
        shares = [
            np.median(
                [
                    statistics.median(own) / statistics.median(tower)
                    for own, tower in zip(
                        behind[name, count, size].rounds,
                        cases[picture, size][OURS].rounds,
                        strict=True,
                    )
                ]
            )
            for count, size in columns
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
