"""Hugging Face CLIP folders as open_clip models: configuration, weights, preprocessing, tokenizer.

open_clip has no such conversion of its own. `to_huggingface` has the names of the other direction,
`export/huggingface.py` its files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from radapter.errors import BrokenInput, UsageError
from radapter.models.loaded import INTERPOLATION

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"

# What transformers assumes where a configuration says nothing: ViT-B/32.
TEXT = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5, "eos_token_id": 49407,
}  # fmt: skip
VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip

OUTER = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "visual_projection.weight": "visual.proj",
}
TOWERS = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
}
BLOCK = {
    "self_attn.q_proj.": "attn.in_proj_",
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
TRANSPOSED = ("text_projection.weight", "visual_projection.weight")


def is_folder(folder: Path) -> bool:
    """Whether a folder has Hugging Face's form: config.json beside weights of its naming."""
    names = (WEIGHTS, INDEX, PICKLED)
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in names)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenInput(
            f"{path.parent} has no {path.name}: copy it from where the model comes from."
        ) from None
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict):
        raise BrokenInput(f"{path} is damaged: not a JSON object.")
    return content


def model_config(folder: Path) -> dict[str, Any]:
    """open_clip's `model_cfg` of a Hugging Face CLIP folder.

    Raises:
        UsageError: another kind of model, or what open_clip's CLIP cannot be.
        BrokenInput: config.json is missing or damaged.
    """
    path = folder / CONFIG
    config = _read(path)
    if (kind := config.get("model_type")) != "clip":
        raise UsageError(
            f"{folder} holds a Hugging Face model of type {kind!r}; only 'clip' is supported."
        )
    try:
        # As transformers does: an old file's `_dict` section goes before the other.
        text, vision = (
            {**defaults, **(config.get(key) or {}), **(config.get(f"{key}_dict") or {})}
            for defaults, key in ((TEXT, "text_config"), (VISION, "vision_config"))
        )
        embed_dim = int(config.get("projection_dim", 512))
        return _converted(path, text, vision, embed_dim)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BrokenInput(f"{path} is damaged: {error}") from None


def _converted(
    path: Path, text: dict[str, Any], vision: dict[str, Any], embed_dim: int
) -> dict[str, Any]:
    activation = text["hidden_act"]
    width, heads = int(vision["hidden_size"]), int(vision["num_attention_heads"])
    problems = {
        f"hidden_act {activation!r}": activation not in ("quick_gelu", "gelu"),
        "a hidden_act for each tower": activation != vision["hidden_act"],
        f"num_channels {vision['num_channels']}": vision["num_channels"] != 3,
        f"{heads} heads in a width of {width}": width % heads,
        # 2 is a slip of old configurations; transformers reads at the highest id for it, as
        # open_clip does.
        f"eos_token_id {text['eos_token_id']}": text["eos_token_id"] not in (2, 49407),
    }
    if wrong := [what for what, is_wrong in problems.items() if is_wrong]:
        raise UsageError(f"{path}: open_clip's CLIP cannot have {', '.join(wrong)}.")

    def tower(cfg: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "width": int(cfg["hidden_size"]),
            "layers": int(cfg["num_hidden_layers"]),
            "mlp_ratio": _ratio(int(cfg["intermediate_size"]), int(cfg["hidden_size"])),
        }
        if cfg["layer_norm_eps"] != 1e-5:
            found["norm_kwargs"] = {"eps": float(cfg["layer_norm_eps"])}
        return found

    return {
        "embed_dim": embed_dim,
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            **tower(vision),
            "head_width": width // heads,
            "image_size": int(vision["image_size"]),
            "patch_size": int(vision["patch_size"]),
        },
        "text_cfg": {
            **tower(text),
            "heads": int(text["num_attention_heads"]),
            "context_length": int(text["max_position_embeddings"]),
            "vocab_size": int(text["vocab_size"]),
        },
    }


