"""Token tables without the rows that training never saw: a fifth of the numbers, or fewer.

In a file of weights, `token_embedding.weight` then holds the other rows alone, and
`token_embedding.rows` says which they are, in rising order. Loaded, the others are zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from radapter.errors import BrokenInput

TABLE, ROWS = "token_embedding.weight", "token_embedding.rows"


def compacted(state: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The weights with only these rows (distinct token ids) of the token table."""
    kept = rows.unique().to(torch.int32)
    return {**state, TABLE: state[TABLE][kept.long()].clone(), ROWS: kept}


def expanded(state: Mapping[str, Tensor], tokens: int) -> dict[str, Tensor]:
    """The weights with a whole table of so many `tokens`; whole ones as they are.

    Raises:
        BrokenInput: the rows do not belong to such a table.
    """
    found = dict(state)
    rows = found.pop(ROWS, None)
    if rows is None:
        return found
    known = found.get(TABLE)
    if known is None or rows.dim() != 1 or len(rows) != len(known):
        raise BrokenInput(f"{ROWS} does not say which token each row of {TABLE} is.")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < tokens:
        raise BrokenInput(f"{ROWS} names tokens outside the model's {tokens:,}.")
    table = known.new_zeros(tokens, known.shape[1])
    table[rows.long()] = known
    return {**found, TABLE: table}
