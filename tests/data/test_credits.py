"""Whose pictures they are is said for every part of the built-in sets, and of no other part."""

import re
from pathlib import Path

import pytest

from radapter.data import credits, emoji, icons

ROOT = Path(__file__).parents[2]
PARTS = [
    *((emoji.HERE, name) for name in emoji.styles()),
    *((icons.HERE, name) for name in sorted(icons.table()["sets"])),
]


@pytest.mark.parametrize(("folder", "name"), PARTS)
def test_each_part_has_author_licence_and_text(folder, name):
    text = credits.notice(folder, {"picture_0.png": f"line/{name}/house"})
    (row,) = re.findall(rf"^- `{name}`: (.+)$", text, re.MULTILINE)
    assert "`picture_0.png`: `house` of" in text
    assert re.search(r"\*\*Changes made:\*\* from each set", text)
    licence = re.search(r"licence: ([\w.-]+)", row)[1]
    titles = re.findall("^## (.+)\n\n```text$", text, re.MULTILINE)
    if licence.startswith("CC-BY"):  # by reference
        assert "https://creativecommons.org/licenses/by/4.0/" in row
        assert titles == []
    else:
        (title,) = titles
        assert licence[:3] == title[:3] or title == "Icons8"
        assert f"({name})\n" in text.split("```text")[1]
    assert not re.search(r"\d+ icons;", text)


def test_of_several_parts_each_is_named_once():
    keys = {
        f"picture_{n}.png": f"{name}/1F600" for n, name in enumerate(("noto", "noto", "twemoji"))
    }
    text = credits.notice(emoji.HERE, keys)
    assert len(re.findall("^- `(noto|twemoji)`: ", text, re.MULTILINE)) == 2
    assert "Microsoft" not in text
