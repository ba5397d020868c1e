"""Domains of the same classes: DomainNet, Sketchy and TU-Berlin, or a tree of one's own.

ROOT/DOMAIN/CLASS/picture. Which classes are seen, for validation and unseen is that of Paul, Dutta
and Biswas (2021), github.com/mvp18/UCDR, whose lists stand in `domain_classes.json`: 245, 55 and 45
of DomainNet; 21 unseen of Sketchy by the protocol `eccv-2018` (Yelamarthi et al.) or 25 by
`random`, and of the others a tenth for validation, drawn by NumPy's generator with seed 0 as that
code does; 30 unseen and 20 for validation of TU-Berlin. The folders of Sketchy and TU-Berlin may
have the names under which they come, or those that that code gives them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image, ImageOps
from pydantic import Field, model_validator

from radapter.data import holding_out
from radapter.data.class_names import class_name, gathered
from radapter.data.dataset import Dataset
from radapter.data.left_out import LeftOut, merged
from radapter.data.listing import class_folders, list_pictures
from radapter.data.pixels import PUBLISHED, Reading
from radapter.data.settings import Data, MissingData, first_folder, located
from radapter.data.stores import Files
from radapter.errors import BrokenInput, UsageError, nearest

Published = Literal["domainnet", "sketchy", "tu-berlin"]
SHARE = 0.08
"""What is kept of the pictures of seen classes in the gallery's domain, for a generalised one"""
ROOTS: dict[Published, tuple[str, ...]] = {
    "domainnet": ("DomainNet", "domainnet"),
    "sketchy": ("Sketchy", "sketchy", "256x256"),
    "tu-berlin": ("TUBerlin", "TU-Berlin", "tu-berlin"),
}
FOLDERS: dict[Published, dict[str, tuple[str, ...]]] = {
    "domainnet": {
        name: (name,)
        for name in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    },
    "sketchy": {
        "sketch": ("sketch/tx_000000000000", "sketch"),
        "photo": ("extended_photo", "EXTEND_image_sketchy"),
    },
    "tu-berlin": {"sketch": ("sketches", "png"), "photo": ("images", "ImageResized")},
}
"""By set and domain the folders that may hold it, the first that is there"""


