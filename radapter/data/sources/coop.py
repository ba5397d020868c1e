"""The eleven sets of CoOp (Zhou et al., IJCV 2022) as its DATASETS.md lays them out.

| dataset        | folder          | pictures below it     | split                                |
| -------------- | --------------- | --------------------- | ------------------------------------ |
| caltech101     | caltech-101     | 101_ObjectCategories  | split_zhou_Caltech101.json           |
| oxford_pets    | oxford_pets     | images                | split_zhou_OxfordPets.json           |
| stanford_cars  | stanford_cars   | cars_train, cars_test | split_zhou_StanfordCars.json         |
| oxford_flowers | oxford_flowers  | jpg                   | split_zhou_OxfordFlowers.json        |
| food101        | food-101        | images                | split_zhou_Food101.json              |
| fgvc_aircraft  | fgvc_aircraft   | images                | images_variant_*.txt, variants.txt   |
| sun397         | sun397          | SUN397                | split_zhou_SUN397.json               |
| dtd            | dtd             | images                | split_zhou_DescribableTextures.json  |
| eurosat        | eurosat         | 2750                  | split_zhou_EuroSAT.json              |
| ucf101         | ucf101          | UCF-101-midframes     | split_zhou_UCF101.json               |
| imagenet       | imagenet        | images/{train,val}    | those folders; classnames.txt        |

A split file has the lists train, val and test of rows [path below the pictures, label, class name].
The names in it are those of the prompts, with `_` for a space: where they are not the folders' own,
they were changed when the file was made (EuroSAT's AnnualCrop is "Annual Crop Land", Caltech101's
Faces are "face", a car's year stands first, SUN397's apse/indoor is "indoor apse"). Labels are
their order, which is not that of the names: Caltech101 begins with face, leopard, motorbike.

Shots are CoOp's own draw: one generator of Python's `random`, seeded; for each class, in the order
in which the list of training pictures first names it, a sample; all classes, before any are left
out; then the same of at most 4 from the validation list. Not so for ImageNet, whose pictures CoOp
lists in the order of the file system: there it is the draw of the source `imagenet`, by a hash, and
`validation` is what comes next in it, since CoOp has no validation pictures but the test set.

The protocol `radapter-release` has class names and halves of R-Adapter's released script: those of
torchvision's ImageFolder, which are folder names in alphabetical order, `_` and all: "a photo of a
apple_pie.". The script takes folders train, val and test as given and says nowhere how they are
made. So where the pictures of all classes lie in one folder (Pets, Cars, Flowers, Aircraft) the
names are the split file's, sorted, and SUN397's a/apse/indoor, no name of one folder, is
apse_indoor. What is trained and tested on is the split file's here too; the script has none.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from radapter.data.class_names import class_name
from radapter.data.dataset import Dataset
from radapter.data.listing import names_in_folder
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import (
    Data,
    IdenticalClasses,
    MissingData,
    Templates,
    first_folder,
    located,
)
from radapter.data.sources import imagenet
from radapter.data.stores import Files
from radapter.errors import BrokenInput, UsageError

WHERE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
VALIDATION_SHOTS = 4
"""Most validation pictures a class"""
COOP_RULE = "coop: names, order of classes and pictures as in CoOp's files"
RELEASE_RULE = (
    "radapter-release: folder names, `_` kept, in alphabetical order; pictures of CoOp's split"
)
CoopSet = Literal[
    "caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers",
    "oxford_pets", "stanford_cars", "sun397", "ucf101",
]  # fmt: skip
"""The eleven sets by the names that CoOp's scripts know them by."""
Listed = tuple[str, int]
"""Path below the pictures' folder, label"""


@dataclass(frozen=True)
class Layout:
    """Where the pictures of one of CoOp's sets lie, and its prompt."""

    title: str
    folder: str
    pictures: str = "images"
    template: str = "a photo of a {}."
    in_folders: bool = True
    """Whether each class has a folder of its own below `pictures`"""


