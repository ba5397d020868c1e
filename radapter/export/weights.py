"""The weights beside the ONNX files, for programs that train or fine-tune: open_clip and
transformers.

Not by default: each form is as large as both towers in fp32. open_clip's lies in a folder of its
own, since there is a config.json of Hugging Face's beside it otherwise; transformers' lies in the
bundle itself, which then is a folder that `from_pretrained` loads.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from radapter import bundle, models
from radapter.errors import GateFailed, UsageError, nearest
from radapter.export.cases import Cases
from radapter.export.golden import FEATURE_TOLERANCE
from radapter.models import huggingface
from radapter.runtimes.pytorch import PyTorchRuntime

OPEN_CLIP, TRANSFORMERS = "open_clip", "transformers"
FORMS = (OPEN_CLIP, TRANSFORMERS)


def check_forms(forms: Sequence[str], loaded: models.LoadedModel) -> None:
    """UsageError if there is no such form, or the model cannot be written in it."""
    if unknown := [form for form in forms if form not in FORMS]:
        raise UsageError(f"Unknown checkpoint '{unknown[0]}'.{nearest(unknown[0], list(FORMS))}")
    if forms and "attached" in loaded.config:
        method = loaded.config["attached"]["name"]
        raise UsageError(
            f"What {method} trains folds into no weight of an open_clip or transformers model, so "
            "there is no checkpoint of it; the bundle's ONNX files have the adapters inside: leave "
            "out --checkpoint."
        )
    if forms and "members" in loaded.config["model_cfg"]:
        raise UsageError("A mixture of models has no checkpoint of one: leave out --checkpoint.")
    if forms and loaded.head is not None and loaded.head.facts:
        raise UsageError(
            "An open_clip or transformers checkpoint has no place for the head "
            f"{loaded.head.facts['name']}, and would answer by texts; the bundle has it inside "
            "onnx/classifier.onnx: leave out --checkpoint."
        )
    if TRANSFORMERS in forms:
        from radapter.export.configs import clip_config

        if clip_config(loaded.config["model_cfg"]) is None:
            raise UsageError(
                "transformers' CLIPModel has no form for this architecture: leave out "
                f"--checkpoint {TRANSFORMERS}. `--checkpoint {OPEN_CLIP}` takes any."
            )
        huggingface.to_huggingface(loaded.model.state_dict())


def write(
    folder: Path, loaded: models.LoadedModel, forms: Sequence[str], golden: Mapping[str, Cases]
) -> None:
    """Write the weights in these forms, load each again and compare its features.

    Args:
        folder: the bundle, with its config.json, preprocessor_config.json and tokenizer.json.
        loaded: the model.
        forms: of `FORMS`.
        golden: what `golden.write` gave.

    Raises:
        UsageError: the model has no such form.
        GateFailed: what was written gives other features.
    """
    state = loaded.model.state_dict()
    for form in forms:
        place = folder / OPEN_CLIP if form == OPEN_CLIP else folder
        if form == OPEN_CLIP:
            place.mkdir()
            models.save(place, loaded, state)
        else:
            tensors = huggingface.to_huggingface(state)
            save_file(tensors, place / huggingface.WEIGHTS, metadata={"format": "pt"})
        for path in place.glob("*.safetensors"):
            shutil.copymode(folder / "config.json", path)  # safetensors makes them the user's own
        again = PyTorchRuntime(models.load(place))
        for tower in bundle.TOWERS:
            inputs, expected = golden[tower.file]["golden"]
            difference = float((getattr(again, tower.encode)(inputs) - expected).abs().max())
            if not difference <= FEATURE_TOLERANCE:  # true for NaN, too
                raise GateFailed(
                    f"The {form} checkpoint of this model gives other features than the model: "
                    f"largest difference {difference:.1e}. No bundle was written."
                )


def plan(loaded: models.LoadedModel, forms: Sequence[str]) -> dict[str, int]:
    """What `write` would write: bytes by file name, near enough."""
    tensors = loaded.model.state_dict().values()
    size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
    files: dict[str, int] = {}
    if OPEN_CLIP in forms:
        own = {models.loading.CONFIG: 10**3, models.loading.WEIGHTS: size}
        files |= {f"{OPEN_CLIP}/{name}": bytes_ for name, bytes_ in own.items()}
    if TRANSFORMERS in forms:
        files[huggingface.WEIGHTS] = size
    return files
