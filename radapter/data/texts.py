"""Texts that are longer than a model reads: it sees their start alone, and nothing else says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from radapter.names import to_bytes

CHUNK = 1024
MARGIN = 8
"""Tokens that a tokenizer may add to those of a text"""


def cut_texts(
    tokenizer: Callable[[list[str]], Tensor], texts: Sequence[str], length: int | None = None
) -> list[str]:
    """The texts, each once, of which a model sees the start alone.

    Args:
        tokenizer: a model's: texts -> token ids [n, at most the context length].
        length: tokens that are kept, start and end included, where that is less than the context.
    """
    context, padding = context_of(tokenizer)
    length = min(length or context, context)
    # A token stands for a byte at least, and most captions have fewer bytes than a context tokens.
    long = [text for text in dict.fromkeys(texts) if len(to_bytes(text)) + MARGIN > length]
    cut: list[str] = []
    for start in range(0, len(long), CHUNK):
        some = [text.rstrip() for text in long[start : start + CHUNK]]
        rows = tokenizer(some)
        if length < context:
            over = (rows[:, length:] != padding).any(dim=1).tolist()
            cut += [text for text, is_over in zip(some, over, strict=True) if is_over]
            continue
        if rows.shape[1] < context:
            continue
        full = [i for i, row in enumerate(rows) if row[-1] != padding]
        if full:
            # Of a text that just fits, the last letter is in the last token.
            shorter = tokenizer([some[i][:-1] for i in full])
            same = [shorter.shape[1] == context and bool((rows[i] == row).all())
                    for i, row in zip(full, shorter, strict=True)]  # fmt: skip
            cut += [some[i] for i, equal in zip(full, same, strict=True) if equal]
    return cut


def context_of(tokenizer: Callable[[list[str]], Tensor]) -> tuple[int, int]:
    """(how many tokens it gives at most, what it pads short texts with)."""
    rows = tokenizer(["a", "a " * 4096])
    return rows.shape[1], int(rows[0, -1])
