"""What precisions cost in answers: the built-in model, exported, on all styles of the built-in set.

    python benchmarks/precision.py [--model pictogram-clip] [--pictures 128]

First, on training pictures and captions (noto): worst cosines to PyTorch in fp32 of each exported
file, and of the fp16 files with softmax in fp32. Then `emoji-shifts` (fold 0) in every precision
that onnxruntime runs: the mean over styles of each task, and how far it is from PyTorch's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import torch
import typer
from onnx import TensorProto, helper

from radapter import bundle, models
from radapter import recipe as recipes
from radapter.evaluation import of_run
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.parity import compare
from radapter.evaluation.suite import load_suite
from radapter.export import Contents, export_bundle, training_sample
from radapter.export.cases import Inputs
from radapter.runtimes.opened import from_loaded


def worst_cosine(path: Path, inputs: np.ndarray, expected: np.ndarray) -> float:
    """Of features [n, dim] that a file gives and those that were expected."""
    disabled = ["NchwcTransformer"] if "_fp16" in path.name else []
    options = onnxruntime.SessionOptions()
    if "_qdq" in path.name:  # as `radapter.runtimes.onnx` runs them
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(path, options, disabled_optimizers=disabled)
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(1) / norms).min())


def with_softmax_in_fp32(source: Path, target: Path) -> None:
    """The same graph with casts around every softmax."""
    model = onnx.load(source)
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Softmax":
            nodes.append(node)
            continue
        (before,), (after,) = node.input, node.output
        axis = next(a.i for a in node.attribute if a.name == "axis")
        nodes += [
            helper.make_node("Cast", [before], [f"{before}_fp32"], to=TensorProto.FLOAT),
            helper.make_node("Softmax", [f"{before}_fp32"], [f"{after}_fp32"], axis=axis),
            helper.make_node("Cast", [f"{after}_fp32"], [after], to=TensorProto.FLOAT16),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def main(
    model: Annotated[
        str, typer.Option(help="A name of open_clip, or the built-in.")
    ] = "pictogram-clip",
    pictures: Annotated[int, typer.Option(help="Training pictures and captions.")] = 128,
    suite: Annotated[
        str, typer.Option(help="Empty: no suite, for random weights.")
    ] = "emoji-shifts",
) -> None:
    """Export, compare, score, print two tables."""
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {model}")
    recipe = recipes.load(recipes.locate("emoji"))
    loaded = models.load(model)
    sample = training_sample(recipe, pictures)
    inputs = Inputs(loaded, pictures, sample)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        contents = Contents(["fp32", "fp16", "int8"])
        export_bundle(loaded, folder, contents, facts={}, sample=sample)
        print("\n| 1 - worst cosine, training data | pictures | texts |\n|---|---|---|")
        for precision in ("fp32", "fp16", "fp16, softmax in fp32", "int8", bundle.QDQ):
            row = []
            for tower in bundle.TOWERS:
                path = folder / bundle.in_precision(tower.file, precision.split(",")[0])
                if "softmax" in precision:
                    source, path = path, path.with_name("changed_fp16.onnx")
                    with_softmax_in_fp32(source, path)
                given, expected = (
                    tensor.numpy() for tensor in inputs.cases[tower.name]["training"]
                )
                row.append(1 - worst_cosine(path, given, expected))
            print(f"| {precision} | {row[0]:.1e} | {row[1]:.1e} |")
        if not suite:
            return
        chosen = load_suite(suite).for_recipe(recipe)
        opened = chosen.open()
        reference = evaluate(chosen, from_loaded(loaded), opened=opened)
        rows = compare(reference, reference)["metrics"]
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        print(f"\n| {suite}, mean over styles, % | " + " | ".join(metrics) + " | worst cosine |")
        print("|" + "---|" * (len(metrics) + 2))
        engines = of_run.engines(folder, ["onnx"], loaded)
        engines += of_run.engines(folder, ["onnx"], loaded, precisions=[bundle.QDQ])
        for deployed in engines:
            engine = evaluate(chosen, deployed, opened=opened)
            verdict = compare(reference, engine)
            cells = []
            for metric in metrics:
                mean = [row for row in verdict["metrics"] if row["metric"] == metric][-1]
                cells.append(f"{100 * mean['reference']:.2f} {100 * mean['difference']:+.2f}")
            print(
                f"| {deployed.name} | "
                + " | ".join(cells)
                + f" | {verdict['cosine']['worst']:.6f} |"
            )


if __name__ == "__main__":
    typer.run(main)