LAYOUTS: dict[CoopSet, Layout] = {
    "caltech101": Layout("Caltech101", "caltech-101", "101_ObjectCategories"),
    "dtd": Layout("DescribableTextures", "dtd", template="{} texture."),
    "eurosat": Layout("EuroSAT", "eurosat", "2750", "a centered satellite photo of {}."),
    "fgvc_aircraft": Layout(
        "FGVCAircraft", "fgvc_aircraft",
        template="a photo of a {}, a type of aircraft.", in_folders=False,
    ),
    "food101": Layout("Food101", "food-101", template="a photo of {}, a type of food."),
    "imagenet": Layout("ImageNet", "imagenet"),
    "oxford_flowers": Layout(
        "OxfordFlowers", "oxford_flowers", "jpg",
        "a photo of a {}, a type of flower.", in_folders=False,
    ),
    "oxford_pets": Layout(
        "OxfordPets", "oxford_pets", template="a photo of a {}, a type of pet.", in_folders=False
    ),
    "stanford_cars": Layout("StanfordCars", "stanford_cars", "", in_folders=False),
    "sun397": Layout("SUN397", "sun397", "SUN397"),
    "ucf101": Layout("UCF101", "ucf101", "UCF-101-midframes", "a photo of a person doing {}."),
}  # fmt: skip


class CoopData(Data):
    """The eleven sets of CoOp, CoCoOp and MaPLe, with CoOp's split files, in the folders that its
    DATASETS.md asks for."""

    convention = PUBLISHED
    source: Literal["coop"]
    named_by = ("dataset", "classes", "root")
    dataset: CoopSet
    """Which of the eleven sets."""
    split: Literal["train", "validation", "test"] = "train"
    """Which pictures are taken. `validation` is what the files call val. The test pictures of
    ImageNet are its validation pictures."""
    classes: Literal["all", "base", "novel"] = "all"
    """Which classes are taken: `all`, the first half (`base`, rounded up) or the rest (`novel`)."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """How many pictures of each class are drawn from `train`, and at most 4 from `validation`.
    `null`: all pictures are taken."""
    shots_seed: Annotated[int, Field(ge=0)] = 1
    """The seed of that draw. CoOp's seeds are 1, 2 and 3. In the `data` of a recipe the default is
    the recipe's `seed`."""
    protocol: Literal["coop", "radapter-release"] = "coop"
    """How classes are named and ordered. `coop`: as in the split file, with one template for each
    set. `radapter-release`: by the folders' names with their underscores, in alphabetical order,
    with the 80 templates of ImageNet."""
    root: str | None = None
    """The folder of the set. `null`: the one of the usual name under the data root."""
    task: Literal["classification"] = "classification"
    templates: Templates | None = None  # type: ignore[assignment]
    """Prompts for class names, in which `{}` stands for the name. `null`: those of the
    protocol."""
    identical_classes: IdenticalClasses = "apart"

    def prompts(self) -> Templates:
        if self.templates is None and self.protocol == "coop":
            return [LAYOUTS[self.dataset].template]
        return self.templates or "openai"

    own_prompts = prompts

    @model_validator(mode="after")
    def _shots_are_for_training(self) -> CoopData:
        if self.shots is not None and self.split == "test":
            raise ValueError("shots draws from dataset_split train or validation, not test")
        return self

    seeded = "shots_seed"  # one seed of CoOp's draws the pictures, then trains on them
    averaged_over = "dataset"

    def in_words(self) -> str:
        shots = "" if self.shots is None else f", {self.shots} shots, seed {self.shots_seed}"
        return f"{self.dataset}, {self.classes} classes{shots}"

    def published_as(self) -> str:
        return self.dataset

    def for_model_trained_on(self, trained: Data) -> Data | None:
        """Only the set that was trained on, by its protocol."""
        if not isinstance(trained, CoopData):
            return self
        if trained.dataset != self.dataset:
            return None
        root = self.root if trained.root is None else trained.root
        return self.model_copy(update={"root": root, "protocol": trained.protocol})

    def has_counts_of(self, other: Data) -> bool:
        """Another protocol's halves of the classes are of other classes."""
        return self.classes == "all" or self.protocol == getattr(other, "protocol", None)

    def open(self) -> Dataset:
        """The pictures of one split, of all classes or of one half of them; see the module.

        Raises:
            BrokenInput: the set, its split or pictures of the split are not there, or the split is
                not of the form that is known.
            UsageError: ImageNet has no validation split, only validation shots.
        """
        if self.dataset == "imagenet":
            return _open_imagenet(self)
        layout = LAYOUTS[self.dataset]
        root = first_folder(self, self.root, (layout.folder,), layout.title)
        pictures = root / layout.pictures
        if not pictures.is_dir():
            raise MissingData(f"{layout.title} has no pictures at {pictures}: no such folder.")
        read = _read_aircraft if self.dataset == "fgvc_aircraft" else _read_split
        splits, names = read(root, layout)
        rows = splits[self.split]
        if self.shots is not None:
            rows = draw(splits, self.shots, self.shots_seed)[self.split]
        paths = [path for path, _ in rows]
        _check_pictures(pictures, paths, layout)
        files = Files(pictures, paths, self.reading())
        every = Dataset(
            source="",
            keys=paths,
            read=files.read,
            stamp=files.stamp,
            labels=[label for _, label in rows],
            groups=list(range(len(rows))),
        )
        if self.protocol == "coop":
            spelled = {label: class_name(name) for label, name in names.items()}
            return _of_classes(every, self, spelled, sorted(names), COOP_RULE)
        if layout.in_folders:
            names = _folders([row for split in splits.values() for row in split], self.dataset)
        order = sorted(names, key=names.__getitem__)
        if self.dataset == "sun397":  # a/apse/indoor: the first is only a letter
            names = {k: name.partition("/")[2].replace("/", "_") for k, name in names.items()}
        return _of_classes(every, self, names, order, RELEASE_RULE)


