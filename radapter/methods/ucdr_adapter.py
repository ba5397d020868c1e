"""The second phase of UCDR-Adapter (Jiang et al., WACV 2025): prompts for a picture of any domain
and class are made of those that `ucdr-prompts` has learned, by attention from the picture.

    q    the picture's class token behind the zero-shot tower
    K_j  = A P_j + a,    P_j a prompt of the bank;    w = softmax_j(K_j . (B q + b) / temperature)
    u    = sum_j w_j K_j,                             p = (u + LN(C u + c)) / divisor

for the bank of domains and for that of classes, with the same A, B, C. In training the picture's
own domain, or class, is masked, so that it is as one of an unseen domain and class. The feature is
that of the tower with both p among its tokens. A, B, C, the norm are trained, and copies of
the tower's class token and last projection, which the second pass has; prompts and context stay as
the first phase left them. Both passes through the tower are one graph, of twice the time. Alpha is
as in `ucdr-prompts`, and mixes class token and projection with the tower's own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from radapter.methods.attached import Attached, Values
from radapter.methods.batch_rows import column
from radapter.methods.branches import holding, named_parameters
from radapter.methods.ucdr_prompts import Banks, put_into
from radapter.registry import Average, Count, Positive

FOLLOWS = "ucdr-prompts"
"""The method whose run training starts from"""
COST = "; each picture goes through the image tower twice"
"""What model cards say behind what they say of adapters"""
EXAMPLES: tuple[dict[str, Any], ...] = (
    {"domains": 2, "classes": 4, "context": 0},
    {"domains": 3, "classes": 4, "context": 0, "length": 2, "mask": "zero", "divisor": 2.0},
    {"domains": 1, "classes": 4, "context": 0, "query": "first-patch", "output": "first-prompt"},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({},)
"""Training never starts at the zero-shot model"""


class Generator(Banks):
    """Prompts of a picture from the banks: see above.

    Args:
        tower: the ViT.
        mask, query: see `attach`.
    """

    def __init__(
        self, *banks: Any, tower: Any, temperature: float, divisor: float, mask: str, query: str
    ) -> None:
        super().__init__(*banks)
        self.requires_grad_(False)
        width = self.domains.shape[-1]
        self.of_prompt, self.of_picture, self.out = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.class_embedding, self.proj = (
            nn.Parameter(of.detach().cpu().clone()) for of in (tower.class_embedding, tower.proj)
        )
        self.temperature, self.divisor = temperature, divisor
        self.mask, self.query = mask, query

    def tokens(self, tower: Any, patches: Tensor) -> Tensor:
        asked = self.of_picture(self.seen(tower, patches))
        made = [
            self.made(asked, bank, column(name, patches.shape[0]))
            for bank, name in ((self.domains, "domains"), (self.classes, "groups"))
        ]
        return torch.stack(made, dim=1)

    def seen(self, tower: Any, patches: Tensor) -> Tensor:
        """What the tower makes of the picture without prompts, q [n, width]."""
        x = patches
        if self.query == "class-token":
            first = (tower.class_embedding + tower.positional_embedding[0]).to(x.dtype)
            x = torch.cat([first.expand(x.shape[0], 1, -1), x], dim=1)
        x = tower.transformer(tower.ln_pre(x))
        q: Tensor = tower.ln_post(x[:, 0])
        return q

    def made(self, asked: Tensor, bank: Tensor, own: Tensor | None) -> Tensor:
        """The prompt p of each picture, [n, width].

        Args:
            asked: B q + b, [n, width].
            bank: [rows, length, width].
            own: the row that each picture has in it, -1 for none, [n]; None: not known.
        """
        keys = self.of_prompt(bank.flatten(0, 1))
        scores = asked @ keys.T / self.temperature
        if own is not None and self.mask != "none":
            numbers = torch.arange(len(bank), device=own.device).repeat_interleave(bank.shape[1])
            masked = own[:, None] == numbers
            if self.mask == "zero":  # what A makes of 0 is read in its place
                zero = self.of_prompt.bias
                scores = torch.where(masked, (asked @ zero / self.temperature)[:, None], scores)
                weights = scores.softmax(dim=1)
                blank = (weights * masked).sum(dim=1, keepdim=True)
                return self.finished((weights * ~masked) @ keys + blank * zero)
            if len(bank) > 1:  # else nothing were left
                scores = scores.masked_fill(masked, -torch.inf)
        return self.finished(scores.softmax(dim=1) @ keys)

    def finished(self, u: Tensor) -> Tensor:
        """p of u, [n, width]."""
        p: Tensor = (u + self.norm(self.out(u))) / self.divisor
        return p

    def class_token(self, tower: Any) -> Tensor:
        return torch.lerp(tower.class_embedding, self.class_embedding, self.scale)

    def projection(self, tower: Any) -> Tensor:
        return torch.lerp(tower.proj, self.proj, self.scale)


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
    temperature: Positive = 0.75,
    divisor: Positive = 33.0,
    mask: Literal["attention", "zero", "none"] = "attention",
    query: Literal["class-token", "first-patch"] = "class-token",
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and let it make prompts for each picture.

    Args:
        model: an open_clip model whose image tower is a ViT of its own code.
        domains: rows of prompts for domains, as in the run that training starts from. `null`: as
            many as the training data has, or one.
        classes: rows of prompts for classes, as there. `null`: as many as the training data has.
        length: tokens in a row, as there.
        context: vectors of the context, as there.
        template: what the term `class-texts` puts the name of a class into, as there.
        place: the id of the token `$`, as there.
        output: what the feature is read at. `first-prompt`: at the prompt that is made of the
            domains', as in the released code.
        temperature: what scores are divided by before the softmax.
        divisor: what prompts are divided by.
        mask: how the picture's own domain and class are masked in training. `attention`: they get
            no weight, but for a bank of one row. `zero`: a prompt of zeros is read in their place,
            as the released code means to. `none`: not at all, as it does.
        query: what the picture asks with. `first-patch`: its first patch, of a pass without a class
            token, as in the released code.
        average: moving average of what is trained, what is kept after training; off by default.

    Raises:
        UsageError: the image tower is of another kind, or the text tower takes no context; the
            template has not one `$` and one `{}`.
    """

    def made(like: Tensor, patch: int) -> Generator:
        rows = domains or 1, classes or 1
        return Generator(
            like, *rows, length, patch, output == "first-prompt", tower=model.visual,
            temperature=temperature, divisor=divisor, mask=mask, query=query,
        )  # fmt: skip

    prompts, learned = put_into(model, "ucdr-adapter", made, context, template, place)
    for of in learned.values():
        of.requires_grad_(False)
    parts = {"visual.prompts": prompts} | learned
    whole = named_parameters(parts)
    trained = {name: p for name, p in whole.items() if p.requires_grad}

    def values() -> Values:
        return whole

    return Attached(model, trained, holding(parts, list(parts.values())), average, values=values)
