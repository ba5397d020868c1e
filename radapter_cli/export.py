"""radapter export: ONNX files, and TensorRT engines, in a bundle to deploy."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.bundle import PRECISIONS
from radapter.errors import GateFailed, UsageError
from radapter.runtimes.trt.flavours import FLAVOURS
from radapter_cli import console
from radapter_cli.model_options import DeviceChoice, DeviceOption

if TYPE_CHECKING:
    pass


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

        radapter export --checkpoint transformers --triton model_repository

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
        from radapter.evaluation.parity import tolerance_of
        from radapter.export import golden, tensorrt
        from radapter.runtimes.trt import flavours
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
    if facts["alpha"] == 0:
        console.note("alpha 0 is the base model: nothing of the training is in this bundle")
    folder = found.bundle_for(facts["weights_hash"])
    classes = found.classes()
    try:  # what is not said stays as it is
        present = bundle.verify(folder, weights_hash=facts["weights_hash"])
    except BrokenInput:
        present = {}
    precisions = [choice.value for choice in precision or ()] or present.get("precisions", ["fp32"])
    opset = present.get("opset", 20) if opset is None else opset
    head = None if classifier is None else exporting.classes_of(classifier, recipe)
    had_bytes = any("_from_bytes" in file for file in present.get("models", ()))
    from_bytes = had_bytes if pictures is None else pictures is InputChoice.uint8
    exporting.check(opset, precisions, loaded, from_bytes=from_bytes)
    if triton:  # before the export, which takes longer to fail
        exporting.places(triton, recipe.name)
    forms = sorted({choice.value for choice in checkpoint or ()}) or present.get("checkpoints", [])
    max_batch = max_batch or present.get("max_batch", recipe.export.max_batch)
    if no_verify and tolerance:
        raise UsageError("--tolerance is for what --no-verify leaves out: give one of them.")
    for name in bundle.PRECISIONS:  # a wrong one is said before the work
        tolerance_of(name, tolerance or [])
    if dry_run:
        files = exporting.plan(
            loaded,
            classes,
            precisions,
            classifier=head is not None,
            from_bytes=from_bytes,
            checkpoint=forms,
        )
        if trt:
            files |= tensorrt.plan(files, flavour)
        missing = {} if no_verify else exporting.parity_gate(recipe, loaded, tolerance or [])[1]
        if "int8" in precisions or from_bytes or head is not None:
            exporting.training_sample(recipe, 1)
        for name, why in missing.items():
            console.note(f"not to be compared on {name}: {why}")
        if as_json:
            console.print_json({"bundle": str(folder), "files": files})
        else:
            for name, size in files.items():
                console.result(f"{size / 1e6:10.1f} MB  {name}")
            console.result(f"would be written to {folder}")
        return
    start = time.monotonic()
    built: list[str] = []
    with found.lock():
        manifest = present
        asked = {
            "opset": opset,
            "precisions": precisions,
            "max_batch": max_batch,
            "checkpoints": forms,
            "golden": golden.FILE,
            **({} if head is None else {"classifier_hash": exporting.classes_hash(head)}),
            **({} if no_verify else {"verified": True, "tolerances": tolerance or []}),
        }
        changed = any(present.get(key) != value for key, value in asked.items())
        written = force or changed or from_bytes != had_bytes
        lost = [
            what
            for what, there, again in (
                ("its classifier (--classifier)", "classifier" in present, head),
                ("its engines (--trt)", present.get("engines"), trt),
            )
            if written and there and not again
        ]
        if lost:
            console.note(f"the bundle is written anew without {' and '.join(lost)}")
        known = exporting.run_facts(found, recipe, facts)
        gate, missing = None, dict[str, str]()
        if not no_verify and (written or trt):
            with console.status("reading the suites"):
                if head is not None:
                    head = {
                        **head,
                        "features": exporting.class_features(loaded, head, device.value),
                    }
                gate, missing = exporting.parity_gate(
                    recipe,
                    loaded,
                    tolerance or [],
                    head["features"] if head else None,
                    device.value,
                )
        for name, why in missing.items():
            console.note(f"not compared on {name}: {why}")
        sampled = "int8" in precisions or from_bytes or head is not None
        if written:
            with (
                console.status("exporting to ONNX and comparing with PyTorch"),
                shown_if_failed(not as_json),
            ):
                manifest = exporting.export_bundle(
                    loaded,
                    folder,
                    facts=known | {"not_compared": list(missing)},
                    classes=classes,
                    opset=opset,
                    precisions=precisions,
                    max_batch=max_batch,
                    sample=exporting.training_sample(recipe) if sampled else None,
                    classifier=head,
                    from_bytes=from_bytes,
                    checkpoint=forms,
                    pictures=exporting.golden_pictures(recipe),
                    gate=gate,
                    tolerances=tolerance or [],
                    device=device.value,
                )
        else:
            manifest = exporting.refresh(folder, known) or manifest
        if trt:
            with console.status("building engines"), shown_if_failed(not as_json):
                shapes = tensorrt.limits(manifest, recipe.data.text_length)
                chosen, left_out = tensorrt.sources(folder, manifest, shapes)
                manifest, built = tensorrt.build_engines(
                    folder, chosen, flavour, options, force=force, check=gate
                )
            for name, why in left_out.items():
                console.note(f"{name}: no engine, {why}")
        models = exporting.write_repository(folder, triton, recipe.name) if triton else []
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    if as_json:
        result = {"bundle": str(folder), "written": written, "built": built, "manifest": manifest}
        if models:
            result["triton"] = list(map(str, models))
        console.print_json(result)
        return
    if written:
        for file, check in manifest["models"].items():
            console.result(f"{file}: worst cosine {check['worst_cosine']:.7f} on made-up inputs")
        show_parity(manifest.get("parity", []))
        if not manifest["verified"]:
            console.note("not compared with PyTorch on any data: the manifest says so")
    for entry in manifest.get("engines", []) if trt else []:
        if entry["file"] in built:
            console.result(
                f"{entry['file']}: {entry['precision']}, {entry['bytes'] / 1e6:.1f} MB, built by "
                f"{bundle.flavour_title(entry)} in {entry['build_seconds']:.1f} s for "
                f"{bundle.built_for(entry)}{'' if entry['compared'] else '; not run'}"
            )
    if written or built:
        console.note(f"{console.seconds(time.monotonic() - start)}")
    label = "Bundle" if written or built else "Up to date"
    console.result(f"{label}: {folder} ({size / 1e6:.0f} MB)")
    for place in models:
        console.result(f"Triton model: {place}")
    console.next_command("radapter", "eval", "--run", found.path)


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


@contextlib.contextmanager
def shown_if_failed(printing: bool) -> Iterator[None]:
    """Print what a gate compared before its error; the JSON of an error has it anyway."""
    try:
        yield
    except GateFailed as error:
        if printing:
            show_parity(error.details.get("parity", []))
        raise