def draw(splits: dict[str, list[Listed]], shots: int, seed: int) -> dict[str, list[Listed]]:
    """CoOp's few-shot training and validation pictures, by `train` and `validation`.

    A class that has fewer pictures gives all of them, as in CoOp's present code.
    """
    generator = random.Random(seed)
    drawn: dict[str, list[Listed]] = {}
    for split, each in (("train", shots), ("validation", min(shots, VALIDATION_SHOTS))):
        of_class: dict[int, list[Listed]] = {}
        for row in splits[split]:
            of_class.setdefault(row[1], []).append(row)
        drawn[split] = [
            row
            for rows in of_class.values()
            for row in (generator.sample(rows, each) if len(rows) >= each else rows)
        ]
    return drawn


def _of_classes(
    dataset: Dataset, settings: CoopData, names: dict[int, str], order: list[int], rule: str
) -> Dataset:
    """The pictures of the classes that are asked for, numbered from 0 in the protocol's order."""
    half = math.ceil(len(order) / 2)
    chosen = {"all": order, "base": order[:half], "novel": order[half:]}[settings.classes]
    number = {label: i for i, label in enumerate(chosen)}
    kept = dataset.select([i for i, label in enumerate(dataset.labels) if label in number])
    facts = {"protocol": rule}
    if settings.classes != "all":
        facts["classes"] = (
            "base is the first half, rounded up, novel the rest; each against its own names only"
        )
    if settings.shots is not None:
        facts["shots"] = f"{settings.shots} a class, seed {settings.shots_seed}"
    return dataclasses.replace(
        kept,
        source=f"coop {settings.dataset}",
        labels=[number[label] for label in kept.labels],
        class_names=[names[label] for label in chosen],
        answers=[[i] for i in range(len(chosen))],
        protocol=facts,
    )


def _folders(rows: list[Listed], dataset: str) -> dict[int, str]:
    """Label -> folder of its pictures."""
    folders: dict[int, str] = {}
    for path, label in rows:
        folder = PurePosixPath(path).parent.as_posix()
        if folders.setdefault(label, folder) != folder:
            raise BrokenInput(
                f"Class {label} of {dataset} lies in two folders, {folders[label]} and {folder}: "
                "the protocol radapter-release needs one."
            )
    return folders


# ---------------------------------------------------------------- files


def _read_split(root: Path, layout: Layout) -> tuple[dict[str, list[Listed]], dict[int, str]]:
    """The rows of each split and the names of the labels."""
    path = root / f"split_zhou_{layout.title}.json"
    if not path.is_file():
        raise BrokenInput(f"No such file: {path}. It is linked from {WHERE}.")
    names: dict[int, str] = {}
    splits: dict[str, list[Listed]] = {}
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
        for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
            rows = splits[split] = []
            for picture, label, name in tree[key]:
                if names.setdefault(int(label), str(name)) != name:
                    raise BrokenInput(
                        f"{path}: label {label} is both '{names[int(label)]}' and '{name}'."
                    )
                rows.append((str(picture), int(label)))
    except (ValueError, KeyError, TypeError):
        raise BrokenInput(
            f"{path} is not a split of CoOp's: it has lists train, val and test of rows "
            "[path, label, class name]."
        ) from None
    if sorted(names) != list(range(len(names))):
        raise BrokenInput(f"{path}: its {len(names)} labels are not 0 to {len(names) - 1}.")
    return splits, names