class DomainsData(Data):
    """Domains of the same classes, ROOT/DOMAIN/CLASS/picture: DomainNet, Sketchy, TU-Berlin, or
    your own."""

    source: Literal["domains"]
    named_by = ("dataset", "root", "domains", "classes")
    dataset: Published | None = Field(default=None, examples=["sketchy"])
    """A published set, with its folders and its split of classes. `null`: a tree of your own."""
    root: str | None = None
    """The folder of the domains. `null`: the one of the set's usual name under the data root."""
    domains: Annotated[list[str], Field(min_length=1, examples=[["sketch"]])]
    """The domains whose pictures are taken: folders, or for `sketchy` and `tu-berlin` `sketch` and
    `photo`."""
    classes: Literal["all", "seen", "validation", "unseen"] = "all"
    """Which classes are taken: those to train on, those to choose settings on, or those that only
    tests have."""
    protocol: Literal["eccv-2018", "random"] = "eccv-2018"
    """Which classes of `sketchy` are unseen: 21 that ImageNet has not, or 25 that were drawn."""
    split_file: str | None = None
    """For a tree of your own: JSON with lists of class names for `unseen` and `validation`; all
    others are seen. A name that no domain has is an error."""
    part: Literal["all", "trained", "kept"] = "all"
    """Of each class `kept` are 8 % of the pictures, for the generalised gallery, and `trained` the
    others. They are chosen by a hash of the name; the published draw follows the order in which a
    file system lists them."""
    inverted: bool | list[str] = False
    """The domains whose colours are inverted; `true`: all. The released code of UCDR-Adapter does
    so with `[sketch, quickdraw]`. Those that are not in `domains` may be listed too."""
    task: Literal["classification"] = "classification"

    @model_validator(mode="after")
    def _one_split(self) -> DomainsData:
        if self.dataset is None and self.root is None:
            raise ValueError("give a dataset, or a root")
        if self.dataset is not None and self.split_file is not None:
            raise ValueError("a published dataset has its own split: leave split_file out")
        own = self.dataset is None and self.split_file is None
        if own and self.classes != "all":
            raise ValueError(f"classes: {self.classes} needs a dataset, or a split_file")
        return self

    def reading(self) -> Reading:
        """As published sets are, if it is one."""
        usual = super().reading()
        if self.dataset is None:
            return usual
        orientation, transparency = PUBLISHED.orientation, PUBLISHED.transparency
        return Reading(self.orientation or orientation, self.transparency or transparency)

    def in_words(self) -> str:
        name = self.dataset or Path(self.root or "").name
        classes = "" if self.classes == "all" else f", {self.classes}"
        return f"{name} {'+'.join(self.domains)}{classes}"

    def published_as(self) -> str | None:
        return self.dataset

    def held_out(self) -> None:
        """None: what is for validation are other classes."""

    def open(self) -> Dataset:
        """Pictures of the chosen domains and classes. Classes are numbered over all of these, in
        the order of their names.

        Raises:
            MissingData: there is no such folder.
            UsageError: there is no such domain, or the split file names a class that none has.
        """
        root = self._root()
        inverted = self._inverted(root)
        places = {domain: self._folder(root, domain) for domain in self.domains}
        found = [
            (domain, folder, name)
            for domain, place in places.items()
            for folder, name in self._spelled(class_folders(place))
        ]
        names, numbers = gathered([name for *_, name in found])
        wanted = self._wanted(names)
        order = sorted(wanted, key=lambda number: names[number])
        keys: list[str] = []
        labels: list[int] = []
        domains: list[int] = []
        left_out: list[LeftOut] = []
        for (domain, folder, _), number in zip(found, numbers, strict=True):
            if number not in wanted:
                continue
            listed = list_pictures(places[domain] / folder)
            left_out.append(listed.under(f"{domain}/{folder}"))
            keys += [f"{domain}/{folder}/{name}" for name in listed.pictures]
            labels += [order.index(number)] * len(listed.pictures)
            domains += [self.domains.index(domain)] * len(listed.pictures)
        files = Files(root, [self._path(root, places, key) for key in keys], self.reading())
        dataset = Dataset(
            source=self.in_words(),
            keys=keys,
            read=functools.partial(_read, files.read, [d in inverted for d in domains])
            if inverted
            else files.read,
            labels=labels,
            class_names=[names[number] for number in order],
            groups=list(range(len(keys))),
            domains=domains,
            domain_names=self.domains,
            stamp=files.stamp,
            digest=files.digest,
            protocol=self._protocol(),
            left_out=merged(*left_out),
        )
        return self._part(dataset)

    def _root(self) -> Path:
        if self.dataset is not None:
            return first_folder(self, self.root, ROOTS[self.dataset], self.dataset)
        root = located(self, self.root or "")
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
        return root

    def _folder(self, root: Path, domain: str) -> Path:
        names = self._names(root, domain)
        place = next((root / name for name in names if (root / name).is_dir()), None)
        if place is None:
            raise MissingData(f"{root} has no domain '{domain}': no folder {names[0]}.")
        return place

    def _names(self, root: Path, domain: str) -> tuple[str, ...]:
        """The folders that may hold a domain."""
        known = FOLDERS[self.dataset] if self.dataset else {n: (n,) for n in class_folders(root)}
        if domain not in known:
            what = self.dataset or root
            raise UsageError(f"{what} has no domain '{domain}'.{nearest(domain, list(known))}")
        return known[domain]

    def _inverted(self, root: Path) -> set[int]:
        """The numbers of the domains whose colours are inverted."""
        listed = self.inverted if isinstance(self.inverted, list) else []
        for domain in listed:
            self._names(root, domain)  # one that is not known is an error
        return {n for n, d in enumerate(self.domains) if self.inverted is True or d in listed}

    def _spelled(self, folders: Sequence[str]) -> list[tuple[str, str]]:
        """Folders with the names of their classes: TU-Berlin's photos come as `flyingbird`."""
        known: Mapping[str, str] = _published()["spelled"].get(self.dataset, {})
        return [(folder, known.get(_letters(folder)) or class_name(folder)) for folder in folders]

    def _wanted(self, names: list[str]) -> set[int]:
        """The numbers of the classes that are taken."""
        every = set(range(len(names)))
        if self.classes == "all":
            return every
        by_letters = {_letters(name): number for number, name in enumerate(names)}
        lists = self._lists(names)
        unknown = [n for own in lists.values() for n in own if _letters(n) not in by_letters]
        if unknown and self.split_file is not None:
            raise UsageError(
                f"{located(self, self.split_file)} names a class that {self.in_words()} has not: "
                f"'{unknown[0]}'.{nearest(unknown[0], names)}"
            )
        of: dict[str, set[int]] = {
            split: {by_letters[_letters(n)] for n in own if _letters(n) in by_letters}
            for split, own in lists.items()
        }
        of["seen"] = every - of.get("unseen", set()) - of.get("validation", set())
        return of.get(self.classes, set())

    def _lists(self, names: list[str]) -> dict[str, list[str]]:
        """The names for `unseen` and `validation`."""
        if self.split_file is not None:
            return _read_split(located(self, self.split_file))
        key = f"sketchy, {self.protocol}" if self.dataset == "sketchy" else str(self.dataset)
        lists = dict(_published()[key])
        if self.dataset == "sketchy":
            lists["validation"] = _tenth(names, lists["unseen"])
        return lists

    def _path(self, root: Path, places: Mapping[str, Path], key: str) -> str:
        domain, _, rest = key.partition("/")
        return (places[domain] / rest).relative_to(root).as_posix()

    def _protocol(self) -> dict[str, str]:
        said: dict[str, str] = {"classes": self.classes} if self.classes != "all" else {}
        if self.dataset == "sketchy" and said:
            said["classes"] += f", by the protocol {self.protocol}"
        if self.part != "all":
            share = {"kept": f"{SHARE:.0%}", "trained": f"all but {SHARE:.0%}"}[self.part]
            said["part"] = f"{share} of each class, by a hash of names"
        if self.inverted is True:
            said["colours"] = "inverted"
        elif self.inverted and (own := [d for d in self.domains if d in self.inverted]):
            said["colours"] = f"inverted of {'+'.join(own)}"
        return said

    def _part(self, dataset: Dataset) -> Dataset:
        if self.part == "all":
            return dataset
        kept = holding_out.by_class(dataset.keys, dataset.labels, SHARE)
        wanted = self.part == "kept"
        chosen = [i for i, key in enumerate(dataset.keys) if (key in kept) == wanted]
        return dataset.select(chosen)