def _ratio(hidden: int, width: int) -> float:
    """The ratio of which open_clip's `int(width * ratio)` is exactly `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def weight_files(folder: Path) -> list[Path]:
    """The file or files that hold a folder's weights, safetensors before others."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return [folder / PICKLED]
    names = _read(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise BrokenInput(f"{folder / INDEX} is damaged: no weight_map.")
    files = sorted(set(names.values()))
    if outside := [name for name in files if Path(name).name != name]:
        raise BrokenInput(f"{folder / INDEX} names a file outside its folder: {outside[0]}.")
    return [folder / name for name in files]


def convert_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's CLIP state dict under open_clip's names; unknown tensors keep theirs.

    Queries, keys and values become one matrix; projections are transposed.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if name.endswith(".position_ids"):  # a buffer of old versions: 0, 1, 2 ...
            continue
        if name.endswith((".k_proj.weight", ".k_proj.bias", ".v_proj.weight", ".v_proj.bias")):
            continue  # with the queries
        if ".q_proj." in name:
            parts = [theirs.get(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            present = [part for part in parts if part is not None]
            tensor = torch.cat(present)
        elif name in TRANSPOSED:
            tensor = tensor.T.contiguous()
        ours[_renamed(name, OUTER, TOWERS, BLOCK) or name] = tensor
    return ours


def _renamed(
    name: str, outer: dict[str, str], towers: dict[str, str], block: dict[str, str]
) -> str | None:
    """A tensor's other name, by the three tables in one direction; None if they have none."""
    for old, new in towers.items():
        if name.startswith(old):
            number, _, inside = name.removeprefix(old).partition(".")
            for part, other in block.items():
                if inside.startswith(part):
                    return f"{new}{number}.{inside.replace(part, other)}"
    for old, new in outer.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return name.replace(old, new)
    return None


def to_huggingface(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `convert_weights`: a state dict of open_clip's under Hugging Face's names.

    Args:
        ours: of `CLIP`, or of `CustomTextCLIP` whose text tower is such a one.

    Raises:
        UsageError: a tensor that Hugging Face's CLIP has no place for.
    """
    backwards = [{b: a for a, b in table.items()} for table in (OUTER, TOWERS, BLOCK)]
    theirs: dict[str, Tensor] = {}
    for full, tensor in ours.items():
        name = full.removeprefix("text.")  # where CustomTextCLIP has its text tower
        new = _renamed(name, *backwards)
        if new is None:
            raise UsageError(
                f"transformers' CLIPModel has no place for the tensor {full} of this model."
            )
        if ".q_proj." in new:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                theirs[new.replace(".q_proj.", f".{letter}_proj.")] = part.clone()
        else:
            theirs[new] = (tensor.T if new in TRANSPOSED else tensor).contiguous()
    return theirs


def preprocess_config(folder: Path, image_size: int) -> dict[str, Any]:
    """open_clip's `preprocess_cfg` from preprocessor_config.json (or processor_config.json).

    Args:
        image_size: of the model; pictures must come out in it.

    Raises:
        UsageError: what open_clip's preprocessing cannot do.
        BrokenInput: the file is missing or damaged.
    """
    path, nested = folder / "preprocessor_config.json", folder / "processor_config.json"
    if not path.is_file() and nested.is_file():
        path, config = nested, _read(nested).get("image_processor") or {}
    else:
        config = _read(path)
    try:
        size = config.get("size", {"shortest_edge": 224})
        size = {"shortest_edge": size} if isinstance(size, int) else size
        crops = config.get("do_center_crop", True)
        crop = config.get("crop_size", 224)
        crop = [crop, crop] if isinstance(crop, int) else [crop["height"], crop["width"]]
        edge = size.get("shortest_edge")
        resized = [edge, edge] if edge else [size["height"], size["width"]]
        mean, std = ([float(x) for x in config[key]] for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError("image_mean and image_std must have three values")
        resample = config.get("resample", 3)
        problems = {
            f"resizing to {resized} for a model of {image_size}": resized != [image_size] * 2,
            f"a crop of {crop}": crops and crop != resized,
            "a size by the shortest edge without a crop": edge and not crops,
            f"resample {resample}": resample not in INTERPOLATION,
            "no resizing": not config.get("do_resize", True),
            "no normalization": not config.get("do_normalize", True),
            "values other than from 0 to 1": not config.get("do_rescale", True)
            or abs(255 * config.get("rescale_factor", 1 / 255) - 1) > 1e-6,
        }
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BrokenInput(f"{path} is damaged: {error!r}") from None
    if wrong := [what for what, is_wrong in problems.items() if is_wrong]:
        raise UsageError(f"{path}: open_clip's preprocessing cannot do {', '.join(wrong)}.")
    return {
        "size": (image_size, image_size),
        "mode": "RGB",
        "mean": tuple(mean),
        "std": tuple(std),
        "interpolation": INTERPOLATION[resample],
        "resize_mode": "shortest" if edge else "squash",
        "fill_color": 0,
    }


def tokenizer(folder: Path, context_length: int) -> SimpleTokenizer:
    """open_clip's own tokenizer, once the folder's vocabulary is known to be the same.

    Raises:
        UsageError: another vocabulary, other merges, or tokens added to it.
        BrokenInput: the files are missing or damaged.
    """
    _check_added_tokens(folder)
    ours = SimpleTokenizer(context_length=context_length)
    names = {ours.sot_token_id: "<|startoftext|>", ours.eot_token_id: "<|endoftext|>"}
    expected = {names.get(number, token): number for token, number in ours.encoder.items()}
    path = folder / "tokenizer.json"
    lowers = True
    try:
        if path.is_file():
            content = _read(path)
            vocab, merges = content["model"]["vocab"], content["model"]["merges"]
            # Newer files write a merge as a pair, older ones as a text.
            pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]
            lowers = '"Lowercase"' in json.dumps(content.get("normalizer"))
        else:
            path = folder / "vocab.json"
            vocab = _read(path)
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            pairs = [tuple(line.split()) for line in lines if line and line[:9] != "#version:"]
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise BrokenInput(f"The tokenizer of {folder} is missing or damaged: {error!r}") from None
    if vocab != expected or pairs != list(ours.bpe_ranks) or not lowers:
        raise UsageError(
            f"{path} is not CLIP's own vocabulary with lower-cased texts; no other is supported."
        )
    return ours


def _check_added_tokens(folder: Path) -> None:
    """Texts with them would be cut otherwise than the model has learned, without a word."""
    added: set[str] = set()
    try:
        for file, key in (
            ("tokenizer.json", "added_tokens"),
            ("added_tokens.json", None),
            ("tokenizer_config.json", "added_tokens_decoder"),
            ("special_tokens_map.json", "additional_special_tokens"),
        ):
            if not (folder / file).is_file():
                continue
            found = _read(folder / file)
            tokens = found.get(key) or [] if key else list(found)
            tokens = list(tokens.values()) if isinstance(tokens, dict) else tokens
            added |= {token["content"] if isinstance(token, dict) else token for token in tokens}
    except (KeyError, TypeError) as error:
        raise BrokenInput(f"The tokenizer of {folder} is damaged: {error!r}") from None
    # "!" is id 0, with which open_clip pads; transformers lists it where it pads so, too.
    if others := sorted(added - {"<|startoftext|>", "<|endoftext|>", "!"}):
        raise UsageError(
            f"{folder}: tokens were added to the vocabulary of its tokenizer: "
            f"{', '.join(others[:5])}. Only CLIP's own is supported, which reads them otherwise."
        )