def _read_aircraft(root: Path, layout: Layout) -> tuple[dict[str, list[Listed]], dict[int, str]]:
    """The same from the set's own lists: "0034309 Boeing 707-320", and a variant in each line."""
    lists = {"train": "train", "validation": "val", "test": "test"}
    files = {split: root / f"images_variant_{name}.txt" for split, name in lists.items()}
    variants = root / "variants.txt"
    for path in (variants, *files.values()):
        if not path.is_file():
            raise BrokenInput(f"No such file: {path}. {layout.title}'s own archive has it.")
    names = [line.strip() for line in variants.read_text(encoding="utf-8").splitlines()]
    number = {name: i for i, name in enumerate(names) if name}
    splits: dict[str, list[Listed]] = {}
    for split, path in files.items():
        rows = splits[split] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            picture, _, name = line.strip().partition(" ")
            if picture and name not in number:
                raise BrokenInput(f"{path}: '{name}' of {picture} is not in {variants.name}.")
            if picture:
                rows.append((f"{picture}.jpg", number[name]))
    return splits, {i: name for name, i in number.items()}


def _check_pictures(pictures: Path, paths: list[str], layout: Layout) -> None:
    """Whether every picture of the split is there, by one look at each folder."""
    names_in = functools.cache(names_in_folder)
    places = {path: pictures / path for path in paths}
    missing = [path for path, at in places.items() if at.name not in names_in(at.parent)]
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise BrokenInput(
            f"{len(missing):,} of {len(paths):,} pictures of {layout.title}'s split are not in "
            f"{pictures}: {', '.join(missing[:3])}{more}."
        )


# ---------------------------------------------------------------- ImageNet


def _open_imagenet(settings: CoopData) -> Dataset:
    validation = settings.split == "validation"
    if validation and settings.shots is None:
        raise UsageError(
            "CoOp's ImageNet has no validation split: give data.shots, or a `validation` section."
        )
    variant = "val" if settings.split == "test" else "train"
    described = imagenet.ImageNetData(
        source="imagenet",
        variant=variant,  # type: ignore[arg-type]
        data_root=settings.data_root,
        root=settings.root and f"{settings.root}/images/{variant}",
        shots=settings.shots,
        shots_seed=settings.shots_seed,
    )
    dataset = described.open()
    drawn = described.drawn(dataset)
    if validation:
        assert settings.shots is not None
        trained = set(drawn.keys)
        more = settings.shots + min(settings.shots, VALIDATION_SHOTS)
        drawn = described.model_copy(update={"shots": more}).drawn(dataset)
        drawn = drawn.select([i for i, key in enumerate(drawn.keys) if key not in trained])
    # Labels are the order of WordNet ids, which is the alphabetical order of the folders too.
    order = list(range(len(imagenet.synsets())))
    if settings.protocol == "coop":
        root = located(settings, settings.root or LAYOUTS["imagenet"].folder)
        names = {k: class_name(name) for k, name in _imagenet_names(root).items()}
        rule = COOP_RULE
    else:
        names = dict(enumerate(imagenet.class_names()))
        rule = "radapter-release: open_clip's names of ImageNet in the order of WordNet ids"
    return _of_classes(drawn, settings, names, order, rule)


def _imagenet_names(root: Path) -> dict[int, str]:
    """CoOp's classnames.txt, "n01440764 tench" in each line: its names are not open_clip's."""
    path = root / "classnames.txt"
    if not path.is_file():
        raise BrokenInput(f"No such file: {path}. It is linked from {WHERE}.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    name_of = dict(line.partition(" ")[::2] for line in lines if line)
    absent = [synset for synset in imagenet.synsets() if not name_of.get(synset)]
    if absent:
        raise BrokenInput(
            f"{path} names {len(name_of):,} classes, without {absent[0]} of the 1000."
        )
    return {i: name_of[synset] for i, synset in enumerate(imagenet.synsets())}
