"""Edits by rule from captions, without a language model: a word of a closed list is replaced by
another one of the list, "two red apples" by "two green apples", with an edit that says so."""

from __future__ import annotations

import hashlib
import re

KINDS = {
    "make it {}": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black",
                   "white", "grey"),
    "with {} of them": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "a {} one": ("small", "large", "tiny", "huge", "tall", "short", "long", "round", "square"),
    "make it of {}": ("wood", "metal", "glass", "stone", "plastic", "paper", "leather"),
    "in the {}": ("morning", "evening", "night", "rain", "snow", "sun", "fog"),
    "on the {} instead": ("left", "right"),
    "a {} instead": ("man", "woman", "boy", "girl", "dog", "cat", "horse", "cow", "bird", "sheep",
                     "car", "bus", "truck", "train", "boat", "bicycle", "motorcycle"),
}  # fmt: skip
"""What an edit says of the new word, and the words that replace each other"""
WORDS = {word: (template, words) for template, words in KINDS.items() for word in words}
FORMS = {"gray": "grey", "big": "large", "little": "small", "bike": "bicycle"}
"""Other spellings and words for those of the lists"""
WORD = re.compile(r"[^\W\d_]+")


def swaps_of(caption: str) -> list[tuple[str, str]]:
    """(edit, the caption with that changed) for each word of the lists, in the caption's order.

    The new word is drawn by a hash of the caption, so it is the same each time; it is none that the
    caption has already.
    """
    text = caption.strip()
    there = {FORMS.get(m[0].lower(), m[0].lower()) for m in WORD.finditer(text)}
    found = []
    for number, match in enumerate(WORD.finditer(text)):
        word = FORMS.get(match[0].lower(), match[0].lower())
        if word not in WORDS:
            continue
        template, words = WORDS[word]
        others = [other for other in words if other not in there]
        if not others:
            continue
        drawn = hashlib.blake2b(f"{text},{number}".encode(), digest_size=8).digest()
        new = others[int.from_bytes(drawn, "little") % len(others)]
        found.append((template.format(new), f"{text[: match.start()]}{new}{text[match.end() :]}"))
    return found
