"""A model that is open: a runtime with what turns pictures and texts into its inputs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip.tokenizer import get_clean_fn
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from radapter import bundle
from radapter.errors import BrokenInput, MissingDependency, UsageError, ran_out_of_memory
from radapter.heads import head as heads
from radapter.models import LoadedModel, canonical_preprocessing
from radapter.models.loaded import INTERPOLATION
from radapter.models.queries import template_of
from radapter.runtimes import Runtime
from radapter.runtimes.onnx import OnnxRuntime, import_onnxruntime
from radapter.runtimes.providers import CPU, CUDA
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.runtimes.trt.runtime import TensorRTRuntime


@dataclass(frozen=True)
class OpenModel:
    """A runtime with what turns pictures and texts into its inputs."""

    name: str
    runtime: Runtime
    tokenizer: Callable[[Sequence[str]], Tensor]
    """Texts -> token ids [n, length], int64, cut to the longest text where the model allows it"""
    preprocess: Callable[[Image.Image], Tensor]
    """PIL picture -> float tensor [3, height, width]"""
    preprocessing: dict[str, Any]
    """What `preprocess` does, in plain data: equal for all forms of one model"""
    classes: Mapping[str, Any] | None = None
    """Trained classes: `names` with their `prompts`, or with their text `features`
    [classes, dim]; None if no classes were trained"""
    templates: list[str] | Literal["openai"] = field(
        default_factory=lambda: list(bundle.PLAIN_TEMPLATES)
    )
    """Prompts for class names of one's own: the run's or the bundle's, else CLIP's plainest"""
    head: heads.Head | None = None
    """That was trained with it: it tells its own classes apart, texts tell all others"""
    query: str | None = None
    """What a text beside a picture is put into, where the runtime makes a query of both by
    `encode_query`; None: it does not"""
    lacks_query: bool = False
    """The model was trained to make such a query, and the runtime has no file for it"""
    pictures_as: str | None = None
    """The hash of another model's weights with the very same image tower: features of its pictures
    can be searched"""

    @property
    def weights_hash(self) -> str:
        """The hash of the weights that the features come from."""
        return str(self.runtime.provenance["weights_hash"])


def from_loaded(
    loaded: LoadedModel,
    name: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    **more: Any,
) -> OpenModel:
    """A model in PyTorch; `more` are further fields of `OpenModel`."""
    return with_runtime(PyTorchRuntime(loaded, device, precision), loaded, name=name, **more)


def with_runtime(
    runtime: Runtime, loaded: LoadedModel, *, name: str | None = None, **more: Any
) -> OpenModel:
    """A runtime with the tokenizer and the preprocessing of the model that it was made from."""
    fields = {
        "tokenizer": loaded.tokenize,
        "preprocess": loaded.preprocess,
        "preprocessing": canonical_preprocessing(loaded.config["preprocess_cfg"]),
        "head": loaded.head,
        "query": template_of(loaded.model) if getattr(runtime, "makes_queries", False) else None,
    }
    return OpenModel(name or loaded.name, runtime, **(fields | more))


# ---------------------------------------------------------------- bundles


def open_bundle(
    folder: Path,
    device: str = "cpu",
    *,
    engine: str = "onnx",
    name: str | None = None,
    weights_hash: str | None = None,
    **more: Any,
) -> OpenModel:
    """A bundle with its own tokenizer, preprocessing and classes.

    Args:
        folder: the bundle.
        weights_hash: of the merged model that it has to be made from, if that matters.
        more: further fields of `OpenModel`.

    Raises:
        BrokenInput: it is damaged or stale.
        MissingDependency: no onnxruntime.
    """
    runtime = _bundle_runtime(folder, device, engine, weights_hash)  # checks every file
    manifest = bundle.read_manifest(folder)
    classes = bundle.read_classes(folder)
    more.setdefault("templates", bundle.read_templates(folder, manifest))
    if "query" in manifest:
        template = str(manifest["query"].get("template"))
        more["query"] = template if getattr(runtime, "makes_queries", False) else None
        more["lacks_query"] = more["query"] is None
        more["pictures_as"] = manifest.get("base_hash")
    return OpenModel(
        name or f"{manifest.get('recipe', folder)}, alpha {manifest.get('alpha', '?')}",
        runtime,
        BundleTokenizer(folder, manifest, clean=text_cleaning(folder, manifest)),
        **bundle_preprocessing(folder),
        classes={"names": classes[0], "features": torch.from_numpy(classes[1])}
        if classes
        else None,
        head=heads.read(folder),
        **more,
    )


def bundle_preprocessing(folder: Path) -> dict[str, Any]:
    """`preprocess` and `preprocessing`, the fields of `OpenModel`, as a bundle states them.

    Raises:
        BrokenInput: the bundle does not state it in a form that radapter writes.
    """
    stated = read_preprocessing(folder)
    return {"preprocess": _transform(stated), "preprocessing": stated}


def _transform(preprocessing: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    cfg = PreprocessCfg(**(preprocessing | {"size": tuple(preprocessing["size"])}))
    transform: Callable[[Image.Image], Tensor] = image_transform_v2(cfg, is_train=False)
    return transform


def _bundle_runtime(folder: Path, device: str, engine: str, weights_hash: str | None) -> Runtime:
    if engine == "tensorrt":
        if device == "cpu":
            raise UsageError("TensorRT runs on CUDA only: use the device auto or cuda.")
        return TensorRTRuntime(
            folder, "cuda" if device == "auto" else device, weights_hash=weights_hash
        )
    if device == "auto":
        listed = CUDA in import_onnxruntime().get_available_providers()
        if listed and torch.cuda.is_available():
            try:
                return OnnxRuntime(folder, CUDA, weights_hash=weights_hash)
            except Exception as error:  # onnxruntime's own have no common base
                if not (isinstance(error, MissingDependency) or ran_out_of_memory(error)):
                    raise
                warnings.warn(f"CUDA cannot be used, so the CPU is: {error}", stacklevel=2)
        device = "cpu"
    place = torch.device(device)
    provider = CPU if place.type == "cpu" else CUDA
    return OnnxRuntime(folder, provider, weights_hash=weights_hash, index=place.index or 0)


def text_cleaning(folder: Path, manifest: Mapping[str, Any]) -> Callable[[str], str]:
    """What open_clip does to texts before it takes them apart: ftfy's repairs, entities, white
    space and, by model, case and punctuation. No tokenizer.json can: other programs go without."""
    kind = manifest.get("text_cleaning")
    try:
        if kind is None:  # a bundle made before it was stated
            kind = _usual_cleaning(folder)
        clean: Callable[[str], str] = get_clean_fn(kind)
        return clean
    except (AssertionError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenInput(
            f"Bundle {folder} does not say how texts are cleaned: {error!r}. {bundle.AGAIN}"
        ) from None


def _usual_cleaning(folder: Path) -> str:
    """That of a converted tokenizer, which lowers texts or not; of others open_clip's default or
    what the model's configuration says."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if tokenizer["model"].get("end_of_word_suffix") == "</w>":
        return "lower" if "Lowercase" in json.dumps(tokenizer["normalizer"]) else "whitespace"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    options = config.get("open_clip", {}).get("text_cfg", {}).get("tokenizer_kwargs") or {}
    return str(options.get("clean", "whitespace"))


