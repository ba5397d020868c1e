"""Load open_clip models by name, from a folder, a repository or a file of weights."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from radapter.errors import BrokenInput, UsageError, nearest, not_installed
from radapter.models import (
    checkpoints,
    compact,
    conventions,
    downloads,
    fitting,
    huggingface,
    torchscript,
)
from radapter.models.loaded import CONFIG, TEXT_TOWER, WEIGHTS, LoadedModel
from radapter.quiet import quiet

BUILT_IN = "pictogram-clip"
FOLDER = Path(__file__).parent / "pictogram_clip"
FORMER = "emoji-clip"
"""The built-in model before; runs name it as their base"""
OTHERS = (
    "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin",
)  # fmt: skip
"""Names of weights in folders of others, in open_clip's order"""
TOKENIZERS = ("tokenizer*.json", "*.model", "vocab.*")


def names() -> list[str]:
    """Every `NAME:TAG` that can be loaded, the built-in model first."""
    return [BUILT_IN, *(f"{name}:{tag}" for name, tag in open_clip.list_pretrained())]


def load(
    path_or_name: str | Path, *, seed: int = 0, of_file: Mapping[str, Any] | None = None
) -> LoadedModel:
    """A model by name, from a folder or from a checkpoint file.

    Args:
        path_or_name: `pictogram-clip` (built in), `NAME:TAG` as open_clip knows them, `NAME:FILE`
            for weights of a known architecture, `NAME:random` for random weights, a folder in
            open_clip's format (`local-dir:FOLDER` too) or of Hugging Face's CLIP, or
            `hf-hub:OWNER/NAME`. A file does not say its preprocessing and its activation; where
            published weights of the architecture do not agree, they are stated behind it, as
            `NAME:FILE,like=TAG` or `NAME:FILE,mean=0.5,std=0.5` (see `conventions.py`).
        seed: draws the weights of `NAME:random`.
        of_file: what a `NAME:FILE` is used with, whatever else says it: see `conventions.of_file`.

    Raises:
        UsageError: no such model or tag, or a file of which it is not clear how it is used.
        BrokenInput: a file is missing, damaged or holds what is not safe to load.
    """
    name = str(path_or_name)
    if Path(name).is_dir():
        return _from_folder(Path(name), name)
    _refuse_former(name)
    stated = conventions.read(name)
    source = stated.source
    architecture, separator, tag = source.partition(":")
    known = [BUILT_IN, *open_clip.list_models()]
    if source != name and not (architecture in known and _is_file_name(tag)):
        raise UsageError(
            f"{name}: only a bare weights file (NAME:FILE) takes settings, and {source} "
            "has its own. Leave them out."
        )
    if name == BUILT_IN:
        return _from_folder(FOLDER, name)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not folder.is_dir():
            raise BrokenInput(f"No model folder at {folder}.")
        return _from_folder(folder, name)
    if name.startswith("hf-hub:"):
        config, weights = downloads.repository(name, name.removeprefix("hf-hub:"))
        return _described(name, name, config, weights)
    if not separator and (os.sep in name or Path(name).suffix):
        raise BrokenInput(f"No model folder at {name}.")
    if architecture == BUILT_IN and tag == "random":
        config = json.loads((FOLDER / CONFIG).read_text())
        return _random(f"local-dir:{FOLDER}", name, config["model_cfg"], seed)
    if architecture == BUILT_IN and _is_file_name(tag):
        raise UsageError(
            f"{name}: {BUILT_IN} comes with its weights. Others of its form are a folder in "
            f"open_clip's format: put them beside a copy of {CONFIG} from {FOLDER}."
        )
    check_name(name)
    if tag == "random":
        return _random(architecture, name, _model_cfg(architecture), seed)
    if tag in open_clip.list_pretrained_tags_by_model(architecture):
        besides = _of_the_hub(architecture, _model_cfg(architecture)["text_cfg"])
        known_of = dict(open_clip.get_pretrained_cfg(architecture, tag))
        path = downloads.weights(name, architecture, tag, known_of, besides)
        return _from_file(architecture, path, name, conventions.of_tag(architecture, tag))
    if Path(tag).is_dir():
        raise UsageError(
            f"{tag} is a folder, which names its own architecture. Name the folder alone: {tag}"
        )
    return _from_file(architecture, Path(tag), name, of_file, stated)


