"""The bundle of a run: what is asked of it, what there is of it, and what is still to be done."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radapter import bundle, merging
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.parity import tolerance_of
from radapter.export import bundling, facts, golden, triton
from radapter.export.bundling import Contents, export_bundle
from radapter.export.classes import classes_hash, with_head
from radapter.export.gate import parity_gate
from radapter.export.sample import training_sample
from radapter.export.trt import engines
from radapter.heads import head as heads
from radapter.models import LoadedModel
from radapter.models.frames import most_frames
from radapter.recipe import Recipe
from radapter.run import Run
from radapter.runtimes.trt import flavours
from radapter.runtimes.trt.flavours import Flavour

NO_CLASSIFIER = (
    f"The bundle has no {bundle.CLASSIFIER}, which would read pictures, and this is a model of "
    f"clips: put {heads.FILE} behind {bundle.VIDEO}."
)
"""Of a model of clips with a trained head"""
Status = Callable[[str], AbstractContextManager[None]]
"""Of words for what is being done, around the work"""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a run's bundle; None and empty: as it is in the present one."""

    precisions: Sequence[str] = ()
    opset: int | None = None
    max_batch: int | None = None
    classifier: str | None = None
    """A suite, or a file with one name a line"""
    from_bytes: bool | None = None
    patches: bool | None = None
    checkpoints: Sequence[str] = ()
    tolerances: Sequence[str] = ()
    verify: bool = True
    """Whether what is written has to agree with PyTorch on the recipe's suites"""
    engines: engines.Options | None = None
    """How TensorRT's are built; None: none are"""
    flavour: str | None = None
    """Of TensorRT; None: what is installed"""
    triton: Path | None = None
    """A model repository to write both towers into"""
    device: str = "cpu"
    """Of PyTorch, which files are compared with"""


@dataclass(frozen=True)
class Plan:
    """What is to be done for a run's bundle."""

    run: Run
    recipe: Recipe
    loaded: LoadedModel
    merged: dict[str, Any]
    """Facts of the merged model"""
    folder: Path
    wanted: Wanted
    contents: Contents
    flavour: Flavour | None
    present: dict[str, Any]
    """The manifest of a whole bundle of this very model, if there is one"""
    written: bool
    """Whether it is written anew: what there is is not what is wanted"""

    @property
    def options(self) -> engines.Options:
        """How engines are built; what TensorRT measures is kept in the run."""
        cache = self.run.path / "tensorrt-timing.cache"
        return dataclasses.replace(self.wanted.engines or engines.Options(), timing_cache=cache)

    @property
    def lost(self) -> list[str]:
        """What the present bundle has and the new one will not have."""
        had = {
            "its classifier (--classifier)": "classifier" in self.present
            and self.contents.classifier is None,
            "its engines (--trt)": self.present.get("engines") and not self.flavour,
        }
        return [what for what, goes in had.items() if goes and self.written]


@dataclass
class Exported:
    """What was done."""

    manifest: dict[str, Any]
    written: bool
    built: list[str] = field(default_factory=list)
    """Engines, by file"""
    models: list[Path] = field(default_factory=list)
    """In the model repository for Triton"""


def plan(run: Run, wanted: Wanted | None = None, *, force: bool = False) -> Plan:
    """Check all that can be checked before the work.

    Args:
        run: with a merged model.
        wanted: what its bundle is to be.
        force: write and build what is up to date, too.

    Raises:
        UsageError: something cannot be exported so.
        BrokenInput: there is no merged model, or it is damaged; a suite's data is not there.
        MissingDependency: what builds engines is not there.
    """
    wanted = wanted or Wanted()
    recipe = run.recipe()
    merging.tuned_name(run)  # that there is one
    flavour = None
    if wanted.engines is not None:
        flavour = flavours.choose(wanted.flavour)
        engines.identity(flavour, wanted.engines)
    loaded, merged = merging.tuned(run)
    folder = run.bundle_for(merged["weights_hash"])
    try:
        present = bundle.verify(folder, weights_hash=merged["weights_hash"])
    except BrokenInput:
        present = {}
    classifier = facts.classes_of(wanted.classifier, recipe) if wanted.classifier else None
    of_clips = most_frames(loaded.model) is not None
    if classifier is None and loaded.head is not None and not of_clips:
        classifier = {"names": loaded.head.names}
    had_bytes = any("_from_bytes" in file for file in present.get("models", ()))
    had_patches = any("patch_model" in file for file in present.get("models", ()))
    contents = Contents(
        precisions=list(wanted.precisions) or present.get("precisions", ["fp32"]),
        opset=present.get("opset", 20) if wanted.opset is None else wanted.opset,
        max_batch=wanted.max_batch or present.get("max_batch", recipe.export.max_batch),
        classifier=classifier,
        from_bytes=had_bytes if wanted.from_bytes is None else wanted.from_bytes,
        patches=had_patches if wanted.patches is None else wanted.patches,
        checkpoints=sorted(set(wanted.checkpoints)) or present.get("checkpoints", []),
        tolerances=list(wanted.tolerances),
        device=wanted.device,
    )
    contents.check(loaded)
    if wanted.triton:
        triton.places(wanted.triton, recipe.name, most_frames(loaded.model))
    if wanted.tolerances and not wanted.verify:
        raise UsageError("--tolerance has no effect with --no-verify: give one of them.")
    for name in bundle.PRECISIONS:  # a wrong one is said before the work
        tolerance_of(name, contents.tolerances)
    asked = {
        "opset": contents.opset,
        "precisions": contents.precisions,
        "max_batch": contents.max_batch,
        "checkpoints": contents.checkpoints,
        "golden": golden.FILE,
        **({} if classifier is None else {"classifier_hash": classes_hash(classifier)}),
        **({"verified": True, "tolerances": contents.tolerances} if wanted.verify else {}),
    }
    changed = any(present.get(key) != value for key, value in asked.items())
    changed |= of_clips and "classifier" in present  # of earlier versions
    changed |= recipe.data.may_be_passed_on and golden.NOTICE not in present.get("files", {})
    further = contents.from_bytes, contents.patches
    written = force or changed or further != (had_bytes, had_patches)
    return Plan(
        run, recipe, loaded, merged, folder, wanted, contents, flavour, present, written
    )  # fmt: skip


