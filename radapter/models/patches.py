"""Features of the patches of a picture: the values of the last block, as MaskCLIP takes them.

Attention mixes what lies apart, so the last block's is left out: each token's value goes through
the output projection alone, then, as the class token's output would, through the last layer norm
and the projection to the joint space (Zhou, Loy and Dai, 2022, without their key smoothing and
without training).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.models.joint import behind


def has_patches(model: nn.Module) -> bool:
    """Whether a model is one of which patch features are known: a ViT of open_clip's own code whose
    picture feature is one token's, without prompts, and which does not look at several frames."""
    tower: Any = getattr(model, "visual", None)
    return (
        isinstance(tower, VisionTransformer)
        and not hasattr(model, "clip")
        and type(tower).forward is VisionTransformer.forward
        and tower.attn_pool is None
        and tower.proj is not None
        and isinstance(tower.transformer.resblocks[-1].attn, nn.MultiheadAttention)
        and tower.transformer.resblocks[-1].attn.in_proj_weight is not None
    )


def patch_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """Pictures [n, 3, height, width] -> [n, rows, columns, dim], not normalised.

    Raises:
        UsageError: the image tower is of another kind, or of clips.
    """
    if not has_patches(model):
        kind = f"image tower is a {type(getattr(model, 'visual', model)).__name__}"
        kind = "model is one of clips" if hasattr(model, "clip") else kind
        raise UsageError(
            f"Patch features need a ViT of open_clip's own code, and this {kind}: score it with "
            "`dense: {by: windows}` in the suite."
        )
    tower: Any = model.visual
    *blocks, last = tower.transformer.resblocks
    tokens = tower._embeds(pixels)
    first = tower.transformer.batch_first
    tokens = tokens if first else tokens.transpose(0, 1)
    for block in blocks:
        tokens = block(tokens)
    width = tokens.shape[-1]
    attention = last.attn
    bias = attention.in_proj_bias
    values = F.linear(
        last.ln_1(tokens),
        attention.in_proj_weight[2 * width :],
        None if bias is None else bias[2 * width :],
    )
    values = last.ls_1(attention.out_proj(values))
    values = values if first else values.transpose(0, 1)
    features = tower.ln_post(values[:, 1:]) @ tower.proj
    return behind(model, "image", features).unflatten(1, tower.grid_size)
