"""radapter export: ONNX files, and TensorRT engines, in a bundle to deploy."""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.bundle import PRECISIONS
from radapter.errors import GateFailed, UsageError
from radapter.runtimes.trt.flavours import FLAVOURS
from radapter_cli import console
from radapter_cli.model_options import DeviceChoice, DeviceOption

if TYPE_CHECKING:
    from radapter.export import Exported, Plan

ENGINES = "TensorRT"


class PrecisionChoice(enum.StrEnum):
    vars().update({name: name for name in PRECISIONS})


class CheckpointChoice(enum.StrEnum):
    open_clip = "open_clip"
    transformers = "transformers"


class InputChoice(enum.StrEnum):
    float = "float"
    uint8 = "uint8"


class FlavourChoice(enum.StrEnum):
    vars().update({name: name for name in FLAVOURS})


class HardwareChoice(enum.StrEnum):
    none = "none"
    ampere_plus = "ampere-plus"
    same_compute_capability = "same-compute-capability"


def export(
    run: console.RunOption = None,
    trt: Annotated[
        bool,
        typer.Option("--trt", help="Build TensorRT engines too.", rich_help_panel=ENGINES),
    ] = False,
    trt_flavour: Annotated[
        FlavourChoice | None,
        typer.Option(
            help="rtx builds without a GPU, for GeForce and RTX; tensorrt on the GPU that will run "
            "them. Default: what is installed.",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    trt_gpu: Annotated[
        list[str] | None,
        typer.Option(
            metavar="8.6|sm86",
            help="With rtx: a compute capability to build for, several times for several. "
            "Default: all but Turing.",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    trt_hardware: Annotated[
        HardwareChoice,
        typer.Option(
            metavar="GPUS",
            help=f"With tensorrt: other GPUs that the engines run on: {', '.join(HardwareChoice)}.",
            rich_help_panel=ENGINES,
        ),
    ] = HardwareChoice.none,
    trt_version_compatible: Annotated[
        bool,
        typer.Option(
            "--trt-version-compatible",
            help="With tensorrt: engines for later versions too.",
            rich_help_panel=ENGINES,
        ),
    ] = False,
    precision: Annotated[
        list[PrecisionChoice] | None,
        typer.Option(
            help="May be given several times; the first is what runs unless another is asked for. "
            "int8 is calibrated on training pictures and texts of the recipe. Default: the "
            "bundle's, else fp32."
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="SUITE|NAMES.TXT",
            help="Write a file that takes a picture and gives the probabilities of these classes.",
        ),
    ] = None,
    pictures: Annotated[
        InputChoice | None,
        typer.Option(
            "--input",
            help="`uint8`: write a file that resizes, crops and normalizes pictures itself, and "
            "let the classifier do so. For onnxruntime. Default: float.",
        ),
    ] = None,
    patches: Annotated[
        bool | None,
        typer.Option(
            "--patches/--no-patches",
            help="Write a file that gives the features of a picture's patches, for segmentation; "
            "in fp32 and fp16, for onnxruntime.",
        ),
    ] = None,
    checkpoint: Annotated[
        list[CheckpointChoice] | None,
        typer.Option(
            help="Put the weights for such programs into the bundle, too; each is as large as both "
            "towers in fp32. May be given twice."
        ),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write both towers, in the first precision, into a model repository for Triton.",
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The largest batch that the files are run with, and that engines are built for. "
            "Default: the recipe's.",
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRECISION.NAME=VALUE",
            help="What a file may differ by from PyTorch: int8.cosine=0.98, fp16.agreement=0.99, "
            "fp32.metric=0.002.",
        ),
    ] = None,
    no_verify: Annotated[
        bool,
        typer.Option(
            "--no-verify",
            help="Do not compare the files with PyTorch on the recipe's suites. The manifest will "
            "say so.",
        ),
    ] = False,
    opset: Annotated[
        int | None, typer.Option(help="ONNX operator set. Default: the bundle's, else 20.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the bundle anew, even if it is up to date.")
    ] = False,
    device: DeviceOption = DeviceChoice.auto,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would happen, stop.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Export the run's merged model: both towers as ONNX, tokenizer, preprocessing, classes.

    [bold]Examples[/]

        radapter export
        radapter export --precision fp32 --precision int8
        radapter export --classifier names.txt --input uint8
        radapter export --checkpoint transformers
        radapter export --triton model_repository
        radapter export --trt --trt-gpu 8.6 --trt-gpu 8.9
    """
    from radapter import run as runs

    if (trt_flavour or trt_gpu or trt_hardware != "none" or trt_version_compatible) and not trt:
        raise UsageError("--trt-... options go with --trt.")
    if tolerance or trt_gpu:  # what is mistyped is said even where there is no run
        with console.status("loading"):
            from radapter.evaluation.parity import tolerance_of
            from radapter.export.trt.build import normal_gpu
        tolerance_of("fp32", tolerance or ())
        for gpu in trt_gpu or ():
            normal_gpu(gpu)
    found = runs.find(Path(run) if run else None)
    with console.status("loading"):
        from radapter import export as exporting
        from radapter.export.trt.engines import Options
    wanted = exporting.Wanted(
        precisions=[choice.value for choice in precision or ()],
        opset=opset,
        max_batch=max_batch,
        classifier=classifier,
        from_bytes=None if pictures is None else pictures is InputChoice.uint8,
        patches=patches,
        checkpoints=[choice.value for choice in checkpoint or ()],
        tolerances=tolerance or [],
        verify=not no_verify,
        engines=Options(tuple(trt_gpu or ()), trt_hardware.value, trt_version_compatible)
        if trt
        else None,
        flavour=trt_flavour,
        triton=triton,
        device=device.value,
    )
    planned = exporting.plan(found, wanted, force=force)
    if planned.merged["alpha"] == 0:
        console.note("Alpha 0 is the base model: nothing of the training is in this bundle.")
    if dry_run:
        return _preview(planned, as_json)
    start = time.monotonic()
    try:
        exported = exporting.export(planned, force=force, status=console.status, note=console.note)
    except GateFailed as error:
        if not as_json:  # the JSON of an error has it anyway
            show_parity(error.details.get("parity", []))
        raise
    return _show(planned, exported, time.monotonic() - start, as_json)


def _preview(planned: Plan, as_json: bool) -> None:
    from radapter.export import preview

    files, missing = preview(planned)
    for name, why in missing.items():
        console.note(f"Cannot be compared on {name}: {why}")
    if as_json:
        return console.print_json({"bundle": str(planned.folder), "files": files})
    for name, size in files.items():
        console.result(f"{size / 1e6:10.1f} MB  {name}")
    return console.result(f"Would be written to {planned.folder}.")


def _show(planned: Plan, exported: Exported, seconds: float, as_json: bool) -> None:
    from radapter import bundle

    folder, manifest, built = planned.folder, exported.manifest, exported.built
    if as_json:
        result = {"bundle": str(folder), "written": exported.written, "built": built}
        result["manifest"] = manifest
        if exported.models:
            result["triton"] = list(map(str, exported.models))
        return console.print_json(result)
    if exported.written:
        for file, check in manifest["models"].items():
            console.result(f"{file}: worst cosine {check['worst_cosine']:.7f} on made-up inputs")
        show_parity(manifest.get("parity", []))
        if not manifest["verified"]:
            console.note("Not compared with PyTorch on any data; the manifest says so.")
    for entry in manifest.get("engines", []):
        if entry["file"] in built:
            console.result(
                f"{entry['file']}: {entry['precision']}, {entry['bytes'] / 1e6:.1f} MB, built by "
                f"{bundle.flavour_title(entry)} in {entry['build_seconds']:.1f} s for "
                f"{bundle.built_for(entry)}{'' if entry['compared'] else '; not run'}"
            )
    if exported.written or built:
        console.note(f"Took {console.seconds(seconds)}.")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    label = "Bundle" if exported.written or built else "Up to date"
    console.result(f"{label}: {folder} ({size / 1e6:.0f} MB)")
    for place in exported.models:
        console.result(f"Triton model: {place}")
    return console.next_command("radapter", "eval", "--run", planned.run.path)


def show_parity(compared: list[dict[str, Any]]) -> None:
    """The tables of what a gate compared."""
    from radapter.reporting.parity_tables import parity_tables

    for found in compared:
        on = f", {found['reference']}" if found.get("reference", "").endswith("cuda") else ""
        console.result(f"\n{found['suite']}, a sample of {found['pictures']:,} pictures{on}")
        for part in parity_tables(found["verdicts"], found.get("files", [])):
            console.out.print(part)
        tokens = found.get("tokens") or {"different": 0}
        if tokens["different"]:
            console.note(
                f"{tokens['different']:,} of {tokens['texts']:,} texts get other token ids from "
                f"tokenizer.json than from open_clip, such as {tokens['examples'][0]!r}"
            )