def check_name(name: str) -> None:
    """Look for a misspelling in `NAME:TAG`, before anything is opened; other names are taken as
    they are.

    Raises:
        UsageError: open_clip has no such model or tag, or a tag is needed.
    """
    architecture, separator, tag = conventions.read(name).source.partition(":")
    a_path = Path(name).is_dir() or (not separator and (os.sep in name or Path(name).suffix))
    if a_path or name == BUILT_IN or architecture in ("local-dir", "hf-hub"):
        return
    _refuse_former(name)
    known = [BUILT_IN, *open_clip.list_models()]
    if architecture not in known:
        raise UsageError(f"Unknown model '{architecture}'.{nearest(architecture, known)}")
    tags = [*open_clip.list_pretrained_tags_by_model(architecture), "random"]
    if not tag:
        raise UsageError(
            f"Model '{name}' needs its weights named too: {name}:TAG with TAG one of "
            f"{', '.join(tags)}."
        )
    if tag not in tags and not Path(tag).is_dir() and not _is_file_name(tag):
        raise UsageError(f"Unknown weights '{tag}' for {architecture}.{nearest(tag, tags)}")


def _refuse_former(name: str) -> None:
    if name.partition(":")[0] == FORMER:
        raise UsageError(
            f"{FORMER} was replaced by {BUILT_IN}. Take {BUILT_IN}; runs on {FORMER} need the "
            "radapter that trained them. Bundles work without it."
        )


def _is_file_name(tag: str) -> bool:
    return os.sep in tag or Path(tag).suffix in checkpoints.ENDINGS or Path(tag).is_file()


def _model_cfg(architecture: str) -> dict[str, Any]:
    return dict(open_clip.get_model_config(architecture) or {})


# ---------------------------------------------------------------- where models come from


def _from_folder(folder: Path, name: str) -> LoadedModel:
    if not (folder / CONFIG).is_file() and huggingface.is_folder(folder):
        return _from_huggingface(folder, name)
    if not (folder / CONFIG).is_file():
        lying = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        lies = f" There are {', '.join(lying[:8])}." if lying else ""
        raise BrokenInput(
            f"{folder} is not a model folder: it has neither {CONFIG} nor Hugging Face's "
            f"config.json with model.safetensors.{lies}"
        )
    there = [folder / file for file in (WEIGHTS, *OTHERS) if (folder / file).is_file()]
    weights = there[0] if there else folder / WEIGHTS
    return _described(f"local-dir:{folder}", name, folder / CONFIG, weights)


def _described(open_clip_name: str, name: str, config: Path, weights: Path) -> LoadedModel:
    """A model that a configuration of its own describes."""
    loaded = _create(open_clip_name, name, _read_config(config))
    _fill(loaded, weights)
    fitting.check(loaded)
    return loaded


