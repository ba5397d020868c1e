"""The list of icons that the built-in model is pre-trained on, and what is kept out of it.

Usage: ``python benchmarks/icon_pretraining_list.py --cache DIR --out FILE``

Needs what `icon_index.py` needs. A group of the list is one name of one designer in one kind, with
its variants (weights, sizes, numbers); pre-training takes one of them in each epoch. Kept out are
the families of the laboratory, brands, the `unseen` concepts by name, by keyword and by picture,
and near copies of any laboratory icon with a name of a class. `kept_out.emoji` are the emoji that
pre-training has to leave out for the same reasons.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import icon_sets
import numpy as np
from emoji_set import fetch, read
from emoji_set_sources import EMOJIBASE
from icon_index import Drawn, index, kind_of
from icon_proposal import class_names
from icon_set import licence_of
from icon_unseen import UNSEEN, shows_unseen

from radapter.data import emoji, icons
from radapter.files import write_atomic

COPY = 0.95  # correlation of two pictures from which on one is a near copy of the other
COPY_OF_UNSEEN = 0.9
CLASSES = Path(__file__).parent / "icon_classes.txt"
# npm packages whose tags and aliases are keywords of icons of the same name.
KEYWORDS = {
    "lucide-static": (
        "1.62.0",
        "386f9080c440d6f5049cefe3456ae8357f7a0c7f76e59670cd1cb83bc7050a44",
    ),
    "@tabler/icons": (
        "3.52.0",
        "626620c7d42afd2f294fba167ce4653b5cb946336d186b4991c70b700e5616af",
    ),
    "@mdi/svg": ("7.4.47", "de92e5dc9ce46c392ab5c53aa7190b19f82b40cb48872a083f788c7e13e91fef"),
}
# Sets without brands: a name that they have is a word, even if a brand is called so too.
NO_BRANDS = ["lucide", "material-symbols", "healthicons", "maki", "temaki", "ph"]
ALWAYS_BRANDS = {
    "apple", "android", "windows", "amazon", "chrome", "edge", "opera", "safari", "firefox",
    "skype", "steam", "twitter", "facebook", "instagram", "tiktok", "wechat", "alipay", "paypal",
    "spotify", "youtube", "pinterest", "telegram", "whatsapp", "reddit", "github", "gitlab",
    "dropbox", "google", "figma", "slack", "discord", "twitch", "vimeo", "tumblr", "snapchat",
    "dribbble", "behance", "linkedin", "medium", "trello",
}  # fmt: skip


def words_of(name: str) -> str:
    return name.replace("-", " ")


def keywords(cache: Path) -> dict[str, list[str]]:
    """Keywords by the name of an icon, of all packages that have any."""
    found: dict[str, list[str]] = defaultdict(list)
    with fetch("lucide-static", *KEYWORDS["lucide-static"], cache) as package:
        for name, tags in read(package, "tags.json").items():
            found[words_of(name)] += tags
    with fetch("@tabler/icons", *KEYWORDS["@tabler/icons"], cache) as package:
        for name, facts in read(package, "icons.json").items():
            if facts.get("category") != "Brand":
                found[words_of(name)] += [str(tag) for tag in facts["tags"]][:8]
    with fetch("@mdi/svg", *KEYWORDS["@mdi/svg"], cache) as package:
        for facts in read(package, "meta.json"):
            found[words_of(facts["name"])] += facts["aliases"]
    with fetch("emojibase-data", *EMOJIBASE, cache) as package:
        for facts in read(package, "en/data.json"):
            found[facts["label"].lower()] += facts.get("tags", [])
    return {
        name: [w for w in dict.fromkeys(words_of(t).lower().strip() for t in tags) if w != name][
            :10
        ]
        for name, tags in found.items()
    }


def brands(cache: Path, words: set[str]) -> set[str]:
    """Names of logos that are no words."""
    found = set()
    with fetch("@iconify/json", *icon_sets.ICONIFY, cache) as package:
        for name in icon_sets.LEFT_OUT["logos, brands and marks"]:
            for icon in read(package, f"json/{name}.json")["icons"]:
                bare = re.sub(r"-(icon|line|filled|dark|light|original|plain|wordmark)$", "", icon)
                found |= {words_of(bare), bare.replace("-", "")}
    return found - words


def largest_correlation(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each row with any of the others, [rows]."""
    best = np.zeros(len(rows), np.float32)
    for first in range(0, len(others), 1000):
        part = others[first : first + 1000].astype(np.float32).T
        for start in range(0, len(rows), 20_000):
            of = slice(start, start + 20_000)
            best[of] = np.maximum(best[of], (rows[of].astype(np.float32) @ part).max(1))
    return best


