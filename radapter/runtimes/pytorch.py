"""PyTorch as a runtime: the reference that exported engines are compared with."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import platform
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter import models
from radapter.errors import MissingDependency, UsageError, nearest, ran_out_of_memory
from radapter.models import half, matching, patches, queries, text
from radapter.models.frames import each_frame, mean_of_frames, most_frames, video_features
from radapter.precision import cpu_has_bf16, exact_fp32
from radapter.runtimes import BATCH
from radapter.runtimes.engines import TORCH_PRECISIONS, Engine

TYPES = dict(zip(TORCH_PRECISIONS, (torch.float32, torch.float16, torch.bfloat16), strict=True))


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is restored at the end."""
    # Most often there are none, and setting modes would take a tenth of a small model's time.
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        # TF32 in convolutions, the default on CUDA, would add rounding of the reference's own.
        with torch.no_grad(), exact_fp32():
            yield
    finally:
        for module in training:
            module.training = True


class PyTorchRuntime:
    """The two towers of a loaded model, eager.

    Args:
        loaded: the model; used as it is in fp32 where it is on that device already, else a copy.
        device: `cpu`, `cuda`, `cuda:1`, ..., or `auto` for CUDA where there is any; where it does
            not take the model, the CPU, with a warning.
        precision: `fp32` (without TF32), `fp16` or `bf16`.

    Raises:
        UsageError: there is no such precision.
        MissingDependency: there is no such device.
        torch.OutOfMemoryError: the device has no room for the model.
    """

    name = "pytorch"

    def __init__(
        self, loaded: models.LoadedModel, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        if precision not in TYPES:
            known = list(TYPES)
            raise UsageError(f"Unknown precision '{precision}'.{nearest(precision, known)}")
        wanted = device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = precision
        self._model = loaded.model
        if precision == "bf16" and device == "cpu" and not cpu_has_bf16():
            warnings.warn(
                "This CPU has no bf16 and emulates it slowly. Next to try: precision fp32.",
                stacklevel=2,
            )
        if precision != "fp32":
            self._model = half.to_half(copy.deepcopy(loaded.model), TYPES[precision])
        try:
            if not _is_on(self._model, torch.device(device)):
                self._model = copy.deepcopy(self._model).to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            if wanted == "auto":
                warnings.warn(f"{device} cannot be used, so the CPU is: {reason}", stacklevel=2)
                device = "cpu"
            elif ran_out_of_memory(error):
                raise
            else:
                raise MissingDependency(
                    f"PyTorch has no device '{device}' here: {reason} Use the device 'cpu'."
                ) from None
        self.device = device
        self.place = next(self._model.parameters()).device
        self.logit_scale = loaded.logit_scale
        self.frames = most_frames(loaded.model)
        self.provenance: dict[str, Any] = {
            "weights_hash": loaded.weights_hash,
            "torch": torch.__version__,
        }
        if device.startswith("cuda"):
            self.provenance["device_name"] = torch.cuda.get_device_name(self.place)
        else:
            self.provenance["threads"] = torch.get_num_threads()
        model_cfg = json.dumps(loaded.config.get("model_cfg"), sort_keys=True, default=str)
        self.identity: dict[str, Any] | None = {
            **self.provenance,
            # Equal weights can be used in two ways: other heads, another activation.
            "model_cfg": hashlib.sha256(model_cfg.encode()).hexdigest(),
            **{key: loaded.config[key] for key in ("attached",) if key in loaded.config},
            "device": device,
            "precision": self.precision,
            "machine": platform.machine(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "fp32": "without TF32",
        }

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> features [n, dim], float32, unit norm."""
        with evaluation_mode(self._model):
            pixels = moved(pixel_values, self.place).to(half.image_dtype(self._model))
            features = self._model.encode_image(pixels)  # type: ignore[operator]
        return F.normalize(features.float(), dim=-1).cpu()

    def encode_video(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width] -> features [n, dim], float32, unit norm; of a model
        of pictures the means of their frames."""
        if self.frames is None:
            return mean_of_frames(self.encode_image, clips)
        with evaluation_mode(self._model):
            pixels = moved(clips, self.place).to(half.image_dtype(self._model))
            return video_features(self._model, pixels).cpu()

    def encode_frames(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width] -> features of their frames [n, frames, dim],
        float32, unit norm; of a model of clips each with the others of its clip in view."""
        if self.frames is None:
            return each_frame(self.encode_image, clips)
        with evaluation_mode(self._model):
            pixels = moved(clips, self.place).to(half.image_dtype(self._model))
            return self._model.encode_frames(pixels).cpu()  # type: ignore[operator]

    makes_patches = True
    """`encode_patches` is there, and says of which image towers it knows none"""

    def encode_patches(self, pixel_values: Tensor) -> Tensor:
        """Pictures -> features of their patches [n, rows, columns, dim], float32, unit norm.

        Raises:
            UsageError: the image tower has none that are known.
        """
        with evaluation_mode(self._model):
            pixels = moved(pixel_values, self.place).to(half.image_dtype(self._model))
            features = patches.patch_features(self._model, pixels)
        return F.normalize(features.float(), dim=-1).cpu()

    @property
    def makes_queries(self) -> bool:
        """Whether `encode_query` works."""
        return queries.has_queries(self._model)

    def encode_query(self, pixel_values: Tensor, tokens: Tensor) -> Tensor:
        """Pictures, and token ids of as many texts in their template -> features of what is looked
        for [n, dim], float32, unit norm."""
        with evaluation_mode(self._model):
            pixels = moved(pixel_values, self.place).to(half.image_dtype(self._model))
            z = self._model.encode_image(pixels)  # type: ignore[operator]
            features = queries.query_features(self._model, z, moved(tokens, self.place))
        return F.normalize(features.float(), dim=-1).cpu()

    @property
    def matches(self) -> bool:
        """Whether `match` and `matcher` work."""
        return matching.has_matching(self._model)

    def match(self, pixel_values: Tensor, tokens: Tensor) -> Tensor:
        """Pictures, and token ids of as many texts -> logits [n, 2], float32; the second says that
        the text is of the picture."""
        every = torch.arange(len(tokens))
        return self.matcher(pixel_values)(tokens, every, every)

    def matcher(self, pixel_values: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Read pictures [n, 3, height, width] once, for many texts.

        Returns:
            A function of token ids [texts, length], and of the numbers of pictures and of texts
            [pairs] each, that gives the logits of these pairs [pairs, 2], as `match` does.
        """
        with evaluation_mode(self._model):
            parts = moved(pixel_values, self.place).to(half.image_dtype(self._model)).split(BATCH)
            seen = torch.cat([matching.of_pictures(self._model, part)[1] for part in parts])

        def match(tokens: Tensor, pictures: Tensor, texts: Tensor) -> Tensor:
            with evaluation_mode(self._model):
                length = matching.longest(self._model, tokens)
                last = matching.last_tokens(self._model, tokens).to(self.place)
                _, read = matching.of_texts(self._model, moved(tokens, self.place), length)
                pictures, texts = pictures.to(self.place), texts.to(self.place)
                args = seen[pictures], read[texts], last[texts]
                return matching.match_logits(self._model, *args).cpu()

        return match

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [n, length <= context], int64 -> features [n, dim], float32, unit norm."""
        with evaluation_mode(self._model):
            features = models.encode_text(self._model, moved(tokens, self.place))
        return F.normalize(features.float(), dim=-1).cpu()

    def encode_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [n, length <= context] -> features of every token [n, length, dim], float32,
        unit norm; and which of them are of the text, bool [n, length].

        Raises:
            UsageError: the text tower has none that are known.
        """
        with evaluation_mode(self._model):
            features, read = text.token_features(self._model, moved(tokens, self.place))
        return F.normalize(features.float(), dim=-1).cpu(), read.cpu()

    def release(self) -> None:
        """Give up the model. What the runtime says of itself stays; it encodes nothing more."""
        del self._model


def open_engine(
    engine: Engine, loaded: models.LoadedModel, *, precision: str | None = None, **_: Any
) -> PyTorchRuntime:
    """See `engines.Engine.open`; threads are torch's own setting."""
    return PyTorchRuntime(loaded, engine.device, precision or "fp32")


def moved(tensor: Tensor, place: torch.device) -> Tensor:
    """On the device; to a GPU from pinned memory, as TensorRT's runtime does: faster, and the CPU
    goes on meanwhile."""
    if place.type != "cuda" or tensor.is_cuda:
        return tensor.to(place)
    return tensor.pin_memory().to(place, non_blocking=True)


def _is_on(model: nn.Module, device: torch.device) -> bool:
    present = next(model.parameters()).device
    return present.type == device.type and device.index in (None, present.index)
