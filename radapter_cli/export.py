"""radapter export: ONNX files in a bundle to deploy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from radapter_cli import console


def export(
    run: console.RunOption = None,
    trt: Annotated[
        bool, typer.Option("--trt", help="Build TensorRT engines too (not in this version).")
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
    if trt:
        tensorrt.build(found.path)
    loaded, facts = merging.read_merged(found)
    folder = found.bundle_for(facts["weights_hash"])
    classes = found.classes()
    if dry_run:
        files = exporting.plan(loaded, classes)
        if as_json:
            console.print_json({"bundle": str(folder), "files": files})
        else:
            for name, size in files.items():
                console.result(f"{size / 1e6:10.1f} MB  {name}")
            console.result(f"would be written to {folder}")
        return
    start = time.monotonic()
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
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    if as_json:
        console.print_json({"bundle": str(folder), "written": written, "manifest": manifest})
        return
    if written:
        for tower, check in manifest["verification"].items():
            if isinstance(check, dict):
                console.result(
                    f"{tower}: worst cosine to PyTorch {check['worst_cosine']:.7f}, largest "
                    f"difference {check['max_abs_difference']:.1e}"
                )
        console.note(f"{console.seconds(time.monotonic() - start)}")
    label = "Bundle" if written else "Up to date"
    console.result(f"{label}: {folder} ({size / 1e6:.0f} MB)")
    console.next_command(f"radapter eval --run {found.path}")
