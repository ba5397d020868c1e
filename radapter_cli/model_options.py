"""The options of commands that use a model: which one, and what runs it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radapter.errors import UsageError
from radapter.runtimes.engines import PROGRAMS, TORCH_PRECISIONS
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.inference import OpenModel


# typer takes choices as an Enum; members made here are those of the library's own table.


class EngineChoice(enum.StrEnum):
    vars().update({name: name for name in PROGRAMS})


class DeviceChoice(enum.StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class PrecisionChoice(enum.StrEnum):
    vars().update({name: name for name in TORCH_PRECISIONS})


FP32 = PrecisionChoice("fp32")
PrecisionOption = Annotated[
    PrecisionChoice,
    typer.Option(
        "--precision",
        help="Precision of PyTorch. Half precision changes the last digits; results name it. "
        "fp16 and bf16 "
        "are half the bytes; for GPUs with tensor cores (slower on most CPUs).",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME:TAG|NAME:FILE|FOLDER|BUNDLE",
        help="Instead of a run: an open_clip model, a model folder, or an exported bundle.",
    ),
]
EngineOption = Annotated[
    EngineChoice | None,
    typer.Option(
        "--runtime",
        help="What runs it. Default: torch; onnx for a bundle. tensorrt: engines that "
        "`radapter export --trt` built, on their GPU.",
    ),
]
DeviceOption = Annotated[
    DeviceChoice, typer.Option("--device", help="`auto` takes CUDA where there is any.")
]


def open_chosen(
    run: str | None,
    model: str | None,
    engine: EngineChoice | None,
    device: DeviceChoice,
    precision: PrecisionChoice = FP32,
) -> OpenModel:
    """The model that the options name; without any, the newest run's."""
    from radapter.run import find

    if run and model:
        raise UsageError("--run and --model both name a model: give one of them.")
    source = model or find(Path(run) if run else None)
    with console.status("loading"):
        from radapter.inference import open_model

        return open_model(source, engine.value if engine else None, device.value, precision.value)
