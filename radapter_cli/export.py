"""radapter export: ONNX files in a bundle to deploy."""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import UsageError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.recipe import Recipe


class PrecisionChoice(enum.StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class CheckpointChoice(enum.StrEnum):
    open_clip = "open_clip"
    transformers = "transformers"


class InputChoice(enum.StrEnum):
    float = "float"
    uint8 = "uint8"


def export(
    run: console.RunOption = None,
    trt: Annotated[
        bool, typer.Option("--trt", help="Build TensorRT engines too (not in this version).")
    ] = False,
    precision: Annotated[
        list[PrecisionChoice] | None,
        typer.Option(
            help="May be given several times; the first is what runs unless another is asked for. "
            "int8 is calibrated on training pictures and texts of the recipe. Default: fp32."
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
        InputChoice,
        typer.Option(
            "--input",
            help="`uint8`: write a file that resizes, crops and normalizes pictures itself, and "
            "let the classifier do so. For onnxruntime.",
        ),
    ] = InputChoice.float,
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
        int, typer.Option(min=1, help="The largest batch that is run to verify the files.")
    ] = 32,
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

        radapter export --precision fp32 --precision int8

        radapter export --classifier names.txt --input uint8

        radapter export --checkpoint transformers --triton model_repository
    """
    from radapter import run as runs

    found = runs.find(Path(run) if run else None)
    recipe = found.recipe()
    found.merged()
    with console.status("loading"):
        from radapter import bundle, merging
        from radapter import export as exporting
        from radapter.errors import BrokenInput
        from radapter.export import golden, tensorrt
    if trt:
        tensorrt.build(found.path)
    loaded, facts = merging.read_merged(found)
    folder = found.bundle_for(facts["weights_hash"])
    classes = found.classes()
    precisions = [choice.value for choice in precision or [PrecisionChoice.fp32]]
    head = None if classifier is None else classes_of(classifier, recipe)
    from_bytes = pictures is InputChoice.uint8
    if triton:  # before the export, which takes longer to fail
        exporting.places(triton, recipe.name)
    forms = sorted({choice.value for choice in checkpoint or []})
    if dry_run:
        files = exporting.plan(
            loaded,
            classes,
            precisions,
            classifier=head is not None,
            from_bytes=from_bytes,
            checkpoint=forms,
        )
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
            asked = {
                "opset": opset,
                "precisions": precisions,
                "max_batch": max_batch,
                "classifier": head and head["names"],
                "checkpoints": forms,
                "golden": golden.FILE,
            }
            written = (
                force
                or any(manifest.get(key) != value for key, value in asked.items())
                or from_bytes != any("_from_bytes" in file for file in manifest["models"])
            )
        except BrokenInput:
            written = True
        known = exporting.run_facts(found, recipe, facts)
        if written:
            with console.status("exporting to ONNX and checking in a fresh process"):
                manifest = exporting.export_bundle(
                    loaded,
                    folder,
                    facts=known,
                    classes=classes,
                    opset=opset,
                    precisions=precisions,
                    max_batch=max_batch,
                    sample=exporting.training_sample(recipe) if "int8" in precisions else None,
                    classifier=head,
                    from_bytes=from_bytes,
                    checkpoint=forms,
                    pictures=exporting.golden_pictures(recipe),
                )
        else:
            manifest = exporting.refresh(folder, known) or manifest
        models = triton and exporting.write_repository(folder, triton, recipe.name)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    if as_json:
        result = {"bundle": str(folder), "written": written, "manifest": manifest}
        if models:
            result["triton"] = list(map(str, models))
        console.print_json(result)
        return
    if written:
        for file, check in manifest["models"].items():
            console.result(
                f"{file}: worst cosine to PyTorch {check['worst_cosine']:.7f}, largest "
                f"difference {check['max_abs_difference']:.1e}"
            )
        console.note(f"{console.seconds(time.monotonic() - start)}")
    label = "Bundle" if written else "Up to date"
    console.result(f"{label}: {folder} ({size / 1e6:.0f} MB)")
    for place in models or []:
        console.result(f"Triton model: {place}")
    console.next_command(f"radapter eval --run {found.path}")


def classes_of(name: str, recipe: Recipe) -> dict[str, Any]:
    """The classes of a suite, or of a file with one name a line, with their prompts.

    Raises:
        UsageError: the suite classifies nothing, or not always the same classes.
        BrokenInput: the file or the suite's data is not there.
    """
    from radapter.data.pairs import templates_of
    from radapter.evaluation import load_suite
    from radapter.inference.prediction import read_class_names

    if name.endswith(".txt"):
        names, templates = read_class_names(name), templates_of(recipe.data.prompts())
    else:
        suite = load_suite(name).for_recipe(recipe)
        opened = [tasks.get("classification") for tasks in suite.open().values()]
        lists = {tuple(dict.fromkeys(data.class_names)) for data in opened if data}
        if len(lists) != 1:
            what = "classes that differ between its data sets" if lists else "no classes"
            raise UsageError(
                f"Suite {suite.name} has {what}: name those to choose from, one a line in a file, "
                "by --classifier names.txt"
            )
        names, templates = list(lists.pop()), templates_of(suite.prompts(suite.datasets[0]))
    prompts = [[template.replace("{}", name) for template in templates] for name in names]
    return {"names": names, "prompts": prompts}
