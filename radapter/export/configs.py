"""A model's configuration, preprocessing and tokenizer in the forms that Hugging Face loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_clip import SimpleTokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from radapter.bundle import write_json
from radapter.errors import UsageError
from radapter.models.loaded import INTERPOLATION

START, END = "<|startoftext|>", "<|endoftext|>"
RESAMPLE = {name: number for number, name in INTERPOLATION.items()} | {"random": 3}

# What open_clip may change about a tower and Hugging Face's CLIP cannot; all must be off.
VISION_EXTRAS = ("timm_model_name", "attentional_pool", "no_ln_pre", "final_ln_after_pool")
TEXT_EXTRAS = ("hf_model_name", "hf_tokenizer_name", "embed_cls", "no_causal_mask", "proj_bias")
BOTH_EXTRAS = (
    "ls_init_value", "act_kwargs", "norm_kwargs", "block_type", "qk_norm", "scaled_cosine_attn",
    "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc",
)  # fmt: skip


def write_config(folder: Path, model_cfg: dict[str, Any], logit_scale: float) -> None:
    """Write config.json: Hugging Face's CLIP form, or open_clip's own where there is none.

    Args:
        folder: the bundle.
        model_cfg: as in open_clip_config.json.
        logit_scale: exponentiated.
    """
    config = clip_config(model_cfg) or {
        "model_type": "open_clip",
        "architectures": ["CustomTextCLIP" if model_cfg.get("custom_text") else "CLIP"],
        "projection_dim": model_cfg["embed_dim"],
        "open_clip": model_cfg,
    }
    write_json(folder / "config.json", {**config, "logit_scale": logit_scale})


def clip_config(model_cfg: dict[str, Any]) -> dict[str, Any] | None:
    """config.json of Hugging Face's CLIP, without the logit scale; None if it has no such form."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    if (
        "members" in model_cfg
        or any(vision.get(key) for key in (*VISION_EXTRAS, *BOTH_EXTRAS))
        or any(text.get(key) for key in (*TEXT_EXTRAS, *BOTH_EXTRAS))
        or not isinstance(vision.get("layers", 12), int)
        or not isinstance(vision.get("image_size", 224), int)
        or vision.get("pool_type", "tok") != "tok"
        or text.get("pool_type", "argmax") != "argmax"
        or text.get("proj_type", "linear") != "linear"
    ):
        return None
    shared = {
        "hidden_act": "quick_gelu" if model_cfg.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": model_cfg["embed_dim"],
    }

    def tower(cfg: dict[str, Any], width: int, heads: int) -> dict[str, Any]:
        return {
            "hidden_size": width,
            "intermediate_size": int(width * cfg.get("mlp_ratio", 4.0)),
            "num_attention_heads": heads,
            "num_hidden_layers": cfg.get("layers", 12),
            **shared,
        }

    width = vision.get("width", 768)
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": model_cfg["embed_dim"],
        "text_config": {
            "model_type": "clip_text_model",
            **tower(text, text.get("width", 512), text.get("heads", 8)),
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **tower(vision, width, width // vision.get("head_width", 64)),
            "image_size": vision.get("image_size", 224),
            "patch_size": vision.get("patch_size", 16),
            "num_channels": 3,
        },
    }


def write_preprocessor(folder: Path, preprocess_cfg: dict[str, Any]) -> None:
    """Write preprocessor_config.json: the form of Hugging Face's CLIPImageProcessor.

    It knows two of open_clip's resize modes, for square pictures. For others the file holds
    open_clip's own settings alone, so that no loader misreads it.
    """
    size = preprocess_cfg["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mode = preprocess_cfg.get("resize_mode") or "shortest"
    mean, std = (
        [value] * 3 if isinstance(value, float) else list(value)
        for value in (preprocess_cfg["mean"], preprocess_cfg["std"])
    )
    own = {**preprocess_cfg, "size": [height, width], "mean": mean, "std": std}
    if mode == "longest" or (mode == "shortest" and height != width):
        write_json(folder / "preprocessor_config.json", {"open_clip": own})
        return
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": height} if mode == "shortest" else
        {"height": height, "width": width},
        "resample": RESAMPLE[preprocess_cfg.get("interpolation") or "bicubic"],
        "do_center_crop": mode == "shortest",
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }  # fmt: skip
    write_json(folder / "preprocessor_config.json", config)


def write_tokenizer(folder: Path, tokenizer: Any, *, context_length: int, dynamic: bool) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
        folder: the bundle.
        tokenizer: open_clip's.
        context_length: texts are cut to it, the end token kept.
        dynamic: pad a batch to its longest text instead of to the full length.

    Raises:
        UsageError: this kind of tokenizer has no such form.
    """
    if hasattr(tokenizer, "save_pretrained"):  # open_clip's wrapper of a Hugging Face one
        tokenizer.save_pretrained(folder)
        if not (folder / "tokenizer.json").is_file():
            raise UsageError("This model's tokenizer cannot be written as a tokenizer.json.")
        return
    converted = convert_tokenizer(tokenizer)
    converted.enable_truncation(context_length)
    # Id 0, as open_clip pads; declared nowhere else, or "!" in a text would become padding.
    length = None if dynamic else context_length
    converted.enable_padding(pad_id=0, pad_token="!", length=length)
    converted.save(str(folder / "tokenizer.json"), pretty=False)
    special = {
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        # Where what follows the end token counts for nothing, padding with it is harmless.
        "pad_token": END if dynamic else "!",
    }
    write_json(folder / "special_tokens_map.json", special)
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        **special,
    }
    write_json(folder / "tokenizer_config.json", config)


def convert_tokenizer(tokenizer: Any) -> Tokenizer:
    """open_clip's byte-pair tokenizer as one of the `tokenizers` package.

    The ids are equal on ordinary text. open_clip first repairs text with ftfy and html.unescape,
    and lowers a final capital sigma to its final form; no normalizer here does.

    Raises:
        UsageError: the tokenizer cleans texts or drops tokens in a way that has no such form.
    """
    clean = getattr(getattr(tokenizer, "clean_fn", None), "__name__", None)
    reduces = getattr(tokenizer, "reduction_fn", None) is not None
    lowers = {"_clean_lower": True, "_clean_whitespace": False}
    if not isinstance(tokenizer, SimpleTokenizer) or clean not in lowers or reduces:
        raise UsageError(
            f"This model's tokenizer ({type(tokenizer).__name__}, cleaning {clean!r}) cannot be "
            "written as a tokenizer.json; models with open_clip's default tokenizer can."
        )
    names = {tokenizer.sot_token_id: START, tokenizer.eot_token_id: END}
    vocab = {names.get(number, token): number for token, number in tokenizer.encoder.items()}
    merges = list(tokenizer.bpe_ranks)
    converted = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>", unk_token=END)
    )
    steps: list[Any] = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " ")]
    converted.normalizer = normalizers.Sequence(
        [*steps, normalizers.Lowercase()] if lowers[clean] else steps
    )
    words = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    converted.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    converted.post_processor = processors.RobertaProcessing(
        (END, tokenizer.eot_token_id),
        (START, tokenizer.sot_token_id),
        trim_offsets=False,
        add_prefix_space=False,
    )
    converted.decoder = decoders.ByteLevel()
    converted.add_special_tokens([START, END])
    return converted


def text_cleaning(tokenizer: Any) -> str:
    """open_clip's name for what it does to texts before it takes them apart."""
    name: str = getattr(getattr(tokenizer, "clean_fn", None), "__name__", "_clean_whitespace")
    return name.removeprefix("_clean_")