def _read_config(path: Path) -> dict[str, Any]:
    """`model_cfg` of an open_clip_config.json, which has to have its `preprocess_cfg`, too."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model_cfg, preprocess_cfg = config["model_cfg"], config.get("preprocess_cfg") or {}
        model_cfg["vision_cfg"], model_cfg["text_cfg"], preprocess_cfg.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BrokenInput(f"{path} is damaged: not an open_clip configuration.") from None
    if missing := [key for key in ("mean", "std") if preprocess_cfg.get(key) is None]:
        raise BrokenInput(
            f"{path} does not say the {' and '.join(missing)} of pictures. Add to it, with the "
            'values that these weights were trained with: "preprocess_cfg": {"mean": [...], '
            '"std": [...], "interpolation": "bicubic", "resize_mode": "shortest"}.'
        )
    return dict(model_cfg)


def _from_huggingface(folder: Path, name: str) -> LoadedModel:
    model_cfg = huggingface.model_config(folder)
    preprocess_cfg = huggingface.preprocess_config(folder, model_cfg["vision_cfg"]["image_size"])
    tokenizer = huggingface.tokenizer(folder, model_cfg["text_cfg"]["context_length"])
    state: dict[str, Tensor] = {}
    for file in huggingface.weight_files(folder):
        state |= checkpoints.read(file)
    try:
        model = open_clip.CLIP(**copy.deepcopy(model_cfg))
    except Exception as error:
        raise BrokenInput(f"{name} cannot be loaded as a CLIP model: {error}") from error
    ours = huggingface.convert_weights(state)
    checkpoints.strictly(name, lambda: model.load_state_dict(ours, strict=False))
    open_clip.model.set_model_preprocess_cfg(model, preprocess_cfg)
    loaded = _loaded(name, model, tokenizer, model_cfg)
    fitting.check(loaded)
    return loaded


def _from_file(
    architecture: str,
    path: Path,
    name: str,
    used_with: Mapping[str, Any] | None,
    stated: conventions.Stated | None = None,
) -> LoadedModel:
    """`used_with`: the preprocessing and the activation; None: see `conventions.of_file`."""
    if not path.is_file():
        raise BrokenInput(f"No such file: {path}, which {name} names.")
    if used_with is None:
        openai = torchscript.is_openais(path)
        openai &= "openai" in open_clip.list_pretrained_tags_by_model(architecture)
        stated = stated or conventions.Stated(name)
        used_with = conventions.of_file(architecture, stated, "openai" if openai else None)
    preprocess_cfg = {key: used_with[key] for key in conventions.PREPROCESSING}
    loaded = _create(
        architecture, name, _model_cfg(architecture), preprocess_cfg, used_with["quick_gelu"]
    )
    _fill(loaded, path)
    return loaded


def _random(open_clip_name: str, name: str, model_cfg: dict[str, Any], seed: int) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(open_clip_name, name, model_cfg)


# ---------------------------------------------------------------- making and filling


def _create(
    open_clip_name: str,
    name: str,
    model_cfg: dict[str, Any],
    preprocess_cfg: Mapping[str, Any] | None = None,
    quick_gelu: bool | None = None,
) -> LoadedModel:
    """A model without its weights, as open_clip makes it; None: as its configuration says."""
    text_cfg = model_cfg["text_cfg"]
    more: dict[str, Any] = {} if quick_gelu is None else {"quick_gelu": quick_gelu}
    hub = _of_the_hub(open_clip_name, text_cfg)
    folder = open_clip_name.removeprefix("local-dir:")
    own = Path(folder) / TEXT_TOWER
    if folder != open_clip_name and own.is_dir():
        hub.pop(text_cfg.get("hf_model_name"), None)
        more["text_cfg"] = {
            **text_cfg, "hf_model_name": str(own), "hf_model_pretrained": False
        }  # fmt: skip
    random_state = torch.get_rng_state()

    def create() -> tuple[Any, Any]:
        torch.set_rng_state(random_state)  # the same weights, however often it is tried
        tokenizer = downloads.tokenizer(open_clip_name, text_cfg)
        model = open_clip.create_model(
            open_clip_name,
            load_weights=False,
            pretrained_text=False,
            force_preprocess_cfg=dict(preprocess_cfg or {}),
            **more,
        )
        return tokenizer, model

    try:
        with quiet(logging.ERROR):  # open_clip logs and warns about what is handled here
            if hub:
                tokenizer, model = downloads.cached_or_fetched(create, name, hub)
            else:
                with downloads.offline():
                    tokenizer, model = create()
    except ImportError as error:
        raise not_installed(name, error.name or "transformers", "hf") from error
    except BrokenInput:
        raise
    except Exception as error:
        raise BrokenInput(f"{name} cannot be loaded: {checkpoints.plain(error)}") from error
    config = model_cfg if quick_gelu is None else {**model_cfg, "quick_gelu": quick_gelu}
    return _loaded(name, model, tokenizer, config)


def _of_the_hub(
    open_clip_name: str, text_cfg: Mapping[str, Any]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What a text tower of Hugging Face's takes from which repository, beside the weights."""
    words: dict[str, str] = {}
    tokenizer, tower = text_cfg.get("hf_tokenizer_name"), text_cfg.get("hf_model_name")
    if tokenizer and open_clip_name.startswith("local-dir:"):
        folder = Path(open_clip_name.removeprefix("local-dir:"))
        if not any(path for form in TOKENIZERS for path in folder.glob(form)):
            raise BrokenInput(
                f"{folder} has no tokenizer: copy {downloads.TOKENIZER} of {tokenizer} on "
                "huggingface.co into it."
            )
    elif tokenizer and not Path(tokenizer).is_dir():
        words[tokenizer] = f"the tokenizer ({downloads.TOKENIZER})"
    if tower and not Path(tower).is_dir():
        words[tower] = f"{words[tower]} and config.json" if tower in words else "config.json"
    return {repository: (each, downloads.OF_TEXT) for repository, each in words.items()}


def _fill(loaded: LoadedModel, path: Path) -> None:
    arrays = path.suffix in (".npz", ".npy")  # of big_vision, which open_clip reads itself
    state = None if arrays else checkpoints.read(path)
    if state and compact.ROWS in state:
        state = compact.expanded(state, loaded.model.token_embedding.num_embeddings)  # type: ignore[union-attr, arg-type]
    checkpoints.put_into(loaded.model, path, loaded.name, state)


def _loaded(name: str, model: Any, tokenizer: Any, model_cfg: Mapping[str, Any]) -> LoadedModel:
    if any(isinstance(m, open_clip.transformer.QuickGELU) for m in model.modules()):
        model_cfg = {**model_cfg, "quick_gelu": True}
    preprocess_cfg = dict(model.visual.preprocess_cfg)
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**preprocess_cfg), is_train=False
    )
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    return LoadedModel(name, model.eval(), tokenizer, preprocess, config)
