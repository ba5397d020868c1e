"""radapter bench: how fast each runtime is here, in each precision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import UsageError
from radapter.runtimes.engines import ENGINES
from radapter_cli import console
from radapter_cli.export import PrecisionChoice
from radapter_cli.model_options import ModelOption


def bench(
    run: console.RunOption = None,
    model: ModelOption = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(ENGINES)}; may be given "
            "several times. PyTorch is the reference, in fp32. Default: all that run here.",
        ),
    ] = None,
    precision: Annotated[
        list[PrecisionChoice] | None,
        typer.Option(
            help="Of exported engines; may be given several times. Default: those of the bundle; "
            "of a model without a bundle, fp32 and int8."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,N", help="Sizes of batches.")] = "1,32",
    threads: Annotated[
        str | None, typer.Option(metavar="N,N", help="Threads, on the CPU. Default: torch's.")
    ] = None,
    text_length: Annotated[
        int | None, typer.Option(help="Tokens of a text. Default: as many as the model takes.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each case is measured.")] = 10,
    seconds: Annotated[float, typer.Option(min=0, help="Length of one measurement.")] = 0.5,
    as_json: console.JsonOption = False,
) -> None:
    """Measure latency and throughput of both towers, also as ratios to PyTorch.

    A model without a bundle is exported to a temporary folder. What cannot be measured here is
    left out and named with the reason.

    [bold]Examples[/]

        radapter bench
        radapter bench --batch 1,32 --threads 1,2
        radapter bench --model pictogram-clip --precision int8
        radapter bench --model bundle/ --text-length 16
    """
    if run and model:
        raise UsageError("--run and --model both name a model: give one of them.")
    batches = numbers("--batch", batch)
    counts = None if threads is None else numbers("--threads", threads)
    with console.status("loading"):
        from radapter import benchmarking
        from radapter.run import find
    settings = benchmarking.Settings(
        runtimes=runtime or list(ENGINES),
        precisions=None if precision is None else [choice.value for choice in precision],
        batches=batches,
        threads=counts,
        rounds=rounds,
        seconds=seconds,
        text_length=text_length,
    )
    source = model or find(Path(run) if run else None)
    with console.progress("bench") as update:
        result = benchmarking.bench(source, settings, on_progress=update)
    if as_json:
        return console.print_json(result)
    from radapter.reporting.bench_tables import bench_table

    console.out.print(bench_table(result))
    return None


def numbers(option: str, text: str) -> list[int]:
    """`1,32` -> [1, 32]; UsageError for anything else than numbers of 1 or more."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise UsageError(f"{option} takes numbers of 1 or more, such as 1,32, found '{text}'.")
    return found
