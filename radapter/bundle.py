"""The deployable folder: what is in it, its manifest, and whether it is whole.

    onnx/vision_model.onnx      pixel_values [batch, 3, height, width] -> image_embeds [batch, dim]
    onnx/text_model.onnx        input_ids [batch, length] -> text_embeds [batch, dim]
    onnx/video_model.onnx       of a model of clips alone: pixel_values_videos [batch, frames, 3,
                                height, width], NaN in frames that are none -> video_embeds
    onnx/*_fp16.onnx, *_int8.onnx   the same in other precisions, with the same inputs and outputs
    onnx/vision_model_from_bytes.onnx   pixels [batch, height, width, 3], uint8 -> image_embeds
    onnx/patch_model.onnx       pixel_values -> patch_embeds [batch, rows, columns, dim]
    onnx/query_model.onnx       pixel_values, input_ids -> query_embeds [batch, dim]
    onnx/matching_model.onnx    pixel_values, input_ids -> match_logits [batch, 2]
    onnx/classifier.onnx        pictures (in the form that the manifest says) -> probabilities
    tensorrt/*_qdq.onnx         int8 in the form that TensorRT reads
    config.json                 the architecture, in Hugging Face's CLIP form where there is one
    preprocessor_config.json    resize, crop, mean and standard deviation
    tokenizer.json              with tokenizer_config.json and special_tokens_map.json
    classes.json                class names and the logit scale, where the bundle classifies
    class_features.npy          their text features [classes, dim], float32, unit norm
    head.safetensors            the head that was trained with the model, where one was
    golden/                     inputs with what must come of them: see export/golden.py
    open_clip/, model.safetensors   the weights, if they were asked for: see export/checkpoints.py
    tensorrt/*.engine           engines, if they were built; loading one runs code that is in it
    manifest.json               where it comes from, how it was checked, sha256 of every file
    README.md                   the model card

The folder is enough by itself: onnxruntime, numpy and Pillow run it, without radapter or torch.
Nothing in it depends on when or where it was made: the same weights give the same bytes. Engines
are the exception: theirs depend on what built them, and the manifest says how long that took.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from radapter.errors import BrokenInput
from radapter.files import file_hash, new_folder

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = 2
MANIFEST, CARD = "manifest.json", "README.md"
AGAIN = "Export the bundle again: radapter export --force --run RUN"  # ends messages


class Tower(NamedTuple):
    """What a model makes of one input; a bundle has a file of it in every precision."""

    name: str
    file: str  # in fp32
    input: str
    axes: tuple[int | str, ...]  # of the input, after the batch
    output: str
    encode: str  # the method of a `Runtime`; `export.towers.GRAPHS` has what a file is written from


VISION, TEXT = "onnx/vision_model.onnx", "onnx/text_model.onnx"
TOWERS = (
    Tower("vision_model", VISION, "pixel_values", (3, "height", "width"), "image_embeds",
          "encode_image"),
    Tower("text_model", TEXT, "input_ids", ("length",), "text_embeds", "encode_text"),
)  # fmt: skip
VIDEO = "onnx/video_model.onnx"
VIDEO_TOWER = Tower(
    "video_model", VIDEO, "pixel_values_videos", ("frames", 3, "height", "width"), "video_embeds",
    "encode_video",
)  # fmt: skip
FROM_BYTES, CLASSIFIER = "onnx/vision_model_from_bytes.onnx", "onnx/classifier.onnx"
PATCHES, QUERY = "onnx/patch_model.onnx", "onnx/query_model.onnx"
MATCHING = "onnx/matching_model.onnx"
FURTHER = {"patch_model": PATCHES, "query_model": QUERY, "matching_model": MATCHING}
"""Files that onnxruntime alone runs, beside the towers, in fp32 and fp16"""
CLASSES, CLASS_FEATURES = "classes.json", "class_features.npy"
PLAIN_TEMPLATES = ("a photo of a {}.",)
REQUIRED = ("config.json", "preprocessor_config.json", "tokenizer.json")
PRECISIONS = ("fp32", "fp16", "int8")
QDQ = "int8-qdq"
"""The second form of int8: with QuantizeLinear and DequantizeLinear, which TensorRT reads"""
RUNTIMES = {
    "fp32": ["onnxruntime", "tensorrt"],
    "fp16": ["onnxruntime", "tensorrt"],
    "int8": ["onnxruntime"],
    QDQ: ["tensorrt"],
}
"""What runs a precision. TensorRT refuses the operators of onnxruntime's int8"""


def towers(frames: int | None) -> tuple[Tower, ...]:
    """Those of a model; `frames`: of a clip, if it is a model of clips (`frames` of a manifest)."""
    return TOWERS if frames is None else (*TOWERS, VIDEO_TOWER)


