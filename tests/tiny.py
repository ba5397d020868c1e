"""Tiny models, pictures and recipes that tests are made of."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from pydantic import BaseModel
from rich.console import Console

from radapter import models, registry
from radapter import recipe as recipes

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
COCA = {
    "custom": True,
    "vision": VISION | {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2,
                        "output_tokens": True},
    "text": {"context_length": 32, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 32, "width": 16, "heads": 2, "layers": 2},
}  # fmt: skip
"""What `build` makes a CoCa of, with a text decoder; its image tower is the wider one"""
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
CLASSES = {"red_square": (220, 30, 30), "blue_circle": (30, 30, 220), "green_cross": (30, 180, 30)}


def build(
    *,
    custom: bool = False,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    seed: int = 0,
    **more: Any,
) -> models.LoadedModel:
    """A tiny model whose biases and norms are not at their initial 0 and 1."""
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": VISION if vision is None else vision,
        "text_cfg": {**TEXT, **(text or {})},
        **more,
    }
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    kind = open_clip.CoCa if "multimodal_cfg" in more else kind
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(**copy.deepcopy(model_cfg))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() < 3 and "embedding" not in name and "logit" not in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    cfg = open_clip.transform.PreprocessCfg(size=32, mean=tuple(MEAN), std=tuple(STD))
    open_clip.model.set_model_preprocess_cfg(model, dict(cfg.__dict__))
    return models.LoadedModel(
        "tiny",
        model.eval(),
        open_clip.SimpleTokenizer(context_length=model_cfg["text_cfg"]["context_length"]),
        open_clip.transform.image_transform_v2(cfg, is_train=False),
        {
            "model_cfg": {**model_cfg, **({"custom_text": True} if custom else {})},
            "preprocess_cfg": dict(cfg.__dict__),
        },
    )


def write(folder: Path, **options: Any) -> Path:
    """A folder in open_clip's format with a tiny model in it."""
    loaded = build(**options)
    folder.mkdir(parents=True)
    models.save(folder, loaded, loaded.model.state_dict())
    return folder


def shared_vocabulary() -> Callable[..., None]:
    """An `__init__` for open_clip's SimpleTokenizer. It unpacks its vocabulary for every tokenizer,
    which is most of a tiny model's time: those without settings of their own share one here."""
    unpack, first = open_clip.SimpleTokenizer.__init__, open_clip.SimpleTokenizer()

    def share(self: Any, *settings: Any, context_length: int = 77, **more: Any) -> None:
        if settings or more:
            unpack(self, *settings, context_length=context_length, **more)
        else:
            own = {"cache": dict(first.cache), "context_length": context_length}
            self.__dict__ |= first.__dict__ | own

    return share


def draw_shapes(root: Path, each: int = 8) -> Path:
    """An image folder: `each` pictures of every class, all different."""
    for number, (name, colour) in enumerate(CLASSES.items()):
        (root / name).mkdir(parents=True)
        for i in range(each):
            picture = Image.new("RGB", (40, 36), (250 - 9 * i, 250, 200 + 5 * i))
            pen, box = ImageDraw.Draw(picture), (4 + i % 4, 3 + i % 3, 24 + i, 28)
            if number == 0:
                pen.rectangle(box, fill=colour)
            elif number == 1:
                pen.ellipse(box, fill=colour)
            else:
                pen.line(box, fill=colour, width=5)
            picture.save(root / name / f"{i:02d}.png")
    return root


def recipe(model: Path, root: Path, *overrides: str) -> recipes.Recipe:
    """Nine steps of eight pairs on drawn shapes."""
    return recipes.parse(text(model, root), "tiny.yaml", overrides)


OF_QUERIES = {
    "inversion": ("lincir", "entropy-contrast"),
    "mota": ("entropy-contrast",),
}
"""Methods that train what makes queries of pictures and texts, each with its terms; they are tested
in tests/methods/test_of_queries.py"""
OF_PAIRS = ("image-text-matching",)
"""Terms of models that read a picture and a text together (`COCA`)"""
TRAINED = [name for name in registry.METHODS if name not in ("frozen", *OF_QUERIES)]
"""Methods that train something of the towers; tests/heads/ has `frozen`"""


def methods(*, first: bool = False, alone: bool = False) -> list[Any]:
    """(name, settings) of every method of TRAINED with each of its examples, as parameters.

    Args:
        first: with the first one alone.
        alone: without methods that go on from a run of another.
    """
    return [
        pytest.param(name, settings, id=f"{name}-{number}")
        for name in TRAINED
        if not (alone and follows(name))
        for number, settings in enumerate(registry.load(registry.METHODS, name).EXAMPLES)
        if not (first and number)
    ]


def follows(name: str) -> bool:
    """Whether a method goes on from a run of another."""
    return hasattr(registry.load(registry.METHODS, name), "FOLLOWS")


def of_towers(name: str) -> bool:
    """Whether a method has a setting that says which towers it trains."""
    return "towers" in registry.schema(name, registry.METHODS[name], "attach").model_fields


def starts_elsewhere(name: str, settings: dict[str, Any]) -> bool:
    """Whether training does not start at the zero-shot model, as a method says of itself."""
    parts = getattr(registry.load(registry.METHODS, name), "ELSEWHERE", ())
    return any(part.items() <= settings.items() for part in parts)


def method(name: str, settings: dict[str, Any]) -> str:
    """A recipe's method section in one line."""
    sections = {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in settings.items()}
    return json.dumps({"name": name, **sections})


def text(model: Path, root: Path) -> str:
    return f"""\
name: tiny
model: {model}
method:
  name: r-adapter
  average: {{momentum: 0.9}}
data:
  source: folder
  root: {root}
  templates: ["a photo of a {{}}.", "a {{}}"]
objective: {{smoothing: 0.02, margin: 0.05}}
optimisation: {{lr: 1e-2, batch_size: 8, epochs: 3, warmup_steps: 2}}
device: cpu
seed: 3
"""


def features(model: Any, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Image and text features of one batch under each other, [2 * batch, dim]."""
    return torch.cat([model.encode_image(images), models.encode_text(model, tokens)])


def printed(parts: Any, width: int = 80) -> list[str]:
    """The lines that a terminal shows, none of them cut."""
    console = Console(width=width)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def batch(loaded: models.LoadedModel, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pictures and some texts of different lengths."""
    generator = torch.Generator().manual_seed(7)
    texts = ["a cat", "two green dogs on a very red sofa", "", "sun", "a photo of the sea"]
    return torch.randn(size, 3, 32, 32, generator=generator), loaded.tokenizer(texts[:size])


def clips_of(*counts: int, seed: int = 0) -> torch.Tensor:
    """Noise [clips, frames, 3, 32, 32]; a clip of fewer frames than the longest lacks the last
    ones."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randn(len(counts), max(counts), 3, 32, 32, generator=generator)
    for clip, count in zip(clips, counts, strict=True):
        clip[count:] = torch.nan
    return clips
