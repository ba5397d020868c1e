"""The first phase of UCDR-Adapter (Jiang et al., WACV 2025): prompts of domains and of classes
among the tokens of a picture, and a learned context in the texts of classes.

    picture    [class token, D_d, C_c, patches]         d, c: domain and class of the picture
    text       "a photo of {class} from V_1 .. V_n domain."

D [domains, length, width] and C [classes, length, width] have a row for each domain and class of
the training data, V [context, width'] is one for all; both towers stay as they are. Outside of
training nothing says what a picture is of, and the mean of all rows stands in the place of its own:
that is ours, as the published method goes on with `ucdr-adapter`, which makes prompts of the
picture. Nothing of it folds into a weight. Radapter's alpha is the weight of the prompts in
attention (see `models.prompts`), and what the context is mixed with the embedding of its `$` by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.methods.batch_rows import column
from radapter.methods.branches import Branch, holding
from radapter.models.prompts import (
    check_pictures,
    put_into_pictures,
    put_into_texts,
    table_of_tokens,
)
from radapter.models.queries import PLACE
from radapter.models.text import text_tower
from radapter.registry import Average, Count

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"domains": 2, "classes": 4, "context": 0},
    {"domains": 3, "classes": 4, "context": 0, "length": 2, "output": "first-prompt"},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({},)
"""Training never starts at the zero-shot model"""
CONTEXT_STD = 0.02


class Banks(Branch):
    """Rows of prompts for domains and for classes, as `models.prompts` has an image tower's.

    Args:
        patch: pixels of a patch, which say how large prompts are at first.
        reads_prompt: see there.
    """

    def __init__(
        self, like: Tensor, domains: int, classes: int, length: int, patch: int, reads_prompt: bool
    ) -> None:
        super().__init__(1.0, like)
        most = math.sqrt(6 / (3 * patch + like.shape[0]))
        self.domains, self.classes = (
            nn.Parameter(torch.empty(rows, length, like.shape[0]).uniform_(-most, most))
            for rows in (domains, classes)
        )
        self.reads_prompt = reads_prompt

    def tokens(self, tower: Any, patches: Tensor) -> Tensor:
        of = ((self.domains, "domains"), (self.classes, "groups"))
        return torch.cat([_own(bank, name, patches.shape[0]) for bank, name in of], dim=1)

    def class_token(self, tower: Any) -> Tensor:
        own: Tensor = tower.class_embedding
        return own

    def projection(self, tower: Any) -> Tensor:
        own: Tensor = tower.proj
        return own


def _own(bank: Tensor, name: str, number: int) -> Tensor:
    """The rows [number, length, width] of a bank [rows, length, width] for so many pictures; the
    mean of all for those of which nothing is known."""
    mean, places = bank.mean(dim=0), column(name, number)
    if places is None:
        return mean.expand(number, -1, -1)
    return torch.where((places >= 0)[:, None, None], bank[places.clamp(min=0)], mean)


class Context(Branch):
    """The vectors of a text's context, as `models.prompts` has them."""

    def __init__(self, like: Tensor, vectors: int, template: str, place: int) -> None:
        super().__init__(1.0, like)
        self.vectors = nn.Parameter(CONTEXT_STD * torch.randn(vectors, like.shape[-1]))
        self.template = template.replace(PLACE, " ".join([PLACE] * vectors))
        self.place = place


def attach(
    model: nn.Module,
    *,
    domains: Count | None = None,
    classes: Count | None = None,
    length: Count = 1,
    context: Annotated[int, Field(ge=0)] = 16,
    template: str = "a photo of {} from $ domain.",
    place: Count = 259,
    output: Literal["class-token", "first-prompt"] = "class-token",
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and give it prompts of domains and classes, and a context.

    Args:
        model: an open_clip model whose image tower is a ViT of its own code.
        domains: rows of prompts for domains. `null`: as many as the training data has, or one.
        classes: rows of prompts for classes. `null`: as many as the training data has.
        length: tokens in a row: published are 1 on DomainNet, 4 on Sketchy and TU-Berlin.
        context: vectors of the context: published are 16 on DomainNet, 8 on the others. 0: there is
            none, and texts stay as they are.
        template: what the term `class-texts` puts the name of a class into, at `{}`, with the
            context at `$`.
        place: the id of the token `$`, which is 259 in CLIP's vocabulary.
        output: what the feature is read at. `first-prompt`: at the first prompt of the domain, as
            in the released code.
        average: moving average of what is trained, which the term `triplet` compares with; off by
            default.

    Raises:
        UsageError: the image tower is of another kind, or the text tower takes no context; the
            template has not one `$` and one `{}`.
    """

    def made(like: Tensor, patch: int) -> Banks:
        rows = domains or 1, classes or 1
        return Banks(like, *rows, length, patch, output == "first-prompt")

    banks, learned = put_into(model, "ucdr-prompts", made, context, template, place)
    parts = {"visual.prompts": banks} | learned
    return Attached(model, parts, holding(parts, list(parts.values())), average)


def put_into(
    model: nn.Module,
    method: str,
    made: Callable[[Tensor, int], Banks],
    vectors: int,
    template: str,
    place: int,
) -> tuple[Any, dict[str, Context]]:
    """Prompts in the frozen model's image tower, and a context in its text tower, by its name
    there; none of 0 vectors.

    Args:
        method: named in messages.
        made: the prompts, on the CPU, from a tensor as wide as the tower and the pixels of a patch.
        vectors: of the context; see `attach` for the others.

    Raises:
        UsageError: see `attach`.
    """
    check_template(template)
    check_pictures(model, method)
    visual: Any = model.visual
    model.requires_grad_(False)
    height, width = visual.patch_size
    like = visual.class_embedding.detach()
    prompts = made(torch.empty(like.shape), height * width).to(like.device, like.dtype)
    put_into_pictures(model, prompts.train(model.training))
    if not vectors:
        return prompts, {}
    weight = table_of_tokens(model, method).weight
    context = Context(torch.empty(0, weight.shape[1]), vectors, template, place)
    put_into_texts(model, context.to(weight.device, weight.dtype).train(model.training), method)
    tower = "" if text_tower(model) is model else "text."
    return prompts, {f"{tower}token_embedding.context": context}


def check_template(template: str) -> None:
    """Raise UsageError if a template has not one place for the class and one for the context."""
    once = template.count(PLACE) == template.count("{}") == 1
    if not once or PLACE not in template.split():
        raise UsageError(
            f"method.template needs one {{}} for the class and one $ between spaces for the "
            f"context, found '{template}'."
        )
