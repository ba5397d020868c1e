"""Orthogonality of the towers' projections into the common space (CaRot)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.models.text import text_tower
from radapter.objectives.terms import Context, Term

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"both": 0.0, "squared": True})
PLACES = {"image": ("proj", "head.proj", "attnpool.c_proj"), "text": ("text_projection", "proj")}
"""What the projection is called in towers of each kind"""


def term(
    context: Context,
    *,
    image: Annotated[float, Field(ge=0.0)] = 0.2,
    both: Annotated[float, Field(ge=0.0)] = 0.05,
    squared: bool = False,
) -> Term:
    """image * ||V^T V - 1|| + both * ||V T^T||, Frobenius norms, V [width, dim] being the image
    tower's projection into the common space and T the text tower's (Oh et al., NeurIPS 2024).

    Args:
        context: what is trained.
        image: what the first norm is multiplied by.
        both: what the second norm is multiplied by.
        squared: take the squares of the norms.

    Raises:
        UsageError: a tower ends in no such matrix, or the method does not train it.
    """
    model: Any = context.attached.model
    v = _projection(model.visual, PLACES["image"])
    t = _projection(text_tower(model), PLACES["text"])
    _check(context, "image", image, {"image": v})
    _check(context, "both", both, {"image": v, "text": t})
    if not image and not both:
        raise UsageError(f"{context.place}: orthogonality needs `image` or `both` above 0.")

    def penalty() -> Tensor:
        image_matrix, total = _matrix(v), torch.zeros(())
        if image:
            gram = image_matrix.T @ image_matrix
            total = image * _norm(gram - torch.eye(len(gram), device=gram.device), squared)
        if both:
            total = total + both * _norm(image_matrix @ _matrix(t).T, squared)
        return total

    return Term(penalty=penalty)


def _norm(matrix: Tensor, squared: bool) -> Tensor:
    return matrix.square().sum() if squared else torch.linalg.matrix_norm(matrix)


def _projection(tower: nn.Module, places: tuple[str, ...]) -> nn.Parameter | nn.Linear | None:
    for place in places:
        found: Any = tower
        for name in place.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.Parameter | nn.Linear):
            return found
    return None


def _matrix(projection: nn.Parameter | nn.Linear | None) -> Tensor:
    """[width, dim]"""
    assert projection is not None
    return projection.weight.T if isinstance(projection, nn.Linear) else projection


def _check(
    context: Context, key: str, factor: float, of: dict[str, nn.Parameter | nn.Linear | None]
) -> None:
    """That a factor has an effect, if there is one."""
    if not factor:
        return
    instead = f"set {context.place}.{key}=0, or leave orthogonality out"
    for tower, projection in of.items():
        if projection is None:
            raise UsageError(
                f"{context.place}.{key}: the {tower} tower of this model does not end in one "
                f"projection matrix: {instead}."
            )
    trained = {id(parameter) for parameter in context.attached.parameters()}
    if not any(id(getattr(p, "weight", p)) in trained for p in of.values()):
        raise UsageError(
            f"{context.place}.{key} could have no effect, as the projection of the "
            f"{' or '.join(of)} tower is not trained: use method.name=full, {instead}."
        )