class BundleTokenizer:
    """The bundle's tokenizer.json: texts -> token ids [n, length], int64.

    Args:
        folder: the bundle.
        manifest: its manifest.
        clean: done to each text first; None: nothing, as other programs use the file. With it, the
            ids are open_clip's, except of texts that spell out a special token.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        clean: Callable[[str], str] | None = None,
    ) -> None:
        self._clean = clean
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
            length = int(manifest["context_length"])
            fixed = manifest["text_length"] == "fixed"
        except Exception as error:  # the package raises plain Exceptions
            raise BrokenInput(f"{path} cannot be read: {error}. {bundle.AGAIN}") from None
        self._tokenizer.enable_truncation(length)
        # A converted tokenizer says how it pads; one that Hugging Face saved may not.
        padding = self._tokenizer.padding or {}
        pad = {key: padding[key] for key in ("pad_id", "pad_token") if key in padding}
        self._tokenizer.enable_padding(
            **(pad or self._pad_of(folder)), length=length if fixed else None
        )

    def _pad_of(self, folder: Path) -> dict[str, Any]:
        try:
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            token = config["pad_token"]
            token = token if isinstance(token, str) else token["content"]
            return {"pad_id": self._tokenizer.token_to_id(token) or 0, "pad_token": token}
        except (OSError, ValueError, KeyError, TypeError):
            return {"pad_id": 0, "pad_token": "!"}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        if self._clean is not None:
            texts = [self._clean(text) for text in texts]
        rows = self._tokenizer.encode_batch(list(texts))
        return torch.tensor([row.ids for row in rows], dtype=torch.int64)


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """What a bundle's preprocessor_config.json states, as `canonical_preprocessing` has it.

    Raises:
        BrokenInput: the file is damaged or in a form that radapter does not write.
    """
    path = folder / "preprocessor_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if "open_clip" in config:
            return canonical_preprocessing(config["open_clip"])
        crop = config["crop_size"]
        return canonical_preprocessing(
            {
                "size": [crop["height"], crop["width"]],
                "mean": config["image_mean"],
                "std": config["image_std"],
                "interpolation": INTERPOLATION[config["resample"]],
                "resize_mode": "shortest" if config["do_center_crop"] else "squash",
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenInput(f"{path} cannot be read: {error!r}. {bundle.AGAIN}") from None
