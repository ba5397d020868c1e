"""What the data sections of all sources have: keys of a recipe, and answers to what code asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from radapter.data.dataset import Dataset
from radapter.data.left_out import listed
from radapter.data.pixels import USUAL, Orientation, Reading, Transparency
from radapter.errors import BrokenInput, UsageError
from radapter.registry import Section, Unit

Templates = Annotated[list[str], Field(min_length=1)] | Literal["openai"]
"""Prompts for class names, `{}` standing for the name; `openai` is open_clip's list of 80."""
USUAL_TEMPLATES = ["a photo of a {}."]
IdenticalClasses = Literal["one", "apart"]
"""`one`: classes of one name are one answer, right for the pictures of each. `apart`: each counts
for itself, and of equal scores the first is the answer, so that pictures of another are wrong. It
is the default of published sets, as their published numbers are found so."""
BEFORE = {"hold_out_by": "hash", "orientation": "ignore", "transparency": "discard"}
"""What was done before there were settings for it"""


class MissingData(BrokenInput):
    """The data is not where it was looked for; it may be whole elsewhere."""


class Augmentation(Section):
    """Random changes to training pictures. The defaults are R-Adapter's: a crop, nothing else."""

    crop: tuple[Annotated[float, Field(gt=0.0, le=1.0)], Unit] = (0.9, 1.0)
    """Smallest and largest share of the picture's area that is kept."""
    flip: Unit = 0.0
    """Probability that a picture is flipped, left to right."""
    rotate: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest rotation in degrees. A picture that is rotated is also shifted by up to 5 %."""
    colour: Unit = 0.0
    """Strength of changes to brightness, contrast and saturation; hue changes by a tenth of it."""
    grey: Unit = 0.0
    """Probability that a picture is turned grey."""

    @model_validator(mode="after")
    def _crop_is_a_range(self) -> Augmentation:
        if self.crop[0] > self.crop[1]:
            raise ValueError("crop must be [smallest, largest] share of the area")
        return self


Shuffle = Callable[[Any], Any]
"""From a torch generator to the places of pairs, [pairs]"""


@dataclass(frozen=True)
class Listing:
    """What takes the place of the list that a data section reads, and what is read of others."""

    at: Callable[[str], Data]
    """From the path of JSON lines to the section that reads these, with the columns of `rows`"""
    rows: Callable[[Dataset], Callable[[int, str], dict[str, Any]]]
    """From what the section opens to: from the place of an item and a caption to their row"""
    captions: Callable[[Path], dict[str, list[str]]]
    """By item the captions in another list with the same columns"""


class Data(Section):
    """Pictures with their texts or classes."""

    data_root: str | None = None
    """The folder that relative paths start from. `null`: the working folder. The option
    `--data-root` and the environment variable RADAPTER_DATA are taken instead, where they are
    given."""
    task: Literal["classification", "captions", "segmentation", "edits"] = "classification"
    """What a picture is paired with: a prompt of its class, or each of its captions. With
    `segmentation` its pixels have classes, for suites alone; with `edits` it has a text that says
    what is to be changed of it, for suites and the term `entropy-contrast`."""
    templates: Templates = USUAL_TEMPLATES
    """Prompts for class names, in which `{}` stands for the name. `openai`: open_clip's list of
    80."""
    text_length: Annotated[int, Field(ge=3)] | None = None
    """Training texts are cut to this many tokens, start and end included; short texts train
    faster. `null`: the model's own context length."""
    augmentation: Augmentation | None = Augmentation()
    """Random changes to training pictures. `null`: none, and they are prepared as in evaluation;
    where no tower is trained, their features are then computed once, before the first step."""
    broken_images: Annotated[int, Field(ge=0)] = 0
    """How many pictures that cannot be read are skipped and named; one more is an error."""
    orientation: Orientation | None = None
    """Whether photos are turned as their EXIF orientation says. `null`: `ignore` for published
    sets, `apply` for all others."""
    transparency: Transparency | None = None
    """What shows through transparent pictures: `white`, `black`, or with `discard` the colours that
    lie hidden in the file. `null`: `discard` for published sets, `white` for all others."""
    identical_classes: IdenticalClasses = "one"
    """How classes of one name are scored. `one`: they are one answer, right for the pictures of
    each. `apart`: each is an answer of its own, and of equal scores the first one counts, as in the
    published numbers of published sets."""

    def prompts(self) -> Templates:
        """The templates that class names go into."""
        return self.templates

    def own_prompts(self) -> Templates | None:
        """Templates that belong to the source, where it has any: they go before a suite's."""
        return None

    def open(self) -> Dataset:
        """All pictures that the section describes, before any are held out: of each source.

        Raises:
            BrokenInput: a file or folder is missing, empty or damaged.
            UsageError: the description does not fit the source.
            MissingDependency: the source needs a package that is not installed.
        """
        raise NotImplementedError

    def open_pictures(self) -> Dataset:
        """The same without asking for labels or texts, for `unlabelled`."""
        return self.open()

    # What code asks of every source. One with another answer gives it in its own class.
    if TYPE_CHECKING:
        source: str = ""
    named_by: ClassVar[tuple[str, ...]] = ()
    """The settings that say which set of pictures it is; others say what is drawn of it, and how"""
    convention: ClassVar[Reading] = USUAL
    """How its pictures are read where a recipe does not say it"""
    own_splits: ClassVar[bool] = False
    """Whether the paths of its pictures do not say their split"""
    pictures_elsewhere: ClassVar[bool] = False
    """Whether it names pictures that may lie in another folder"""
    no_training: ClassVar[str | None] = None
    """Why it is no training data"""
    licence: ClassVar[Mapping[str, str] | None] = None
    """`name` and `licence` of a source that comes with radapter"""
    notices: ClassVar[Path | None] = None
    """The folder with NOTICE.md and LICENSES.txt of pictures that may be passed on; their keys end
    in SET/NAME"""
    resampled_by: ClassVar[str] = "pictures"
    """What intervals are resampled by: pictures, or what the groups of its data sets are called,
    which have the same numbers in all of them"""
    seeded: ClassVar[str | None] = None
    """The setting whose default is the recipe's seed"""
    averaged_over: ClassVar[str | None] = None
    """The setting that names one of several sets, over which papers report means"""

    @property
    def may_be_passed_on(self) -> bool:
        """Whether bundles may have pictures of it in them."""
        return self.notices is not None

    def credited(self, key: str) -> tuple[Path, set[str]] | None:
        """The folder with the notices of a picture that may be passed on, and the sets that it is
        of; None: nothing says that it may be."""
        return None if self.notices is None else (self.notices, {key.split("/")[-2]})

    def for_server(
        self, first: Mapping[str, list[str]], of_subset: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """Files for the server that keeps the right pictures of its edits, JSON by file name.

        Args:
            first: by the name of an edit the keys of the first 50 pictures.
            of_subset: and of the first 3 of its subset.
        """
        return {}

    @classmethod
    def built_in(cls) -> str | None:
        """What of it comes with radapter."""
        return None

    def reading(self) -> Reading:
        """How its pictures are read."""
        own = self.convention
        return Reading(self.orientation or own.orientation, self.transparency or own.transparency)

    def reading_facts(self) -> dict[str, str]:
        """What results say of that."""
        return self.reading().facts()

    def settled(self) -> Self:
        """With all that a later process without this one's data root and folder has to be told."""
        update: dict[str, Any] = dict(self.reading_facts())
        if root := root_of(self):
            update["data_root"] = str(Path(root).expanduser().absolute())
        return self.model_copy(update=update)

    def listing(self) -> Listing:
        """The list of items with captions that it reads.

        Raises:
            UsageError: it reads none.
        """
        raise UsageError(
            f"data.source {self.source} has no list that could be filtered: filter a recipe of "
            "`source: table` or `source: videos`."
        )

    def drawn(self, dataset: Dataset) -> Dataset:
        """What is taken of a split, if not all of it."""
        return dataset

    def shuffle(self, shards: Callable[[], list[int]], batch_size: int) -> Shuffle | None:
        """The order of an epoch, by the shard of every pair; None: all pairs at random."""
        return None

    def check_batch(self, size: int) -> None:
        """Raises UsageError for a size that batches cannot have."""

    def sizes(self) -> dict[str, dict[str, int]]:
        """Sizes by which a published set is told from others: of its `splits`, of its `mapping`."""
        return {}

    def unlike_published(self, dataset: Dataset) -> list[str]:
        """How what was opened differs from what is published, beside its counts."""
        return []

    def in_words(self) -> str:
        """A few words for a column of a table."""
        return self.source

    def published_as(self) -> str | None:
        """What suites call the published set that this is of; None: the user's own data."""
        return None

    def held_out(self) -> Data | None:
        """The pictures that are kept from training; None if none are."""
        return self.model_copy(update={"split": "validation"})

    def scored(self) -> Data | None:
        """All that is there to be scored, of a set found on disk; None: nothing is."""
        return self

    def controls(self) -> dict[str, Data]:
        """What stands beside it to show what a score is owed to, by name."""
        return {}

    def read_like(self, trained: Data) -> Data:
        """One's own data as a model reads it that was trained on other data."""
        return self

    def with_missing(self) -> Data:
        """Opened although items are missing, for who counts them."""
        return self

    def fewest(self) -> Data:
        """What of it is enough to try that all works; all, where it cannot be cut."""
        return self

    def for_model_trained_on(self, trained: Data) -> Data | None:
        """What of a suite's data such a model is scored on; None: rather on another set of this
        source, if the suite has one that fits."""
        return self

    def is_set_of(self, trained: Data) -> bool:
        """Whether it is of the set that was trained on, whatever a suite says of its role."""
        return False

    def overlaps(self, other: Data) -> bool:
        """Whether it names the same set of pictures, or one that has a part in common with it,
        however many are drawn of either, in whatever way and split."""
        if self.source != other.source:
            return False
        pairs = [(getattr(self, key), getattr(other, key)) for key in self.named_by]
        return all(
            not set(a).isdisjoint(b) if isinstance(a, list) and isinstance(b, list) else a == b
            for a, b in pairs
        )

    def has_counts_of(self, other: Data) -> bool:
        """Whether it has as many pictures and classes as the same set by another protocol."""
        return True

    @model_validator(mode="after")
    def _templates_have_a_place(self) -> Data:
        if isinstance(self.templates, list) and any(t.count("{}") != 1 for t in self.templates):
            raise ValueError("every template needs exactly one {} for the class name")
        return self


class Unlabelled(Section):
    """What the section `unlabelled` has beside the keys of its source. Its pictures are labelled
    for no term of the loss: classes, `task`, `templates` and `text_length` are not read."""

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """The share of each batch that is of these pictures; the rest is of `data`."""
    texts: bool = False
    """Whether a caption of each picture is in the batch, too, for a term that takes texts without
    asking whose they are, such as `in-batch-distillation`."""


def located(settings: Data, path: str) -> Path:
    """Where a path of the recipe or suite is: absolute as it is, else under the data root."""
    return Path(root_of(settings) or "").expanduser() / Path(path).expanduser()


def root_of(settings: Data) -> str | None:
    """The data root, if there is one."""
    return os.environ.get("RADAPTER_DATA") or settings.data_root


def first_folder(settings: Data, root: str | None, usual: Sequence[str], what: str) -> Path:
    """The folder `root`, or the first of the usual names that is under the data root.

    Raises:
        MissingData: it is not there; the message names every place that was looked at.
    """
    places = [located(settings, path) for path in ((root,) if root is not None else usual)]
    for place in places:
        if place.is_dir():
            return place
    if root is not None:
        raise MissingData(f"{what} is not at {places[0]}: no such folder.")
    base = located(settings, "")
    raise MissingData(
        f"{what} is not under {base.resolve()} in any of its usual folders: {', '.join(usual)}."
    )


def check_missing(missing: Sequence[str], number: int, allowed: int, kind: str, where: str) -> None:
    """Raise if more files are missing than may be.

    Args:
        missing: names.
        number: how many files are named.
        kind: what they are, "pictures".
        where: which folders were looked in, "in FOLDER".

    Raises:
        MissingData: all of them are.
        BrokenInput: some are, and more than `allowed`.
    """
    if len(missing) > allowed:
        error = MissingData if len(missing) == number else BrokenInput
        raise error(
            f"{len(missing)} of {number} {kind} are missing: "
            f"{listed(missing[:3], len(missing))}. Looked {where}. "
            "Put them there, or set data.root to where they are."
        )


class HeldOut(Data):
    """Sources without splits of their own: a share of the pictures is held out, by name."""

    hold_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of the pictures that is held out from training, for `merge --alpha auto`, `monitor`
    and `eval`."""
    hold_out_by: Literal["class", "hash"] = "class"
    """How pictures are held out. `hash`: by a hash of their names alone, as in runs of the first
    versions. `class`: by the same hash, with pictures of every class on both sides, if it has two
    or more. For captions both are the same."""
    split: Literal["train", "validation", "all"] = "train"
    """Which pictures are taken: those to train on, those that are held out, or all."""

    def held_out(self) -> Data | None:
        return super().held_out() if self.hold_out else None

    def scored(self) -> Data:
        return self.model_copy(update={"split": "all"})
