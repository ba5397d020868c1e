"""A model repository for NVIDIA's Triton Inference Server, from a bundle.

    FOLDER/<name>_vision/config.pbtxt    what goes in and out, and how requests are batched
    FOLDER/<name>_vision/1/model.onnx    with the files in which it keeps weights, if there are any
    FOLDER/<name>_text/...

Shapes and types are read from the ONNX files. Where they are served (but for int8, which is for the
CPU) and in how many instances is left to Triton, which takes all GPUs that it sees.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from radapter import bundle
from radapter.errors import BrokenInput, UsageError
from radapter.files import clear_temporary, new_folder

HEAD = "# Written by radapter export --triton"
TYPES = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.UINT8: "TYPE_UINT8",
}
QUEUE_DELAY = 1000  # microseconds that a request waits for others to share its batch


def write_repository(
    folder: Path | str, target: Path | str, name: str, precision: str | None = None
) -> list[Path]:
    """Write the towers of a bundle into a model repository; other models in it are left alone.

    Args:
        folder: the bundle.
        target: the repository.
        name: what the models' names begin with.
        precision: of those that the bundle has. Default: its first.

    Returns:
        The folders of the models, each written whole or not at all.

    Raises:
        BrokenInput: the bundle is damaged.
        UsageError: it has no such precision, or a model of that name is there that is not ours.
    """
    folder = Path(folder)
    manifest = bundle.verify(folder)
    precision = precision or manifest["precisions"][0]
    if precision not in manifest["precisions"]:
        raise UsageError(
            f"Bundle {folder} has no {precision}, only {', '.join(manifest['precisions'])}."
        )
    frames = manifest.get("frames")
    files = [bundle.in_precision(tower.file, precision) for tower in bundle.towers(frames)]
    models = places(target, name, frames)
    for place, file in zip(models, files, strict=True):
        weights = bundle.external_data(folder, manifest, file)
        clear_temporary(place.parent, f"{place.name}.*")
        with new_folder(place) as temporary:
            version = temporary / "1"
            version.mkdir()
            shutil.copyfile(folder / file, version / "model.onnx")
            for path in weights:  # named in the file as beside it
                relative = Path(path).relative_to(Path(file).parent)
                (version / relative).parent.mkdir(exist_ok=True)
                shutil.copyfile(folder / path, version / relative)
            text = config_text(folder / file, place.name, manifest)
            (temporary / "config.pbtxt").write_text(text, encoding="utf-8", newline="\n")
    return models


def places(target: Path | str, name: str, frames: int | None = None) -> list[Path]:
    """Where `write_repository` puts its models.

    Args:
        frames: of a clip, if there is a model of clips.

    Raises:
        UsageError: a model of that name is there that is not ours.
    """
    towers = bundle.towers(frames)
    found = [Path(target) / f"{name}_{tower.name.removesuffix('_model')}" for tower in towers]
    for place in found:
        config = place / "config.pbtxt"
        ours = config.is_file() and config.read_text(errors="replace").startswith(HEAD)
        if place.exists() and not ours:
            raise UsageError(f"{place} is not a folder that radapter wrote: name another.")
    return found


def config_text(model: Path, name: str, manifest: dict[str, Any]) -> str:
    """The config.pbtxt of an ONNX file whose first axis is the batch.

    Raises:
        BrokenInput: it has another form.
    """
    graph = onnx.load(model, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [_tensor(value, model) for value in graph.input if value.name not in weights]
    outputs = [_tensor(value, model) for value in graph.output]
    # On fp16 files, onnxruntime's next level crashes the process (1.26 to 1.32). 1 is "extended".
    fp16 = "_fp16" in model.name
    return (
        f"{HEAD}: {model.name}\n"
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {manifest['max_batch']}\n"
        f"input [\n{_joined(inputs)}\n]\n"
        f"output [\n{_joined(outputs)}\n]\n"
        # Requests of one shape share a batch: pad texts to one length, or to few.
        f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}\n"
        + ("optimization { graph { level: 1 } }\n" if fp16 else "")
        # Its integer operators are onnxruntime's for the CPU.
        + ("instance_group [ { kind: KIND_CPU } ]\n" if "_int8" in model.name else "")
        + 'parameters { key: "weights_hash" value { string_value: '
        + f'"{manifest["weights_hash"]}" }} }}\n'
    )


def _joined(parts: list[str]) -> str:
    return ",\n".join(f"  {part}" for part in parts)


def _tensor(value: Any, model: Path) -> str:
    """A tensor without its batch axis; an axis of any size is -1."""
    kind = value.type.tensor_type
    batch, *dims = kind.shape.dim
    if not batch.dim_param or kind.elem_type not in TYPES:
        raise BrokenInput(f"{model}: {value.name} has no free batch axis. {bundle.AGAIN}")
    sizes = ", ".join(str(-1 if dim.dim_param else dim.dim_value) for dim in dims)
    return f'{{ name: "{value.name}" data_type: {TYPES[kind.elem_type]} dims: [ {sizes} ] }}'
