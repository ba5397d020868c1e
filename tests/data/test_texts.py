"""Texts that are cut: counted for any tokenizer, to the letter where the last one just fits."""

import open_clip
import pytest
import torch

from radapter.data.texts import context_of, cut_texts

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
WORDS = " ".join(["dog"] * 75)
"""With start and end 77 tokens"""


def test_texts_that_differ_where_they_are_cut():
    start = " ".join(["dog"] * 80)
    long = [f"{start} {number}" for number in range(8)]
    assert cut_texts(TOKENIZER, [*long, "a dog", long[0]]) == long
    assert context_of(TOKENIZER) == (77, 0)


@pytest.mark.parametrize("text", [WORDS, WORDS + "\n", WORDS[:-4] + " ...", "犬" * 24])
def test_what_just_fits_is_not_cut(text):
    assert cut_texts(TOKENIZER, [text]) == []


@pytest.mark.parametrize("text", [WORDS + " a", WORDS + ".", WORDS + "s are", "犬" * 80])
def test_one_token_too_many_is_cut(text):
    assert cut_texts(TOKENIZER, [text]) == [text]


def test_a_length_of_the_recipe():
    """start + 3 words + end"""
    texts = ["a big dog", "a big red dog", "dog"]
    assert cut_texts(TOKENIZER, texts, 5) == ["a big red dog"]
    assert cut_texts(TOKENIZER, texts, 500) == []


def test_a_tokenizer_that_pads_with_another_number_and_cuts_to_the_batch():
    def tokenizer(texts):
        rows = [[7, *(len(word) for word in text.split())][:5] for text in texts]
        length = max(map(len, rows))
        return torch.tensor([row + [1] * (length - len(row)) for row in rows])

    assert context_of(tokenizer) == (5, 1)
    fits, over = "two three four eleven", "two three four eleven twelve"
    assert cut_texts(tokenizer, [fits, over, "one"]) == [over]