@functools.cache
def _published() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "domain_classes.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _letters(name: str) -> str:
    """What names of one class have in common, however a copy of the set writes them."""
    return re.sub(r"[\W_]", "", name.casefold())


def _tenth(names: list[str], unseen: Sequence[str]) -> list[str]:
    """The classes for validation, drawn as the published code draws them."""
    import numpy as np  # here, as recipes are checked without it

    left_out = {_letters(name) for name in unseen}
    rest = sorted(name for name in names if _letters(name) not in left_out)
    generator = np.random.RandomState(0)
    seen = set(generator.choice(len(rest), int(0.9 * len(rest)), replace=False).tolist())
    return [name for number, name in enumerate(rest) if number not in seen]


def _read_split(path: Path) -> dict[str, list[str]]:
    """A split file: lists of names for `unseen` and `validation`.

    Raises:
        BrokenInput: it is not there, or of another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: content.pop(key, []) for key in ("unseen", "validation")}
        fits = all(isinstance(n, str) for own in lists.values() for n in own)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BrokenInput(f"{path} is not a readable split file: {error}.") from None
    if content or not fits:
        raise BrokenInput(f"{path} takes lists of class names for unseen and validation alone.")
    return lists


def _read(read: Any, inverted: Sequence[bool], index: int) -> Image.Image:
    picture = read(index)
    return ImageOps.invert(picture) if inverted[index] else picture
