"""Export the two towers to ONNX and put the bundle together; nothing is left behind on failure."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim

from radapter import __version__, bundle, models
from radapter.errors import GateFailed, UsageError
from radapter.export.huggingface import write_config, write_preprocessor, write_tokenizer
from radapter.run import new_folder
from radapter.runtimes.onnx import import_onnxruntime
from radapter.runtimes.pytorch import PyTorchRuntime

OPSETS = range(18, 26)  # 26 writes an invalid file with the present exporter
WORST_COSINE = 0.99999  # fp32, as the parity gate of the evaluation
BATCHES = (1, 2, 5)  # that are verified
ONE_FILE = 1.9e9  # bytes of weights; a protobuf file ends at 2 GB
TEXTS = ("a cat", "two red balls", "nothing", "a photo of a house by the sea", "blue")
LONG = " ".join("a long text about one thing and another, that goes on and on" for _ in range(20))


class ImageTower(nn.Module):
    """pixel_values [batch, 3, height, width] -> image_embeds [batch, dim], unit norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.model.encode_image(pixel_values)  # type: ignore[operator]
        return F.normalize(features.float(), dim=-1)


class TextTower(nn.Module):
    """input_ids [batch, length] -> text_embeds [batch, dim], unit norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.normalize(models.encode_text(self.model, input_ids).float(), dim=-1)


def export_bundle(
    loaded: models.LoadedModel,
    folder: Path | str,
    *,
    facts: Mapping[str, Any],
    classes: Mapping[str, Any] | None = None,
    opset: int = 20,
) -> dict[str, Any]:
    """Write a bundle: both towers as ONNX files, verified in a fresh process, and what they need.

    The caller's model is not touched. The same weights, facts and package versions give the same
    bytes.

    Args:
        loaded: a plain (merged) model.
        folder: where the bundle goes; one that is there already is replaced when all is well.
        facts: for the manifest: `base_model`, `base_hash`, `recipe`, `recipe_hash`, `method`,
            `alpha`, whatever else tells where the weights come from. Of an absolute path only its
            last part is kept.
        classes: `names`, one a class, with their text `features` [classes, dim], or else with
            `prompts`, one list of texts a class; without both, the names are the texts.
        opset: of ONNX, 18 to 25. 20 is what runs everywhere: above 22, an attention operator has
            no fp32 kernel in TensorRT.

    Returns:
        The manifest.

    Raises:
        UsageError: the opset or the tokenizer is not one that can be exported.
        MissingDependency: no onnxruntime to verify with.
        GateFailed: an exported file does not do what the model does.
    """
    if opset not in OPSETS:
        raise UsageError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, not {opset}.")
    import_onnxruntime()
    model_cfg, preprocess_cfg = loaded.config["model_cfg"], loaded.config["preprocess_cfg"]
    reference = PyTorchRuntime(loaded)
    cases = _cases(loaded, reference)
    context_length = int(loaded.model.context_length)  # type: ignore[arg-type]
    dynamic = models.text.takes_short_texts(loaded.model)
    with new_folder(folder) as temporary:
        (temporary / "onnx").mkdir()
        _export_towers(loaded.model, temporary, cases, dynamic=dynamic, opset=opset)
        verification = _verify(temporary, cases)
        write_config(temporary, model_cfg, reference.logit_scale)
        write_preprocessor(temporary, preprocess_cfg)
        write_tokenizer(temporary, loaded.tokenizer, context_length=context_length, dynamic=dynamic)
        if classes is not None:
            features = class_features(loaded, classes)
            bundle.write_classes(
                temporary, classes["names"], features.numpy(), reference.logit_scale
            )
        own = {
            "weights_hash": models.weights_hash(loaded.model.state_dict()),
            "precision": "fp32",
            "opset": opset,
            "image_size": list(_image_size(loaded.model)),
            "context_length": context_length,
            "text_length": "dynamic" if dynamic else "fixed",
            "embed_dim": model_cfg["embed_dim"],
            "logit_scale": reference.logit_scale,
            "versions": _versions(),
            "verification": verification,
        }
        portable = {key: _portable(value) for key, value in facts.items()}
        return bundle.write_manifest(temporary, {**portable, **own})


def plan(loaded: models.LoadedModel, classes: Mapping[str, Any] | None = None) -> dict[str, int]:
    """What `export_bundle` would write: bytes by file name, near enough; nothing is written."""
    tower = models.text.text_tower(loaded.model)
    visual: Any = loaded.model.visual
    vision = sum(p.numel() for p in visual.parameters())
    text = sum(p.numel() for p in tower.parameters())
    if tower is loaded.model:  # open_clip's CLIP holds its text tower in itself
        text -= vision
    files = {bundle.VISION: 4 * vision, bundle.TEXT: 4 * text}
    small = {"config.json": 10**3, "preprocessor_config.json": 10**3, "tokenizer.json": 17 * 10**5}
    files |= small | {"tokenizer_config.json": 10**3, "special_tokens_map.json": 10**3}
    if classes is not None:
        size = 4 * len(classes["names"]) * loaded.config["model_cfg"]["embed_dim"]
        files |= {bundle.CLASSES: 20 * len(classes["names"]), bundle.CLASS_FEATURES: size}
    return files | {bundle.CARD: 2 * 10**3, bundle.MANIFEST: 3 * 10**3}


def class_features(loaded: models.LoadedModel, classes: Mapping[str, Any]) -> Tensor:
    """Text features [classes, dim], unit norm: a class is the mean of its prompts' unit features.

    Args:
        loaded: the model.
        classes: as for `export_bundle`.
    """
    if "features" in classes:
        return F.normalize(torch.as_tensor(classes["features"]).detach().float().cpu(), dim=-1)
    runtime = PyTorchRuntime(loaded)
    prompts: Sequence[Sequence[str]] = classes.get("prompts") or [[n] for n in classes["names"]]
    rows = []
    for texts in prompts:
        tokens = models.shorten(loaded.model, loaded.tokenizer(list(texts)))
        rows.append(runtime.encode_text(tokens).mean(0))
    return F.normalize(torch.stack(rows), dim=-1)


def _image_size(model: nn.Module) -> tuple[int, int]:
    size: Any = model.visual.image_size  # type: ignore[union-attr]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _cases(loaded: models.LoadedModel, reference: PyTorchRuntime) -> dict[str, Tensor]:
    """Inputs and the features that PyTorch gives for them, named as verify.py expects."""
    n = max(BATCHES)
    size = _image_size(loaded.model)
    noise = torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))
    # Pictures are smooth; blurred noise is nearer to them than noise is.
    smooth = F.interpolate(F.avg_pool2d(noise, 8), size, mode="bilinear") * 4
    texts = {"short": list(TEXTS), "full": [f"{text}, {LONG}" for text in TEXTS]}
    tensors = {}
    for case, pixels in {"noise": noise, "smooth": smooth}.items():
        tensors[f"{bundle.VISION}|{case}|input"] = pixels
        tensors[f"{bundle.VISION}|{case}|output"] = reference.encode_image(pixels)
    for case, words in texts.items():
        tokens = models.shorten(loaded.model, loaded.tokenizer(words))
        tensors[f"{bundle.TEXT}|{case}|input"] = tokens
        tensors[f"{bundle.TEXT}|{case}|output"] = reference.encode_text(tokens)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _export_towers(
    model: nn.Module, folder: Path, cases: Mapping[str, Tensor], *, dynamic: bool, opset: int
) -> None:
    # The exporter and its tracing must not leave a mark on the caller's model.
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    batch = Dim("batch", min=1, max=2**16)
    length = Dim("length", min=2, max=int(model.context_length))  # type: ignore[arg-type]
    text_axes = {0: batch, 1: length} if dynamic else {0: batch}
    # Three examples: a batch of one would be taken for a constant.
    pixels = cases[f"{bundle.VISION}|noise|input"][:3]
    tokens = cases[f"{bundle.TEXT}|short|input"][:3]
    for path, tower, example, axes, output in (
        (bundle.VISION, ImageTower(model), pixels, {0: batch}, "image_embeds"),
        (bundle.TEXT, TextTower(model), tokens, text_axes, "text_embeds"),
    ):
        name = "pixel_values" if path == bundle.VISION else "input_ids"
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                tower.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[name],
                output_names=[output],
                dynamic_shapes={name: axes},
                verbose=False,
            )
        assert program is not None
        # Stack traces with this machine's paths, otherwise.
        ClearMetadataAndDocStringPass()(program.model)
        program.model.producer_version = torch.__version__.split("+")[0]  # not how torch was built
        size = sum(p.numel() * p.element_size() for p in tower.parameters())
        program.save(str(folder / path), external_data=size > ONE_FILE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns and logs about its own workings; what matters is verified."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _verify(folder: Path, cases: Mapping[str, Tensor]) -> dict[str, Any]:
    """Run `verify.py` in a fresh process; the figures for the manifest, or GateFailed."""
    reference = folder / ".reference.safetensors"
    save_file(dict(cases), reference)
    # By path and with -P: neither this package nor the folder of verify.py, which has an onnx.py.
    script = Path(__file__).with_name("verify.py")
    command = [sys.executable, "-P", *map(str, (script, folder, reference, *BATCHES))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        reference.unlink()
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise GateFailed(f"The exported files do not run ({reason[0][:400]}). No bundle written.")
    results = json.loads(done.stdout)
    for name, figures in results.items():
        if not figures["worst_cosine"] >= WORST_COSINE:
            raise GateFailed(
                f"{name} does not agree with PyTorch: worst cosine {figures['worst_cosine']:.7f} "
                f"(at least {WORST_COSINE} wanted), largest difference "
                f"{figures['max_abs_difference']:.1e}. No bundle was written."
            )
        figures["worst_cosine"] = math.floor(figures["worst_cosine"] * 1e7) / 1e7
        figures["max_abs_difference"] = float(f"{figures['max_abs_difference']:.1e}")
    texts = (f"{bundle.TEXT}|{case}|input" for case in ("short", "full"))
    lengths = sorted({cases[name].shape[1] for name in texts})
    return {
        "runtime": "onnxruntime, CPUExecutionProvider",
        "batches": list(BATCHES),
        "text_lengths": lengths,
        "image": results[bundle.VISION],
        "text": results[bundle.TEXT],
    }


def _versions() -> dict[str, str]:
    names = ("torch", "open_clip_torch", "onnx", "onnxscript", "onnxruntime", "tokenizers")
    found = {name: _version(name) for name in names}
    return {"radapter": __version__, **{k: v for k, v in found.items() if v}}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _portable(value: Any) -> Any:
    """A fact without the paths of this machine."""
    if not isinstance(value, str):
        return value
    prefix, separator, rest = value.rpartition(":")
    path = Path(rest)
    return f"{prefix}{separator}{path.name}" if path.is_absolute() else value
