"""Sources that are published sets, and all sources together: what a data section may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from radapter.recipe_data import (
    PUBLISHED,
    CaptionFilesData,
    ClipBenchmarkData,
    CocoCaptionsData,
    Data,
    EmojiData,
    FolderData,
    HeldOut,
    IdenticalClasses,
    KarpathyData,
    ShardsData,
    TableData,
    Templates,
)


class HuggingFaceData(HeldOut):
    """A set of Hugging Face `datasets`, from a folder or by its name on the hub (extra `hf`)."""

    source: Literal["huggingface"]
    path: str
    """A folder that `save_to_disk` wrote, one with the set's data files, or a name on the hub"""
    config: str | None = None
    """The configuration, where a set has several"""
    dataset_split: str | None = None
    """One of the set's own splits, needed if it has several; `hold_out` holds out a share of it"""
    image_column: str = "image"
    text_column: str | None = None
    """Captions: a text or a list of texts for each picture"""
    label_column: str | None = None
    """Classes: a ClassLabel, whose names are the class names, or names themselves"""

    @model_validator(mode="after")
    def _texts_or_labels(self) -> HuggingFaceData:
        if self.text_column is None and self.label_column is None:
            raise ValueError("name a text_column or a label_column")
        return self


class ImageNetData(HeldOut):
    """ImageNet-1k and its shifted versions, in the layouts in which they are published.

    Labels are places in ImageNet's order of 1000 classes, that of their WordNet ids."""

    convention = PUBLISHED
    source: Literal["imagenet"]
    variant: Literal["train", "val", "v2", "r", "a", "sketch"] = "train"
    root: str | None = None
    """The folder that holds the class folders (or the flat `val`); None: the one of the usual
    names that is under the data root."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """Of `train`, this many pictures a class: those whose sha256 of "SEED/WNID/FILE NAME" is
    smallest, SEED being `shots_seed`."""
    shots_seed: Annotated[int, Field(ge=0)] = 0
    identical_classes: IdenticalClasses = "apart"

    @model_validator(mode="after")
    def _shots_are_for_training(self) -> ImageNetData:
        if self.shots is not None and self.variant != "train":
            raise ValueError("shots draws from `variant: train` only")
        return self

    def published_as(self) -> str:
        """All pictures but those of the shifted sets are ImageNet's."""
        return "imagenet" if self.variant in ("train", "val") else f"imagenet-{self.variant}"


class ObjectNetData(Data):
    """The 113 classes of ObjectNet that are ImageNet's too. Its licence is for testing only."""

    convention = PUBLISHED
    source: Literal["objectnet"]
    root: str | None = None
    """The folder with `images` and `mappings`; None: the one of the usual names under the data
    root."""
    protocol: Literal["wise-ft", "wise-ft-cropped", "clip-benchmark"] = "wise-ft"
    """`wise-ft`: ImageNet's 1000 names, a class scores the maximum over its ImageNet classes, no
    crop: what the code of WiSE-FT, FLYP and R-Adapter does, so published numbers are of it.
    `wise-ft-cropped`: the same with 2 pixels (the red border) cut off on each side, which that code
    means to do. `clip-benchmark`: no crop, ObjectNet's own 113 names in lower case."""
    identical_classes: IdenticalClasses = "apart"
    no_training = "ObjectNet's licence is for testing only: it is no training data"

    def published_as(self) -> str:
        return "objectnet"


CoopSet = Literal[
    "caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers",
    "oxford_pets", "stanford_cars", "sun397", "ucf101",
]  # fmt: skip
"""The eleven sets by the names that CoOp's scripts know them by."""
COOP_TEMPLATES: dict[CoopSet, str] = {
    "caltech101": "a photo of a {}.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "food101": "a photo of {}, a type of food.",
    "imagenet": "a photo of a {}.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "oxford_pets": "a photo of a {}, a type of pet.",
    "stanford_cars": "a photo of a {}.",
    "sun397": "a photo of a {}.",
    "ucf101": "a photo of a person doing {}.",
}
"""CoOp's one template for each set."""


class CoopData(Data):
    """The eleven sets of CoOp, CoCoOp and MaPLe by CoOp's split files, in the folders that its
    DATASETS.md asks for; `radapter/data/coop.py` has the facts."""

    convention = PUBLISHED
    source: Literal["coop"]
    dataset: CoopSet
    split: Literal["train", "validation", "test"] = "train"
    """`validation` is what the files call val; ImageNet is tested on its validation pictures."""
    classes: Literal["all", "base", "novel"] = "all"
    """`base` is the first half of the classes, rounded up, `novel` the rest; numbered from 0."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """This many pictures a class of `train`; of `validation`, at most 4 of them."""
    shots_seed: Annotated[int, Field(ge=0)] = 1
    """CoOp's seeds are 1, 2 and 3. A recipe that does not say it takes its `seed`."""
    protocol: Literal["coop", "radapter-release"] = "coop"
    """`coop`: names and order of classes as in the split file, one template for each set.
    `radapter-release`: folder names with their underscores, in alphabetical order, and the 80
    templates of ImageNet."""
    root: str | None = None
    """The set's folder; None: the one of the usual name under the data root."""
    task: Literal["classification"] = "classification"
    templates: Templates | None = None  # type: ignore[assignment]
    """None: those of the protocol."""
    identical_classes: IdenticalClasses = "apart"

    def prompts(self) -> Templates:
        if self.templates is not None:
            return self.templates
        return "openai" if self.protocol != "coop" else [COOP_TEMPLATES[self.dataset]]

    def own_prompts(self) -> Templates:
        return self.prompts()

    @model_validator(mode="after")
    def _shots_are_for_training(self) -> CoopData:
        if self.shots is not None and self.split == "test":
            raise ValueError("shots draws from train and validation, not from test")
        return self

    seeded = "shots_seed"
    """One seed is a whole run of CoOp's: it draws the pictures, then trains on them."""
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


if TYPE_CHECKING:
    DataSource: TypeAlias = Data
else:
    DataSource = Annotated[
        EmojiData
        | FolderData
        | TableData
        | CaptionFilesData
        | ShardsData
        | ClipBenchmarkData
        | KarpathyData
        | CocoCaptionsData
        | HuggingFaceData
        | ImageNetData
        | ObjectNetData
        | CoopData,
        Field(discriminator="source"),
    ]