def in_precision(file: str, precision: str) -> str:
    """The name of an ONNX file (`VISION`, `TEXT`, ...) in a precision."""
    path = PurePosixPath(file)
    if precision == QDQ:
        return f"tensorrt/{path.stem}_qdq.onnx"
    return file if precision == "fp32" else f"{path.parent}/{path.stem}_{precision}.onnx"


def tower_of(file: str) -> Tower | None:
    """The tower that an ONNX file has, in whatever precision."""
    stem = PurePosixPath(file).stem
    return next((tower for tower in (*TOWERS, VIDEO_TOWER) if stem.startswith(tower.name)), None)


def write_json(path: Path, content: Any) -> None:
    """JSON as people read it; the same content gives the same bytes."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def write_classes(
    folder: Path, names: Sequence[str], features: np.ndarray, logit_scale: float
) -> None:
    """Write class names with their text features.

    Args:
        folder: the bundle.
        names: one name a class.
        features: [classes, dim], unit norm; kept as float32, readable with numpy alone.
        logit_scale: what cosines are multiplied by before a softmax (1 / temperature).
    """
    import numpy as np

    features = np.ascontiguousarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) != len(names):
        raise ValueError(f"{len(names)} class names, but features of shape {features.shape}")
    if not np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-4):
        raise ValueError("class features must have unit norm")
    content = {"features": CLASS_FEATURES, "logit_scale": logit_scale, "classes": list(names)}
    write_json(folder / CLASSES, content)
    np.save(folder / CLASS_FEATURES, features, allow_pickle=False)


def read_classes(folder: Path | str) -> tuple[list[str], np.ndarray, float] | None:
    """Class names, their features [classes, dim] and the logit scale; None if there are none.

    Raises:
        BrokenInput: the files are damaged or do not fit each other.
    """
    import numpy as np

    folder = Path(folder)
    if not (folder / CLASSES).is_file():
        return None
    try:
        content = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
        names, logit_scale = list(content["classes"]), float(content["logit_scale"])
        features = np.load(folder / CLASS_FEATURES, allow_pickle=False)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BrokenInput(
            f"The classes of bundle {folder} cannot be read: {error}. {AGAIN}"
        ) from None
    if features.ndim != 2 or len(features) != len(names):
        raise BrokenInput(
            f"Bundle {folder} names {len(names)} classes but holds features of shape "
            f"{features.shape}. {AGAIN}"
        )
    return names, features, logit_scale


def read_templates(
    folder: Path | str, manifest: Mapping[str, Any]
) -> list[str] | Literal["openai"]:
    """The prompts for class names that the bundle was made with; the plainest, where it was made
    before they were kept.

    Raises:
        BrokenInput: it states something else.
    """
    found = manifest.get("templates", list(PLAIN_TEMPLATES))
    if found == "openai":
        return "openai"
    if isinstance(found, list) and found and all(isinstance(t, str) for t in found):
        return found
    raise BrokenInput(f"{Path(folder) / MANIFEST} is damaged: its templates are not texts. {AGAIN}")


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest with the hash of every file; the last thing done.

    Args:
        folder: the bundle, with everything else in place, the model card too.
        facts: what the manifest says besides `schema_version` and `files`.

    Returns:
        The manifest.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}
    files.pop(MANIFEST, None)
    manifest = {"schema_version": SCHEMA_VERSION, **facts, "files": files}
    write_json(folder / MANIFEST, manifest)
    return manifest


@contextlib.contextmanager
def changing(folder: Path | str) -> Iterator[Path]:
    """A copy of a bundle to add files to; at the end it takes the bundle's place, or vanishes on an
    error. The caller ends with `write_manifest`, and unlinks a file before writing it anew: the
    copy is made of links where the disk has them.
    """

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    folder = Path(folder)
    with new_folder(folder) as temporary:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.copytree(path, temporary / path.name, copy_function=link)
            elif path.name not in (MANIFEST, CARD):
                link(str(path), str(temporary / path.name))
        yield temporary


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of a bundle, its form checked but not its files: see `verify`.

    Raises:
        BrokenInput: there is none, it is damaged, or a newer radapter wrote it.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BrokenInput(
            f"No bundle at {folder}: {MANIFEST} is not there. Type first: radapter export"
        ) from None
    except (OSError, ValueError) as error:
        raise BrokenInput(f"{path} cannot be read: {error}. {AGAIN}") from None
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BrokenInput(
            f"{path} is not a bundle manifest: it has no schema_version. Name a bundle's folder."
        )
    if version > SCHEMA_VERSION:
        raise BrokenInput(
            f"{path} has schema version {version}; this radapter reads up to {SCHEMA_VERSION}. "
            "Upgrade radapter, or export the bundle again with this one."
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(h, str) for h in files.values()):
        raise BrokenInput(f"{path} is damaged: it does not list files with their hashes. {AGAIN}")
    return manifest


def verify(folder: Path | str, *, weights_hash: str | None = None) -> dict[str, Any]:
    """Check that a bundle is whole: every file it lists is in the folder with the hash it had.

    The hashes find damage and mix-ups. They are no signature: whoever can change a file can
    change the manifest too.

    Args:
        folder: the bundle.
        weights_hash: of the merged model that it has to be made from, if that matters.

    Returns:
        The manifest.

    Raises:
        BrokenInput: something is missing, changed, stale, or named so as to lead out of the folder.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    listed = manifest["files"]
    missing = [n for n in REQUIRED if n not in listed] or [
        n for n in tower_files(manifest, folder) if n not in listed
    ]
    if missing:
        raise BrokenInput(f"{folder / MANIFEST} does not list {missing[0]}. {AGAIN}")
    for name, expected in manifest["files"].items():
        path = _inside(folder, name)
        if not path.is_file():
            raise BrokenInput(f"Bundle {folder} lacks {name}. {AGAIN}")
        if file_hash(path) != expected:
            raise BrokenInput(
                f"{path} is damaged: it does not have the hash in {MANIFEST}. {AGAIN}"
            )
    made_from = manifest.get("weights_hash")
    if weights_hash is not None and made_from != weights_hash:
        raise BrokenInput(
            f"Bundle {folder} is stale: it was made from a merged model with hash "
            f"{str(made_from)[:16]}, the present one has {weights_hash[:16]}. "
            "Type first: radapter export"
        )
    return manifest