def preview(planned: Plan) -> tuple[dict[str, int], dict[str, str]]:
    """What `export` would write, bytes by file name, and the suites that it would not compare on,
    with the reason. Nothing is written.

    Raises:
        BrokenInput: the data that it needs is not there.
    """
    files = bundling.plan(planned.loaded, planned.run.classes(), planned.contents)
    if planned.recipe.data.may_be_passed_on:
        files[golden.NOTICE] = 10**4
    if planned.flavour:
        files |= engines.plan(files, planned.flavour)
    missing: dict[str, str] = {}
    if planned.wanted.verify:
        missing = parity_gate(planned.recipe, planned.loaded, planned.contents.tolerances)[1]
    if planned.contents.needs_sample:
        training_sample(planned.recipe, 1)
    return files, missing


def export(
    planned: Plan,
    *,
    force: bool = False,
    status: Status = lambda what: contextlib.nullcontext(),
    note: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write what is not up to date: the bundle, its engines, a model repository. The run is locked
    meanwhile.

    Args:
        planned: what `plan` gave.
        force: build engines that are up to date, too.
        status: entered around what takes long.
        note: called with what a reader should know.

    Raises:
        BrokenInput: there is no data to compare on.
        GateFailed: an exported file does not do what the model does. The bundle that was there
            stays as it was; the error's details have what was compared.
    """
    run, recipe, contents = planned.run, planned.recipe, planned.contents
    with run.lock():
        if planned.lost:
            note(f"The new bundle is written without {' and '.join(planned.lost)}.")
        if planned.loaded.head is not None and most_frames(planned.loaded.model):
            note(NO_CLASSIFIER)
        known = facts.run_facts(run, recipe, planned.merged)
        gate, missing = None, dict[str, str]()
        if planned.wanted.verify and (planned.written or planned.flavour):
            with status("reading the suites"):
                head, loaded = None, planned.loaded
                if contents.classifier is not None:
                    classifier = with_head(loaded, contents.classifier, contents.device)
                    contents = dataclasses.replace(contents, classifier=classifier)
                    head = classifier["head"]
                gate, missing = parity_gate(
                    recipe, loaded, contents.tolerances, head, contents.device
                )
        for name, why in missing.items():
            note(f"Not compared on {name}: {why}")
        manifest = planned.present
        if planned.written:
            with status("exporting to ONNX and comparing with PyTorch"):
                pictures, notice = facts.golden_pictures(recipe)
                manifest = export_bundle(
                    planned.loaded,
                    planned.folder,
                    contents,
                    facts=known | {"not_compared": list(missing)},
                    classes=run.classes(),
                    sample=training_sample(recipe) if contents.needs_sample else None,
                    pictures=pictures,
                    notice=notice,
                    gate=gate,
                )
        else:
            manifest = facts.refresh(planned.folder, known) or manifest
        exported = Exported(manifest, planned.written)
        if planned.flavour:
            with status("building engines"):
                left_out = _build(planned, exported, planned.flavour, gate, force)
            for name, why in left_out.items():
                note(f"No engine of {name}: {why}")
        if planned.wanted.triton:
            exported.models = triton.write_repository(
                planned.folder, planned.wanted.triton, recipe.name
            )
    return exported


def _build(
    planned: Plan, exported: Exported, flavour: Flavour, gate: Any, force: bool
) -> Mapping[str, str]:
    """Build the engines; why there is none of some files."""
    shapes = engines.limits(exported.manifest, planned.recipe.data.text_length)
    chosen, left_out = engines.sources(planned.folder, exported.manifest, shapes)
    exported.manifest, exported.built = engines.build_engines(
        planned.folder, chosen, flavour, planned.options, force=force, check=gate
    )
    return left_out
