"""Every architecture of open_clip in small: the same code, few layers, narrow, without a network.

Only sizes are changed. What is on a hub alone is made here: the configuration of a Hugging Face
text tower, and a tokenizer of a few words in place of the real one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from timm.models.vitamin import VitCfg, VitConvCfg
from torch import nn

from radapter import models

WIDTH = 32
WORDS = ["a", "photo", "of", "the", "cat", "two", "green", "dogs", "on", "very", "red", "sofa"]
TEXTS = ["a photo of the cat", "two green dogs on a very red sofa", "the sofa"]

_PLAIN = {"depth": 2, "embed_dim": WIDTH, "num_heads": 2}
TIMM: dict[str, dict[str, Any]] = {
    r"vit_pe": {**_PLAIN, "attn_pool_num_heads": 2},
    r"vit_base_mci": {"depth": 2, "mlp_ratio": 0.25},  # as wide as its stem
    r"vit_|eva": _PLAIN,
    r"vitamin": {
        **_PLAIN,
        "embed_cfg": VitCfg(
            embed_dim=(8, 16, WIDTH),
            depths=(1, 1, 1),
            stem_width=8,
            conv_cfg=VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
            head_type="1d",
        ),
    },
    r"fastvit_mci[34]": {"layers": (1,) * 5, "embed_dims": (8, 8, 8, 32, 32)},
    r"fastvit": {"layers": (1,) * 4, "embed_dims": (8, 8, 8, 32)},
    r"convnext": {"depths": (1,) * 4, "dims": (8, 8, 8, WIDTH)},
    r"swin": {"depths": (1,) * 4, "embed_dim": 8, "num_heads": (1, 1, 2, 2)},
}
"""Sizes of timm's models, by how their names start; the first that fits"""


class Small:
    """`load(name)` gives an architecture in small, as `radapter.models.load("NAME:random")`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        self.folder, self.patch = folder, patch

    def load(self, name: str) -> models.LoadedModel:
        config = self._config(name)
        with self.patch.context() as patch:
            patch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
            patch.setattr(timm, "create_model", functools.partial(_small_timm, timm.create_model))
            loaded = models.load(f"{name}:random")
        _leave_the_initial_values(loaded.model)
        return loaded

    def _config(self, name: str) -> dict[str, Any]:
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        config["embed_dim"] = WIDTH
        if isinstance(vision.get("layers"), list):
            vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
        elif "timm_model_name" not in vision:
            size = 2 * vision["patch_size"]
            vision |= {"layers": 2, "width": WIDTH, "head_width": 16, "image_size": size}
            vision |= {"attn_pooler_heads": 2} if vision.get("attentional_pool") else {}
        if "hf_model_name" in text:
            text["hf_model_name"] = str(self._text_config(text["hf_model_name"]))
        else:
            text |= {"layers": 2, "width": WIDTH, "heads": 2}
        if "hf_tokenizer_name" in text:
            text |= {"hf_tokenizer_name": str(self._tokenizer()), "vocab_size": 64}
        if "multimodal_cfg" in config:
            config["multimodal_cfg"] |= {"layers": 1, "width": WIDTH, "heads": 2}
        return config

    def _text_config(self, name: str) -> Path:
        """The folder of a Hugging Face configuration that is like a named one's, but small."""
        from transformers import M2M100Config, MT5Config, RobertaConfig, XLMRobertaConfig

        bert = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 64, "max_position_embeddings": 514}  # fmt: skip
        mt5 = {"d_model": WIDTH, "num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 64}
        m2m = {"d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64,
               "encoder_attention_heads": 2, "decoder_attention_heads": 2,
               "encoder_layerdrop": 0.0}  # fmt: skip
        kind, sizes = next(
            found
            for part, found in {
                "xlm-roberta": (XLMRobertaConfig, bert),
                "roberta": (RobertaConfig, bert),
                "mt5": (MT5Config, {**mt5, "feed_forward_proj": "gated-gelu"}),
                "nllb": (M2M100Config, m2m),
            }.items()
            if part in name
        )
        folder = self.folder / kind.__name__
        kind(**sizes, vocab_size=64, pad_token_id=1).save_pretrained(folder)
        return folder

    def _tokenizer(self) -> Path:
        """The folder of a tokenizer of a few words."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        folder = self.folder / "tokenizer"
        if not folder.exists():
            ids = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
            words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
            words.pre_tokenizer = pre_tokenizers.Whitespace()
            words.post_processor = processors.TemplateProcessing(
                single="$A </s>", special_tokens=[("</s>", 2)]
            )
            PreTrainedTokenizerFast(
                tokenizer_object=words,
                pad_token="<pad>",
                unk_token="<unk>",
                eos_token="</s>",
                sep_token="</s>",
            ).save_pretrained(folder)
        return folder


def _small_timm(create: Callable[..., nn.Module], name: str, **settings: Any) -> nn.Module:
    sizes = next(sizes for start, sizes in TIMM.items() if re.match(start, name))
    return create(name, **settings, **sizes)


def _leave_the_initial_values(model: nn.Module) -> None:
    """So that every part counts: at first many biases, norms and layer scales are 0, 1 or nearly 0,
    and weights are of a size for wide layers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and not name.startswith("logit_"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() == 2 and "embedding" not in name:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
