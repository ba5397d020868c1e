"""radapter export: ONNX files, and TensorRT engines, in a bundle to deploy."""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import UsageError
from radapter_cli import console

ENGINES = "TensorRT"


class FlavourChoice(enum.StrEnum):
    tensorrt = "tensorrt"
    rtx = "rtx"


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
            help="With tensorrt: other GPUs that the engines run on.", rich_help_panel=ENGINES
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
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 20,
    force: Annotated[
        bool, typer.Option("--force", help="Write the bundle anew, even if it is up to date.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would happen, stop.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Export the run's merged model: both towers as ONNX, tokenizer, preprocessing, classes.

    [bold]Examples[/]

        radapter export

        radapter export --run runs/emoji-20260101T120000Z-a1b2c3

        radapter export --trt --trt-gpu 8.6 --trt-gpu 8.9
    """
    from radapter import run as runs

    found = runs.find(Path(run) if run else None)
    recipe = found.recipe()
    found.merged()
    with console.status("loading"):
        from radapter import bundle, merging
        from radapter import export as exporting
        from radapter.errors import BrokenInput
        from radapter.export import tensorrt
        from radapter.runtimes import flavours
    if (trt_flavour or trt_gpu or trt_hardware != "none" or trt_version_compatible) and not trt:
        raise UsageError("--trt-... options go with --trt.")
    options = tensorrt.Options(
        tuple(trt_gpu or ()),
        trt_hardware.value,
        trt_version_compatible,
        found.path / "tensorrt-timing.cache",
    )
    if trt:  # before the ONNX export, which takes longer to fail
        flavour = flavours.choose(trt_flavour)
        tensorrt.expected(flavour, options)
    loaded, facts = merging.read_merged(found)
    folder = found.bundle_for(facts["weights_hash"])
    classes = found.classes()
    if dry_run:
        files = exporting.plan(loaded, classes)
        if trt:
            files |= tensorrt.plan(files, flavour)
        if as_json:
            console.print_json({"bundle": str(folder), "files": files})
        else:
            for name, size in files.items():
                console.result(f"{size / 1e6:10.1f} MB  {name}")
            console.result(f"would be written to {folder}")
        return
    start = time.monotonic()
    built: list[str] = []
    with found.lock(), console.plain_warnings():
        runs.clear_temporary(found.path / "bundles") if folder.parent.is_dir() else None
        try:
            manifest = bundle.verify(folder, weights_hash=facts["weights_hash"])
            written = force or manifest["opset"] != opset
        except BrokenInput:
            written = True
        if written:
            with console.status("exporting to ONNX and checking in a fresh process"):
                manifest = exporting.export_bundle(
                    loaded,
                    folder,
                    facts={
                        "base_model": facts["base_model"],
                        "base_hash": facts["base_hash"],
                        "recipe": recipe.name,
                        "recipe_hash": runs.file_hash(found.path / "recipe.yaml"),
                        "method": facts["method"]["name"],
                        "alpha": facts["alpha"],
                    },
                    classes=classes,
                    opset=opset,
                )
        if trt:
            with console.status("building engines"):
                shapes = tensorrt.limits(
                    manifest, recipe.optimisation.batch_size, recipe.data.text_length
                )
                chosen, left_out = tensorrt.sources(folder, manifest, shapes)
                manifest, built = tensorrt.build_engines(
                    folder, chosen, flavour, options, force=force
                )
            for name, why in left_out.items():
                console.note(f"{name}: no engine, {why}")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    if as_json:
        console.print_json(
            {"bundle": str(folder), "written": written, "built": built, "manifest": manifest}
        )
        return
    if written:
        for tower, check in manifest["verification"].items():
            if isinstance(check, dict):
                console.result(
                    f"{tower}: worst cosine to PyTorch {check['worst_cosine']:.7f}, largest "
                    f"difference {check['max_abs_difference']:.1e}"
                )
    for entry in manifest.get("engines", []) if trt else []:
        if entry["file"] in built:
            console.result(
                f"{entry['file']}: {entry['precision']}, {entry['bytes'] / 1e6:.1f} MB, built by "
                f"{bundle.flavour_title(entry)} in {entry['build_seconds']:.1f} s for "
                f"{bundle.built_for(entry)}; not run"
            )
    if written or built:
        console.note(f"{console.seconds(time.monotonic() - start)}")
    label = "Bundle" if written or built else "Up to date"
    console.result(f"{label}: {folder} ({size / 1e6:.0f} MB)")
    console.next_command(f"radapter eval --run {found.path}")
