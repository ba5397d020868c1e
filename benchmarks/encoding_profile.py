"""Where the time of encoding goes, in PyTorch and in onnxruntime, fp32, one thread, batch 1.

    python benchmarks/encoding_profile.py [--model ViT-B-32:random] [--text-length 16]

The share of each operator, by both profilers; then the matrix products that most of it is, alone:
the same shapes in both, by turns, in GFLOP/s of processor time.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import typer
from onnx import numpy_helper, parser

from radapter import bundle, models
from radapter.export import Contents, export_bundle
from radapter.runtimes.pytorch import PyTorchRuntime

CALLS = 20
TOP = 5


def options(profile_prefix: Path | None = None) -> onnxruntime.SessionOptions:
    """One thread; with a profile where its files are to go."""
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = 1
    if profile_prefix is not None:
        chosen.enable_profiling, chosen.profile_file_prefix = True, str(profile_prefix)
    return chosen


def onnx_shares(path: Path, inputs: np.ndarray, folder: Path) -> Counter[str]:
    """Microseconds by operator."""
    session = onnxruntime.InferenceSession(path, options(folder / "profile"))
    for _ in range(CALLS):
        session.run(None, {session.get_inputs()[0].name: inputs})
    events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    return spent


def torch_shares(encode: object, inputs: torch.Tensor) -> Counter[str]:
    """Microseconds by operator, without what it calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(CALLS):
            encode(inputs)  # type: ignore[operator]
    return Counter({e.key: int(e.self_cpu_time_total) for e in profile.key_averages()})


def product_speeds(rows: int, inner: int, columns: int, rounds: int = 15) -> tuple[float, float]:
    """GFLOP/s of [rows, inner] @ [inner, columns], torch and onnxruntime, best of rounds."""
    weight = torch.randn(inner, columns)
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[{rows}, {inner}] x) => '
        f"(float[{rows}, {columns}] y) {{y = MatMul (x, w)}}"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight.numpy(), "w"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options())
    layer = torch.nn.Linear(inner, columns, bias=False)
    x = torch.randn(rows, inner)
    calls = max(1, int(2e8 / (rows * inner * columns)))
    best = [0.0, 0.0]
    with torch.no_grad():
        for _ in range(rounds):
            for i, call in enumerate(
                (lambda: layer(x), lambda: session.run(None, {"x": x.numpy()}))
            ):
                call()
                start = time.process_time()
                for _ in range(calls):
                    call()
                spent = time.process_time() - start
                best[i] = max(best[i], 2e-9 * rows * inner * columns * calls / spent)
    return best[0], best[1]


def main(
    model: Annotated[
        str, typer.Option(help="NAME:TAG; random weights will do.")
    ] = "ViT-B-32:random",
    text_length: Annotated[int, typer.Option(help="Tokens.")] = 16,
) -> None:
    """Print the shares and the speeds."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {model}")
    loaded = models.load(model)
    size = loaded.config["preprocess_cfg"]["size"]
    rows, columns = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(1, 3, rows, columns)
    tokens = loaded.tokenizer(["one " * 100])[:, :text_length]
    runtime = PyTorchRuntime(loaded)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        export_bundle(loaded, folder / "bundle", Contents(max_batch=5), facts={})
        for what, file, encode, inputs in (
            ("pictures", bundle.VISION, runtime.encode_image, pixels),
            ("texts", bundle.TEXT, runtime.encode_text, tokens),
        ):
            found = {
                "torch": torch_shares(encode, inputs),
                "onnxruntime": onnx_shares(folder / "bundle" / file, inputs.numpy(), folder),
            }
            for name, spent in found.items():
                shares = [
                    f"{op} {100 * n / spent.total():.0f} %" for op, n in spent.most_common(TOP)
                ]
                print(f"{what}, {name}: {', '.join(shares)}")
    visual = loaded.model.visual
    layers = {
        tuple(p.shape)
        for name, p in visual.named_parameters()
        if ".resblocks.0." in name and p.ndim == 2
    }
    patches = len(visual.positional_embedding)
    print("\n| rows, layer | torch GFLOP/s | onnxruntime | ratio |\n|---|---|---|---|")
    for count in (patches, 32 * patches):
        for out, inner in sorted(layers):
            ours, theirs = product_speeds(count, inner, out)
            print(
                f"| {count}, {inner} -> {out} | {ours:.0f} | {theirs:.0f} | {theirs / ours:.2f} |"
            )


if __name__ == "__main__":
    typer.run(main)
