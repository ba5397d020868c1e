"""What is in the built-in icons, in tables; `docs/data-icons.md` has them.

python benchmarks/icon_counts.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from radapter.data import icons

KINDS = ("line", "solid", "two-tone", "colour", "pixel")
SPLITS = ("train", "validation", "test")
LEAST = (2, 4, 8, 16)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), *([*row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def by_kind() -> str:
    """Pictures, classes and designers of the classes that are not `unseen`; pictures of these."""
    seen = {n for n, facts in enumerate(icons.classes()) if facts["half"] != "unseen"}
    family = {name: facts["family"] for name, facts in icons.table()["sets"].items()}
    rows = []
    for kind in KINDS:
        cells = []
        for split in SPLITS:
            found = [i for i in icons.pictures() if (i.kind, i.split) == (kind, split)]
            own = [i for i in found if i.label in seen]
            designers = {family[i.name.split(":")[0]] for i in own}
            cells.append(f"{len(own):,} ({len({i.label for i in own})}; {len(designers)})")
        others = sum(i.kind == kind and i.label not in seen for i in icons.pictures())
        rows.append((kind, *cells, others))
    return table(("kind", *SPLITS, "unseen"), rows)


def by_least() -> str:
    """How many classes have how many pictures."""
    seen = [n for n, facts in enumerate(icons.classes()) if facts["half"] != "unseen"]
    rows = []
    for kind, split in (("line", "train"), *((kind, "test") for kind in KINDS)):
        counts = Counter(i.label for i in icons.pictures() if (i.kind, i.split) == (kind, split))
        rows.append(
            (f"{kind}, {split}", *(sum(counts[n] >= least for n in seen) for least in LEAST))
        )
    return table(("classes with at least", *(f"{least} pictures" for least in LEAST)), rows)


def by_designer() -> str:
    """The designers of each split, with their pictures."""
    family = {name: facts["family"] for name, facts in icons.table()["sets"].items()}
    rows = []
    for split in SPLITS:
        own = (family[i.name.split(":")[0]] for i in icons.pictures() if i.split == split)
        counts = Counter(own).most_common()
        rows.append((split, ", ".join(f"{name} {count:,}" for name, count in counts)))
    return table(("split", "designers"), rows)


if __name__ == "__main__":
    print(by_kind(), by_least(), by_designer(), sep="\n")
