"""The TensorRT engines of a bundle: from which of its files, for which shapes, in its manifest.

    tensorrt/vision_model.rtx.engine      from onnx/vision_model.onnx, with TensorRT-RTX
    tensorrt/text_model_fp16.trt.engine   from onnx/text_model_fp16.onnx, with TensorRT

The manifest's `engines` says of each what it was built from, with and for. The rest of the bundle
keeps its bytes, and so does an engine that is up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from radapter import bundle
from radapter.errors import BrokenInput
from radapter.export import card
from radapter.export.trt.build import Options, Profile, Shape, build_engine, identity, read_graph
from radapter.runtimes.engines import runnable
from radapter.runtimes.trt.flavours import Flavour

SHORTEST_TEXT = 2  # tokens: start and end
KERNELS = 4_000_000  # bytes in an engine beside the weights


@dataclass(frozen=True)
class Limits:
    """The shapes that engines take."""

    max_batch: int
    text_length: int
    """Tokens of a usual text, which kernels are chosen for"""
    context_length: int
    """Tokens of the longest text"""

    @property
    def usual_batch(self) -> int:
        """A quarter of the largest: kernels are chosen for it, and the ends stay near."""
        return max(1, self.max_batch // 4)


@dataclass(frozen=True)
class Source:
    """An ONNX file to build from."""

    onnx: str
    """Its name in the bundle"""
    profile: Profile


def limits(manifest: Mapping[str, Any], text_length: int | None = None) -> Limits:
    """The shapes of a bundle's engines: its own largest batch, texts up to the model's context.

    Args:
        manifest: of the bundle.
        text_length: tokens of a usual text; None: the model's context length.
    """
    context = int(manifest["context_length"])
    return Limits(int(manifest["max_batch"]), min(text_length or context, context), context)


def sources(
    folder: Path | str, manifest: Mapping[str, Any], shapes: Limits
) -> tuple[list[Source], dict[str, str]]:
    """The bundle's ONNX files that TensorRT can take, and why not the others.

    Returns:
        The files with their profiles; and for each file that is left out, the reason.
    """
    fit, unfit = [], {}
    for name in sorted(name for name in manifest["files"] if name.endswith(".onnx")):
        bundle.external_data(folder, manifest, name)  # TensorRT opens what it names
        graph = read_graph(Path(folder) / name)
        profile, unknown = _profile(graph.inputs, shapes)
        if graph.cpu_only:
            operators = ", ".join(sorted(graph.cpu_only))
            unfit[name] = f"its int8 is onnxruntime's own, for the CPU ({operators})"
        elif unknown:
            unfit[name] = f"its inputs have dimensions without known limits: {', '.join(unknown)}"
        elif "tensorrt" not in manifest.get("models", {}).get(name, {}).get("for", ["tensorrt"]):
            unfit[name] = "the bundle has it for onnxruntime alone"
        else:
            fit.append(Source(name, profile))
    return fit, unfit


def _profile(
    inputs: Mapping[str, Sequence[int | str]], shapes: Limits
) -> tuple[Profile, list[str]]:
    """Shapes of the inputs that are not fixed, and names of dimensions that nothing is known of."""
    ranges = {
        "batch": (1, shapes.usual_batch, shapes.max_batch),
        "length": (SHORTEST_TEXT, shapes.text_length, shapes.context_length),
    }
    profile: dict[str, tuple[Shape, Shape, Shape]] = {}
    unknown: list[str] = []
    for name, shape in inputs.items():
        dynamic = [size for size in shape if isinstance(size, str)]
        unknown += [size for size in dynamic if size not in ranges]
        if dynamic and not unknown:
            columns = [ranges[size] if isinstance(size, str) else (size,) * 3 for size in shape]
            smallest, usual, largest = zip(*columns, strict=True)
            profile[name] = (smallest, usual, largest)
    return profile, unknown


def engine_name(onnx: str, flavour: Flavour) -> str:
    """The name, in the bundle, of the engine built from that ONNX file."""
    return f"tensorrt/{PurePosixPath(onnx).stem}.{flavour.suffix}.engine"


def plan(files: Mapping[str, int], flavour: Flavour) -> dict[str, int]:
    """What engines of these ONNX files would weigh: bytes by file name, near enough."""
    return {
        engine_name(name, flavour): size + KERNELS
        for name, size in files.items()
        if name.endswith(".onnx") and not PurePosixPath(name).stem.startswith(tuple(bundle.FURTHER))
    }


def build_engines(
    folder: Path | str,
    chosen: Sequence[Source],
    flavour: Flavour,
    options: Options | None = None,
    *,
    force: bool = False,
    check: Callable[[Path], Any] | None = None,
    on_progress: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, Any], list[str]]:
    """Build the bundle's engines that are missing or not up to date.

    Each is written under a temporary name; the bundle is replaced when all are built, and stays as
    it was if one fails.

    Args:
        folder: a bundle.
        chosen: what to build from, see `sources`.
        flavour: what to build with.
        options: how, see `Options`.
        force: build those that are up to date too.
        check: what the bundle with its engines has to pass before it takes the old one's place,
            where they run.
        on_progress: called with the name of an engine before it is built.

    Returns:
        The manifest and the names of the engines that were built.

    Raises:
        MissingDependency: the flavour, or the GPU that it needs, is not there.
        UsageError: the flavour has no such option or target.
        BrokenInput: the bundle is damaged, or there is nothing to build from.
        GateFailed: an engine cannot be built, or `check` did not let it pass.
    """
    folder, options = Path(folder), options or Options()
    manifest = bundle.verify(folder)
    if not chosen:
        raise BrokenInput(f"Bundle {folder} has no ONNX file that TensorRT takes. {bundle.AGAIN}")
    wanted = identity(flavour, options)
    present = {entry["file"]: entry for entry in manifest.get("engines", [])}
    todo: dict[str, tuple[Source, dict[str, Any]]] = {}
    for source in chosen:
        name = engine_name(source.onnx, flavour)
        key = wanted | {
            "onnx": source.onnx,
            "onnx_sha256": manifest["files"][source.onnx],
            # Of its weights, where they are too large for one file.
            "data_sha256": manifest["files"].get(f"{source.onnx}.data"),
            "profile": plain(source.profile),
        }
        if force or not key.items() <= present.get(name, {}).items():
            todo[name] = (source, key)
    if not todo:
        return manifest, []
    with bundle.changing(folder) as temporary:
        (temporary / "tensorrt").mkdir(exist_ok=True)
        for name, (source, key) in todo.items():
            on_progress(name)
            engine, facts = build_engine(temporary / source.onnx, source.profile, flavour, options)
            (temporary / name).unlink(missing_ok=True)  # it may be the old bundle's file, linked
            with open(temporary / name, "wb") as file:
                file.write(engine)
            present[name] = {"file": name} | key | facts | {"compared": False}
        facts = {k: v for k, v in manifest.items() if k not in ("schema_version", "files")}
        facts["engines"] = [present[name] for name in sorted(present)]
        manifest = card.finish(temporary, facts)
        # Where engines do not run, the check would only repeat its last comparison.
        if check is not None and "tensorrt" in runnable(temporary)[0]:
            before = {found["suite"]: found["files"] for found in facts.get("parity", [])}
            facts["parity"] = check(temporary)
            for found in facts["parity"]:  # classifiers are compared when they are written
                known = {row["file"] for row in found["files"]}
                found["files"] += [
                    row for row in before.get(found["suite"], []) if row["file"] not in known
                ]
            ran = {f for found in facts["parity"] for v in found["verdicts"] for f in v["files"]}
            for entry in facts["engines"]:
                entry["compared"] = entry["compared"] or entry["file"] in ran
            manifest = card.finish(temporary, facts)
    return manifest, list(todo)


def plain(profile: Profile) -> dict[str, dict[str, list[int]]]:
    """A profile as the manifest has it."""
    return {
        name: dict(zip(("min", "opt", "max"), map(list, shapes), strict=True))
        for name, shapes in profile.items()
    }
