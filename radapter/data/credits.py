"""Whose work the pictures are that come with radapter, for where they are passed on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

RULE = f"{'=' * 80}\n"
TEXT = """\
# Notice for the pictures in this folder

These pictures come with radapter. They are other people's work, under their licences. Nobody named
here endorses this model or radapter, and all of it comes without warranty.

{pictures}

**Changes made:** {changes}

In this folder they are PNG files; `pixel_values.npy` holds them as the model takes them.

{rows}

{licences}"""


def notice(folder: Path, pictures: Mapping[str, str]) -> str:
    """Author, licence and changes of some pictures of a built-in set, with the licences' texts.

    Args:
        folder: of the set, with its NOTICE.md and LICENSES.txt.
        pictures: by file name, their keys in the set, which end in `SET/NAME`.
    """
    parts = {file: key.split("/")[-2:] for file, key in pictures.items()}
    changes, credit, licences = credits(folder, {name for name, _ in parts.values()})
    return TEXT.format(
        pictures="\n".join(f"- `{f}`: `{own}` of `{name}`" for f, (name, own) in parts.items()),
        changes=changes,
        rows="\n".join(f"- `{name}`: {line}" for name, line in credit.items()),
        licences="\n".join(
            f"## {title}\n\n```text\n{text}\n```\n" for title, text in licences.items()
        ),
    )


def credits(folder: Path, sets: Collection[str]) -> tuple[str, dict[str, str], dict[str, str]]:
    """What was changed in the pictures of a built-in set; author and licence of some of its sets,
    by name; the texts of these licences with the copyright lines of those sets, by title."""
    content = (folder / "NOTICE.md").read_text(encoding="utf-8")
    _, _, rest = content.partition("**Changes made:** ")
    lines = re.findall(r"^- `([\w-]+?)(?:\.tar)?`: (.+)$", content, re.MULTILINE)
    # How many icons of a set there are says nothing about a few of them.
    credit = {name: re.sub(r" \d+ icons;", "", line) for name, line in lines}
    chosen = {name: credit[name] for name in sorted(sets)}
    licences = (folder / "LICENSES.txt").read_text(encoding="utf-8")
    return rest.partition("\n\n")[0], chosen, dict(_texts(licences, list(chosen)))


def _texts(licences: str, sets: list[str]) -> Iterator[tuple[str, str]]:
    """The licences that apply to some sets, each with the copyright lines of those alone."""
    for part in licences.split(RULE)[1:]:
        title, owners, text = part.split("\n\n", 2)
        own = []
        for line, names in re.findall(r"^(.+) \(([^()]+)\)$", owners, re.MULTILINE):
            if mine := sorted(set(sets) & set(names.split(", "))):
                own.append(f"{line} ({', '.join(mine)})")
        if own:
            yield title, "\n".join(own) + f"\n\n{text.rstrip()}"
