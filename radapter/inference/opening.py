"""Open a model to use it: a run, a bundle, a model folder or a name, all in one form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from radapter import bundle, models
from radapter.data.clip_pieces import Pieces
from radapter.errors import UsageError, nearest
from radapter.merging import load_merged, tuned, tuned_facts, tuned_title
from radapter.models.queries import has_queries
from radapter.run import Run
from radapter.runtimes.engines import PROGRAMS
from radapter.runtimes.opened import OpenModel, from_loaded, open_bundle


def open_model(
    source: Run | Path | str,
    engine: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> OpenModel:
    """A model ready to use.

    Args:
        source: a run (its merged model), or what `models.load` takes (a name or a folder), or a
            bundle, which needs nothing beside it.
        engine: `torch`, `onnx` or `tensorrt` (engines that a bundle has; CUDA only); None: `torch`,
            for a bundle `onnx`.
        device: `cpu`, `cuda`, or `auto` for CUDA where the engine has it.
        precision: of PyTorch, `fp32`, `fp16` or `bf16`; an engine has that of its files.

    Raises:
        UsageError: no such model, or it does not have that engine or precision.
        BrokenInput: a file is missing, stale or damaged (the message names the command to type).
        MissingDependency: no onnxruntime, or no such device.
    """
    is_bundle = not isinstance(source, Run) and (Path(source) / bundle.MANIFEST).is_file()
    if engine is not None and engine not in PROGRAMS:
        raise UsageError(f"Unknown engine '{engine}'.{nearest(engine, list(PROGRAMS))}")
    if precision != "fp32" and (is_bundle or engine not in (None, "torch")):
        raise UsageError(
            f"--precision {precision} is for PyTorch: an exported engine keeps the "
            "precision of its export. Leave it out, or name a run or a model."
        )
    if isinstance(source, Run):
        return _open_run(source, engine, device, precision)
    folder = Path(source)
    if is_bundle:
        if engine == "torch":
            raise UsageError(f"{folder} is a bundle, which torch cannot run: leave out --runtime.")
        return open_bundle(folder, device, engine=engine or "onnx")
    if (folder / "recipe.yaml").is_file():
        raise UsageError(f"{folder} is a run: give it as --run {folder}")
    if engine in ("onnx", "tensorrt"):
        raise UsageError(
            f"{source} is not a bundle, so it runs with torch only: leave out --runtime {engine}."
        )
    loaded = load_merged(folder) if folder.is_dir() else models.load(source)
    return from_loaded(loaded, device=device, precision=precision)


def with_frames(model: OpenModel, clips: Pieces, named: int | None) -> Pieces:
    """Clips by so many frames as the user named; else by as many as a model of clips takes, or, for
    a model of pictures, as they are.

    Raises:
        UsageError: the model takes fewer.
    """
    most = model.runtime.frames
    if most is not None and named is not None and named > most:
        raise UsageError(
            f"{model.name} takes clips of up to {most} frames, and --frames is {named}: give "
            f"--frames {most}."
        )
    return clips if most is None or named is not None else dataclasses.replace(clips, frames=most)


def _open_run(run: Run, engine: str | None, device: str, precision: str) -> OpenModel:
    templates = run.recipe().data.prompts()
    if engine in (None, "torch"):
        loaded, facts = tuned(run)
        name = tuned_title(run, facts)
        more = {"classes": run.classes(), "templates": templates}
        more |= {"pictures_as": facts["base_hash"]} if has_queries(loaded.model) else {}
        return from_loaded(loaded, name, device, precision, **more)
    facts = tuned_facts(run)
    return open_bundle(
        run.exported(facts["weights_hash"]),
        device,
        engine=engine,
        name=tuned_title(run, facts),
        weights_hash=facts["weights_hash"],
        templates=templates,
    )


def classes_and_prompts(folder: Path) -> tuple[list[str] | None, list[str] | Literal["openai"]]:
    """The classes that a bundle answers among and its prompts, as its run has them; of anything
    else no classes and CLIP's plainest prompt.

    Raises:
        BrokenInput: the bundle is damaged.
    """
    if not (folder / bundle.MANIFEST).is_file():
        return None, list(bundle.PLAIN_TEMPLATES)
    found = bundle.read_classes(folder)
    prompts = bundle.read_templates(folder, bundle.read_manifest(folder))
    return list(found[0]) if found else None, prompts
