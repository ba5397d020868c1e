"""What only a GPU can show of radapter: steps, each bounded, and a table of what they found.

    make gpu                                       pytest -m gpu, then this
    python benchmarks/gpu.py                       all steps, at most 66 minutes
    python benchmarks/gpu.py --only training --only parity
    python benchmarks/gpu.py --device cpu --tiny   the script itself, where there is no GPU

It needs the checkout with its environment and nothing else. A row of the table is a figure, or a
verdict: `ok`, or `BAD` where what was found is not what was wanted. The table is printed, and
written with the log and all rows into --out. Exit code 3 if a verdict is BAD, 1 if a step fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).parent
STEPS = {
    "machine": (90, "versions; what the card multiplies and copies"),
    "training": (600, "whole runs on the device beside one on the CPU; stop and resume"),
    "parity": (240, "a merged model on all data sets, in three precisions, beside the CPU"),
    "host": (120, "what a step waits for: copies, and points where the CPU waits"),
    "evaluation": (180, "pictures a second in three precisions; cuDNN on, cosines to the CPU"),
    "methods": (420, "what a step costs, method against method"),
    "ranks": (180, "two processes on one card train as one does"),
    "nccl": (60, "the collectives, in a group of one"),
    "commands": (420, "merge auto, export, eval of everything, with their exit codes"),
    "loader": (240, "pairs a second from JPEG files beside what a step takes"),
    "onnx": (120, "onnxruntime on CUDA: fp32 is no TF32"),
    "memory": (120, "what is said where memory runs out; ViT-L/14 at 336 pixels in parts"),
    "launch": (150, "torchrun, and more devices than there are"),
    "bench": (150, "radapter bench on both devices"),
    "compiled": (240, "torch.compile: the same losses"),
    "levers": (600, "R-Adapter with one thing changed at a time"),
}
"""By name: seconds at most, and what it shows; the most telling first"""
TINY_LIMIT = 600
ROOMY = 75e9
"""Bytes of a card that the largest batches are meant for"""


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script.")] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="The smallest sizes.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Several times.")] = None,
    seconds: Annotated[int, typer.Option(help="Of all steps; none begins afterwards.")] = 3600,
    out: Annotated[Path, typer.Option(help="A folder for the results.")] = Path("gpu-check"),
) -> None:
    """Run the steps, print and write the table."""
    unknown = sorted(set(only or ()) - set(STEPS))
    if unknown:
        raise typer.BadParameter(f"No step {unknown[0]}: there are {', '.join(STEPS)}.")
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows, log = out / "rows.jsonl", out / "log.txt"
    rows.write_text("")
    log.write_text("")
    begun, ended = time.monotonic(), {}
    for name, (limit, _) in STEPS.items():
        if only and name not in only:
            continue
        if time.monotonic() - begun > seconds:
            ended[name] = ("no time left", 0.0)
            continue
        print(f"{name} (at most {limit} s)", file=sys.stderr, flush=True)
        start = time.monotonic()
        code = run_step(name, device, tiny, out, log, TINY_LIMIT if tiny else limit)
        ended[name] = (code, time.monotonic() - start)
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    text = table(found, ended)
    (out / "table.md").write_text(text)
    print(text)
    if any(row["ok"] is False for row in found):
        raise SystemExit(3)
    if any(code != "done" for code, _ in ended.values()):
        raise SystemExit(1)


def run_step(name: str, device: str, tiny: bool, out: Path, log: Path, limit: int) -> str:
    """Run a step as a process group of its own, so that its workers end with it."""
    command = [sys.executable, str(HERE / "gpu_steps.py"), name, device, str(int(tiny)), str(out)]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RADAPTER_CACHE": str(out / "cache"),
    }
    with open(log, "a") as file:
        print(f"=== {name}", file=file, flush=True)
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | own, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit} s"
        finally:
            end(process)
    return "done" if code == 0 else f"exit code {code}"


def end(process: subprocess.Popen[Any]) -> None:
    """End whatever is left of the step's own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def fitting(batch: int, memory: float) -> int:
    """A batch for a card with so many bytes: halved until it takes no larger share of them."""
    size = batch
    while size > 8 and size * ROOMY > batch * memory:
        size //= 2
    return size


def table(rows: list[dict[str, Any]], ended: dict[str, tuple[str, float]]) -> str:
    """Markdown: a part for each step, in the order of `ended`."""
    lines = []
    for name, (code, seconds) in ended.items():
        lines += [f"### {name}: {STEPS[name][1]}", "", f"{code}, {seconds:.0f} s", ""]
        own = [row for row in rows if row["step"] == name]
        if own:
            lines += ["| | what | found | wanted |", "| --- | --- | --- | --- |"]
            mark = {True: "ok", False: "**BAD**", None: ""}
            lines += [
                f"| {mark[row['ok']]} | {row['name']} | {row['value']} | {row['want']} |"
                for row in own
            ]
            lines.append("")
    good, bad, figures = (sum(row["ok"] is kind for row in rows) for kind in (True, False, None))
    not_done = [name for name, (code, _) in ended.items() if code != "done"]
    lines.append(f"{good} ok, {bad} bad, {figures} figures; steps that did not end well: "
                 f"{', '.join(not_done) or 'none'}.")  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