def candidates(found: dict[str, Drawn], known: dict[str, list[str]], no_words: set[str]) -> Any:
    """(set, place) of what may be pre-trained on and of the unseen, and why others may not."""
    taken, unseen, why = [], [], Counter[str]()
    for name, drawn in found.items():
        laboratory = icon_sets.side(icon_sets.family(name)) != "pre-training"
        for place, words in enumerate(drawn.words):
            if shows_unseen([words]):
                unseen.append((name, place))
                why["unseen by name"] += not laboratory
            elif laboratory:
                continue
            elif words in no_words or set(words.split()) & ALWAYS_BRANDS:
                why["brands"] += 1
            elif shows_unseen(known.get(words, [])):
                why["unseen by keyword"] += 1
            else:
                taken.append((name, place))
    return taken, unseen, why


def listed(found: dict[str, Drawn], cache: Path) -> dict[str, Any]:
    """The list, with what was kept out of it."""
    known = keywords(cache)
    of_classes = {w for names in class_names(CLASSES).values() for w in names}
    words = {w for name in NO_BRANDS for w in found[name].words} | of_classes
    words |= {w for c in emoji.concepts() for w in (c["name"], *c["keywords"])}
    taken, unseen, why = candidates(found, known, brands(cache, words))
    rows = np.stack([found[name].vectors[place] for name, place in taken])
    place_of = {n: {icon: i for i, icon in enumerate(d.names)} for n, d in found.items()}
    shipped = {tuple(icon.name.split(":")) for icon in icons.pictures()}
    shipped |= {  # and what was not chosen of the same designers
        (name, icon)
        for name, drawn in found.items()
        if icon_sets.side(icon_sets.family(name)) != "pre-training"
        for icon, word in zip(drawn.names, drawn.words, strict=True)
        if word in of_classes
    }
    laboratory = np.stack([found[s].vectors[place_of[s][icon]] for s, icon in sorted(shipped)])
    copies = largest_correlation(rows, laboratory) > COPY
    shown = np.stack([found[name].vectors[place] for name, place in unseen])
    unseen_copies = ~copies & (largest_correlation(rows, shown) > COPY_OF_UNSEEN)
    why["near copies of the laboratory"] = int(copies.sum())
    why["unseen by picture"] = int(unseen_copies.sum())
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (name, place), out in zip(taken, copies | unseen_copies, strict=True):
        drawn = found[name]
        kind = kind_of(name, drawn.stated[place], drawn.measures[place])
        if not out:
            key = (icon_sets.family(name), drawn.words[place], kind)
            groups[key].append(f"{name}:{drawn.names[place]}")
    return {
        "kept_out": {
            "counts": why,
            "unseen": UNSEEN,
            "emoji": {
                concept["hexcode"]: shown
                for concept in emoji.concepts()
                if (shown := shows_unseen([concept["name"], *concept["keywords"]]))
            },
            "emoji_styles": ["noto", "emojione", "emojione-monotone"],
            "families": icon_sets.LABORATORY,
        },
        "groups": [
            {"family": f, "name": n, "kind": k, "icons": of, "keywords": known.get(n, [])}
            for (f, n, k), of in sorted(groups.items())
        ],
    }


def main() -> None:
    """Draw, compare, write; print counts to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder for tarballs and drawings, kept")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        result = listed(index(cache), cache)
        with fetch("@iconify/json", *icon_sets.ICONIFY, cache) as package:
            infos = read(package, "collections.json")
    sets = {icon.split(":")[0] for group in result["groups"] for icon in group["icons"]}
    result["licences"] = {name: licence_of(infos[name]) for name in sorted(sets)}
    result["package"] = ["@iconify/json", *icon_sets.ICONIFY]
    write_atomic(arguments.out, json.dumps(result, ensure_ascii=False, indent=0) + "\n")
    kinds = Counter(group["kind"] for group in result["groups"])
    print(
        f"{len(result['groups'])} groups: {dict(kinds)}; kept out: {result['kept_out']['counts']}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
