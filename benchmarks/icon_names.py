"""What an icon's name says: the words of what it shows, and the kind of drawing."""

from __future__ import annotations

import re

KINDS = ("line", "solid", "two-tone", "colour", "pixel")

# Words of a style at the end (or, for sets of Google and VMware, at the start) of a name.
SOLID = {"fill", "filled", "solid"}
TWO_TONE = {"duotone", "duo", "twotone"}
LINE = {"outline", "outlined", "line", "linear", "stroke", "regular", "light", "thin"}
OTHER = {"sharp", "rounded", "round", "baseline", "bold", "color", "colour", "micro", "mini"}
SIZES = {"10", "11", "12", "14", "15", "16", "20", "24", "26", "28", "32", "48", "64", "96", "24px"}
NUMBERS = {"one", "two", "three", "alt", "alternate", "variant", "s", "o", "f", "r"}
# Sets whose last words are sizes, and sets where a bare name is solid.
SIZED = {"fluent", "fluent-color", "fluent-mdl2", "garden", "octicon", "osmic", "maki"}
SIZED |= {"qlementine-icons", "healthicons"}
SOLID_SETS = {
    "bxs", "uis", "icon-park-solid", "heroicons-solid", "zondicons", "raphael", "foundation",
    "maki", "temaki", "osmic", "pinhead", "healthicons", "topcoat", "medical-icon", "oi",
}  # fmt: skip
LINE_SETS = {
    "feather", "lucide", "lucide-lab", "hugeicons", "uit", "icon-park-outline",
    "heroicons-outline", "meteor-icons", "bytesize", "simple-line-icons", "vadivam",
    "system-uicons", "charm", "humbleicons", "quill", "codex",
}  # fmt: skip
TWO_TONE_SETS = {"duo-icons", "uim", "icon-park-twotone"}
# Ends that make another picture of it (a badge, a marker, white on black): not used.
MARKED = {"alerted", "badged", "negative"}
ONLY_MARKED_IN = {"clarity", "healthicons"}
PREFIXES = {"ic": {"baseline", "outline", "round", "sharp", "twotone"}, "ion": {"ios", "md"}}
PREFIXES["bx"] = {"bxs", "bxl"}


def read_name(set_name: str, icon: str) -> tuple[str, str | None] | None:
    """(words of what it shows, the kind that the name or its set states, or None).

    None: it is a brand, or a marked copy of another icon.
    """
    words = [w for w in icon.lower().split("-") if w]
    kind = None
    if set_name in ONLY_MARKED_IN and words[-1] in MARKED:
        return None
    if words[0] in PREFIXES.get(set_name, ()):
        kind = {"bxs": "solid", "twotone": "two-tone", "outline": "line"}.get(words[0])
        if words[0] == "bxl":
            return None
        words = words[1:]
    if BRAND_WORDS & set(words):
        return None
    stated = ends(words, set_name)
    kind = stated or kind
    if kind is None:
        for name, sets in (("solid", SOLID_SETS), ("line", LINE_SETS), ("two-tone", TWO_TONE_SETS)):
            if set_name in sets:
                kind = name
    if not words:
        return None
    return " ".join(words), kind


BRAND_WORDS = {"brand", "brands", "logo", "logos", "social"}


def ends(words: list[str], set_name: str) -> str | None:
    """Takes the words of style, size and number from the end of a name; the kind they state."""
    kind = None
    while len(words) > 1:
        last = words[-1]
        if last == "tone" and words[-2] == "two":
            kind = "two-tone"
            words.pop()
        elif last in SOLID or (last == "f" and set_name == "jam"):
            kind = kind or "solid"
        elif last in TWO_TONE:
            kind = "two-tone"
        elif last in LINE:
            kind = kind or "line"
        elif (
            last in OTHER
            or (last in SIZES and set_name in SIZED)
            or last in NUMBERS
            or re.fullmatch(r"\d{1,2}", last)
        ):
            pass
        elif found := re.fullmatch(r"([a-z]{3,})(\d{1,2})", last):
            words[-1] = found[1]
            continue
        else:
            break
        words.pop()
    if len(words) == 1 and (found := re.fullmatch(r"([a-z]{3,})(\d{1,2})", words[0])):
        words[0] = found[1]
    if words[0] in SOLID | TWO_TONE and len(words) > 1:
        words.pop(0)
    if set_name == "icon-park" and len(words) > 1 and words[0] == "a":
        words.pop(0)
    return kind
