"""PyTorch as a runtime: the reference that exported engines are compared with."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import platform
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter import models
from radapter.errors import MissingDependency
from radapter.models import half


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is restored at the end."""
    # Most often there are none, and setting modes would take a tenth of a small model's time.
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        # TF32 in convolutions, the default on CUDA, would be the reference's own rounding.
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        for module in training:
            module.training = True


class PyTorchRuntime:
    """The two towers of a loaded model, eager.

    Args:
        loaded: the model; used as it is in fp32 where it is on that device already, else a copy.
        device: `cpu`, `cuda`, `cuda:1`, ..., or `auto` for CUDA where there is any.
        precision: `fp32` or `fp16`.

    Raises:
        MissingDependency: there is no such device.
    """

    name = "pytorch"

    def __init__(
        self, loaded: models.LoadedModel, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device
        self.precision = precision
        self._model = loaded.model
        if precision == "fp16":
            self._model = half.to_half(copy.deepcopy(loaded.model))
        try:
            if next(self._model.parameters()).device.type != torch.device(device).type:
                self._model = copy.deepcopy(self._model).to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise MissingDependency(
                f"PyTorch has no device '{device}' here: {reason} Use the device 'cpu'."
            ) from None
        self.logit_scale = float(loaded.model.logit_scale.detach().exp())  # type: ignore[operator]
        self.provenance: dict[str, Any] = {
            "weights_hash": loaded.weights_hash,
            "torch": torch.__version__,
        }
        if device.startswith("cuda"):
            self.provenance["device_name"] = torch.cuda.get_device_name(device)
        else:
            self.provenance["threads"] = torch.get_num_threads()
        model_cfg = json.dumps(loaded.config.get("model_cfg"), sort_keys=True, default=str)
        self.identity: dict[str, Any] | None = {
            **self.provenance,
            # Equal weights can be used in two ways: other heads, another activation.
            "model_cfg": hashlib.sha256(model_cfg.encode()).hexdigest(),
            "device": device,
            "precision": self.precision,
            "machine": platform.machine(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "matmul": torch.get_float32_matmul_precision(),
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        }

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> features [n, dim], float32, unit norm."""
        with evaluation_mode(self._model):
            pixel_values = pixel_values.to(self.device, half.image_dtype(self._model))
            features = self._model.encode_image(pixel_values)  # type: ignore[operator]
        return F.normalize(features.float(), dim=-1).cpu()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [n, length <= context], int64 -> features [n, dim], float32, unit norm."""
        with evaluation_mode(self._model):
            features = models.encode_text(self._model, tokens.to(self.device))
        return F.normalize(features.float(), dim=-1).cpu()