def tower_files(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """The files that a bundle has to have for its precisions."""
    precisions = manifest.get("precisions")
    known = isinstance(precisions, list) and all(p in PRECISIONS for p in precisions)
    if not precisions or not known:
        raise BrokenInput(
            f"{folder / MANIFEST} is damaged or older than this radapter: it does not say in which "
            f"precisions its files are. {AGAIN}"
        )
    wanted = towers(manifest.get("frames"))
    return [in_precision(tower.file, each) for tower in wanted for each in precisions]


def _inside(folder: Path, name: str, named_by: Path | None = None) -> Path:
    """The path of a file that a manifest names; BrokenInput if it leads out of the folder."""
    windows = PureWindowsPath(name)  # sees drives and backslashes as well as slashes
    outside = windows.anchor or ".." in windows.parts or PurePosixPath(name).is_absolute()
    path = folder / name
    if not name or outside or not path.resolve().is_relative_to(folder.resolve()):
        raise BrokenInput(
            f"{named_by or folder / MANIFEST} names a file outside of the bundle: "
            f"{name!r}. Do not use this bundle."
        )
    return path


def external_data(folder: Path | str, manifest: Mapping[str, Any], name: str) -> list[str]:
    """The files of a bundle in which one of its ONNX files keeps weights; no weights are read.

    onnxruntime and TensorRT open what such a file names. So ask here first.

    Args:
        folder: the bundle.
        manifest: its manifest, from `verify`.
        name: of the ONNX file in the bundle.

    Raises:
        BrokenInput: it is no ONNX file, or names a file that leads out of the bundle or that the
            manifest does not list.
    """
    import onnx

    path = Path(folder) / name
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, by version
        reason = " ".join(str(error).split())[:200]
        raise BrokenInput(f"onnx cannot load {path}: {reason}. {AGAIN}") from None
    beside = PurePosixPath(name).parent
    found = list(dict.fromkeys((beside / file).as_posix() for file in weight_files(model)))
    for file in found:
        _inside(Path(folder), file, named_by=path)
        if file not in manifest["files"]:
            raise BrokenInput(
                f"{path} keeps weights in {file}, which {MANIFEST} does not list. {AGAIN}"
            )
    return found


def weight_files(model: Any) -> list[str]:
    """The files in which an ONNX model keeps weights, as it names them."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    stored_apart = filter(uses_external_data, _tensors(model))
    return list(dict.fromkeys(ExternalDataInfo(tensor).location for tensor in stored_apart))


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model, wherever in it: initializers, attributes, functions."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def flavour_title(engine: Mapping[str, Any]) -> str:
    """`TensorRT-RTX 1.7.1.116`."""
    name = {"rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}[engine["flavour"]]
    return f"{name} {engine['version']}"


def built_for(engine: Mapping[str, Any]) -> str:
    """The GPUs that an engine of the manifest was built for, in words."""
    if "gpu" in engine:
        return f"{engine['gpu']['name']} ({engine['gpu']['compute_capability']})"
    return f"compute capability {', '.join(engine['target_gpus'])}"
