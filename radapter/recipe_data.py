"""The data section of a recipe: where pictures, texts and labels come from, a class a source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from radapter.errors import BrokenInput
from radapter.registry import Section, Unit

Templates = Annotated[list[str], Field(min_length=1)] | Literal["openai"]
"""Prompts for class names, `{}` standing for the name; `openai` is open_clip's list of 80."""
USUAL_TEMPLATES = ["a photo of a {}."]
IdenticalClasses = Literal["one", "apart"]
"""`one`: classes of one name are one answer, right for the pictures of each. `apart`: each counts
for itself, and of equal scores the first is the answer, so that pictures of another are wrong. It
is the default of published sets, as their published numbers are found so."""
CaptionProtocol = Literal["vse++", "clip-benchmark"]
"""Which captions of a picture count. `vse++`: its first five, as VSE++ and most papers since have
it. `clip-benchmark`: all of them. Of COCO's test split that is 25,000 captions or 25,010."""

Orientation = Literal["apply", "ignore"]
"""Whether a photo is turned as its EXIF orientation says."""
Transparency = Literal["white", "black", "discard"]
"""What shows through a transparent picture. `discard`: the colours that lie hidden in the file."""
PUBLISHED: tuple[Orientation, Transparency] = ("ignore", "discard")
"""How the pictures of published sets are read by the code that published scores come from."""


BEFORE = {"hold_out_by": "hash", "orientation": "ignore", "transparency": "discard"}
"""What was done before there were settings for it"""


class Augmentation(Section):
    """Changes to training pictures. The defaults are R-Adapter's: a crop of 90 to 100 %."""

    crop: tuple[Annotated[float, Field(gt=0.0, le=1.0)], Unit] = (0.9, 1.0)
    """Smallest and largest share of the picture's area that is kept."""
    flip: Unit = 0.0
    rotate: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest rotation in degrees; a rotation goes with a shift of up to 5 %."""
    colour: Unit = 0.0
    """Strength of brightness, contrast and saturation changes; hue changes by a tenth of it."""
    grey: Unit = 0.0
    """Share of pictures turned grey."""

    @model_validator(mode="after")
    def _crop_is_a_range(self) -> Augmentation:
        if self.crop[0] > self.crop[1]:
            raise ValueError("crop is [smallest, largest] share of the area")
        return self


class Data(Section):
    data_root: str | None = None
    """The folder that relative paths start from; None: the working folder. The environment
    variable RADAPTER_DATA and the option --data-root stand above it; a run's recipe has what it was
    trained with."""
    task: Literal["classification", "captions"] = "classification"
    templates: Templates = USUAL_TEMPLATES
    text_length: Annotated[int, Field(ge=3)] | None = None
    """Cut training texts to this many tokens, start and end included; short texts train faster.
    None: the model's own context length."""
    augmentation: Augmentation = Augmentation()
    broken_images: Annotated[int, Field(ge=0)] = 0
    """How many pictures that cannot be read are skipped (and named) before it is an error."""
    orientation: Orientation | None = None
    """`apply` turns photos as their EXIF orientation says, `ignore` does not. None: the convention
    of the source, which is to apply it, but for published sets."""
    transparency: Transparency | None = None
    """What shows through transparent pictures: `white`, `black`, or with `discard` the hidden
    colours. None: the convention of the source, white, but for published sets `discard`."""
    convention: ClassVar[tuple[Orientation, Transparency]] = ("apply", "white")
    """What the source does where a recipe does not say it"""

    identical_classes: IdenticalClasses = "one"
    """How classes of one name are scored; see the type"""

    def prompts(self) -> Templates:
        """The templates that class names go into."""
        return self.templates

    def own_prompts(self) -> Templates | None:
        """Templates that belong to the source, where it has any: they go before a suite's."""
        return None

    # What is asked of every source; those with another answer have it in their own class.

    if TYPE_CHECKING:
        source: str = ""
    no_training: ClassVar[str | None] = None
    """Why it is no training data"""
    licence: ClassVar[Mapping[str, str] | None] = None
    """`name` and `licence` of a source that comes with radapter"""
    may_be_passed_on: ClassVar[bool] = False
    """Whether bundles may have pictures of it in them"""
    resampled_by: ClassVar[str] = "pictures"
    """What intervals are resampled by: pictures, or what the groups of its data sets are called,
    which have the same numbers in all of them"""
    seeded: ClassVar[str | None] = None
    """The setting whose default is the recipe's seed"""
    averaged_over: ClassVar[str | None] = None
    """The setting that names one of several sets, over which papers report means"""

    def in_words(self) -> str:
        """A few words for a column of a table."""
        return self.source

    def published_as(self) -> str | None:
        """What suites call the published set that this is of; None: the user's own data."""
        return None

    def held_out(self) -> Data | None:
        """The pictures that are kept from training; None if none are."""
        return self.model_copy(update={"split": "validation"})

    def for_model_trained_on(self, trained: Data) -> Data | None:
        """What of a suite's data such a model is scored on; None: not on this set, if the suite has
        another of the same source that it is scored on."""
        return self

    def is_set_of(self, trained: Data) -> bool:
        """Whether it is of the set that was trained on, whatever a suite says of its role."""
        return False

    def has_counts_of(self, other: Data) -> bool:
        """Whether it has as many pictures and classes as the same set by another protocol."""
        return True

    @model_validator(mode="after")
    def _templates_have_a_place(self) -> Data:
        if isinstance(self.templates, list) and any(t.count("{}") != 1 for t in self.templates):
            raise ValueError("every template needs exactly one {} for the class name")
        return self


def located(settings: Data, path: str) -> Path:
    """Where a path of the recipe or suite is: absolute as it is, else under the data root."""
    return Path(root_of(settings) or "").expanduser() / Path(path).expanduser()


def root_of(settings: Data) -> str | None:
    """The data root, if there is one."""
    return os.environ.get("RADAPTER_DATA") or settings.data_root


class EmojiData(Data):
    """The built-in set: each concept in eight styles. Splits are by concept."""

    source: Literal["emoji"]
    styles: Annotated[list[str], Field(min_length=1)] = Field(default=["noto"])
    split: Literal["train", "validation", "test", "all"] = "train"
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    captions: list[Literal["name", "keywords", "kind", "class"]] = Field(
        default=["name", "keywords"]
    )
    """Texts of a picture: its name, its keywords in one line, "subgroup: name", "a picture of
    subgroup."."""

    licence = {  # noqa: RUF012
        "name": "radapter's built-in emoji set",
        "licence": "Apache-2.0, MIT, CC-BY-4.0 and Unicode-3.0, by part, and with credit: see "
        "radapter/data/emoji/NOTICE.md in radapter",
    }
    may_be_passed_on = True
    resampled_by = "concepts"

    def in_words(self) -> str:
        return f"emoji {'+'.join(self.styles)}, fold {self.fold}"

    def for_model_trained_on(self, trained: Data) -> Data:
        """The fold that was kept for testing."""
        fold = trained.fold if isinstance(trained, EmojiData) else self.fold
        return self.model_copy(update={"fold": fold})


class HeldOut(Data):
    """Sources without splits of their own: a share of the pictures is held out, by name."""

    hold_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    hold_out_by: Literal["class", "hash"] = "class"
    """`class`: by a hash of the name, but that every class of two pictures or more is on both
    sides; pictures with captions have no classes. `hash`: by that alone, as it was in the first
    versions, whose runs keep it."""
    split: Literal["train", "validation", "all"] = "train"

    def held_out(self) -> Data | None:
        return super().held_out() if self.hold_out else None


class FolderData(HeldOut):
    """One folder per class: ROOT/CLASS NAME/picture.jpg."""

    source: Literal["folder"]
    root: str
    dataset_split: str | None = None
    """Only the pictures in the folder of this name in each class: ROOT/CLASS NAME/train/1.jpg"""
    listed_in: str | None = None
    """Only the pictures that this text file names, one a line, from the root on; without an ending
    it is CLASS NAME/1 for CLASS NAME/1.jpg, and a class number behind it is not read."""
    class_names_in: str | None = None
    """A file with the names of classes whose folders are called by numbers or ids: classes.txt with
    a name a line, the first of class 0, or an id and a name; class_index.json."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> FolderData:
        if self.dataset_split is not None and self.listed_in is not None:
            raise ValueError("choose by dataset_split or by listed_in, not by both")
        return self

    def in_words(self) -> str:
        return f"folder {Path(self.root).name}"


class TableData(HeldOut):
    """A table with a picture and a text (a caption or a class name) in each row: CSV, TSV, JSON
    lines, a JSON list of records, or Parquet (extra `hf`)."""

    source: Literal["table"]
    path: str
    root: str = ""
    """The folder that picture paths are relative to; the table's own folder if empty."""
    image_column: str = "filepath"
    image_ending: str = ""
    """What is added to each cell for the name of a file, as ".jpg" to the ids of Kaggle's tables"""
    text_column: str | Annotated[list[str], Field(min_length=1)] = "title"
    """Several columns: each has a caption of the picture."""
    text_lists: bool = False
    """A cell of text is a JSON list of captions: ["a dog", "a brown dog"]"""
    group_column: str | None = None
    """Rows with the same value here are positives of each other; else rows of one picture are."""
    split_column: str | None = None
    """The column of a table of several splits that says which a row is of"""
    dataset_split: str | None = None
    """With `split_column`: only the rows with this value are taken"""
    columns: list[str] | None = None
    """The names of the columns, if the first line is a row like others"""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """None: a tab for `.tsv` and `.tab`, else a comma. With `|` spaces around a cell do not count,
    as in Kaggle's results.csv of Flickr30K."""
    quoting: Literal["usual", "none"] | None = None
    """`usual`: a cell in quotes may hold separators and line breaks. `none`: quotes are letters
    like others. None: usual, but none where the delimiter is `|`."""
    class_names_in: str | None = None
    """A file with names for class numbers or ids; see the source `folder`"""
    broken_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows without a picture or text are skipped (and named) before it is an error."""

    @model_validator(mode="after")
    def _splits_and_columns(self) -> TableData:
        if (self.split_column is None) != (self.dataset_split is None):
            raise ValueError("split_column and dataset_split go together")
        if self.task == "classification" and not isinstance(self.text_column, str):
            raise ValueError("several text columns are captions: classification takes one")
        return self

    def in_words(self) -> str:
        return f"table {Path(self.path).name}"


class CaptionFilesData(HeldOut):
    """Pictures with a text file of captions beside each (1.jpg and 1.txt), in any folders below the
    root, as img2dataset writes them. Every line is a caption."""

    source: Literal["caption-files"]
    root: str
    caption_ending: Literal[".txt", ".caption"] = ".txt"
    task: Literal["captions"] = "captions"


class InShards(HeldOut):
    captions_in: Annotated[str, Field(pattern=r"^\.[a-z0-9]+(:.+)?$")] | None = None
    """Where a sample's captions are: an extension, or a key of a JSON file, as `.json:caption` of
    img2dataset's shards. None: `.txt`, one a line."""
    shuffle_buffer: Annotated[int, Field(ge=1)] | None = None
    """Shuffle the shards, and samples within a buffer of so many, so that each shard is read nearly
    from start to end, as network disks like it. None: all samples are shuffled, read at random."""
    streams: Annotated[int, Field(ge=1)] = 1
    """With `shuffle_buffer`: how many places in the shards a batch is read from. With a multiple of
    the number of devices, each reads shards of its own; the result does not depend on that."""

    @model_validator(mode="after")
    def _streams_are_of_a_buffer(self) -> InShards:
        if self.streams > 1 and self.shuffle_buffer is None:
            raise ValueError("streams goes with shuffle_buffer")
        return self


class ShardsData(InShards):
    """WebDataset shards: local tar files, each sample a picture and a `.txt` or `.cls`.

    Where a sizes.json lies beside them, as for WebDataset ({"000.tar": 1000, ...}), a shard that it
    names has to hold that many samples: a download that was cut short between two is noticed."""

    source: Literal["shards"]
    shards: str
    """A path or brace pattern, such as data/train-{000..011}.tar."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """How many samples all shards have to hold, before any is held out. None: what sizes.json says,
    or whatever is there."""
    class_names: list[str] | None = None
    """Names for the numbers in `.cls`; needed for classification."""

    def in_words(self) -> str:
        return f"shards {Path(self.shards).name}"


class ClipBenchmarkData(InShards):
    """clip-benchmark's folders of shards: ROOT/SPLIT/{nshards.txt, 0.tar, 1.tar ...}, and beside
    the splits classnames.txt, or dataset_type.txt with the word `retrieval`."""

    convention = PUBLISHED
    source: Literal["clip-benchmark"]
    root: str
    dataset_split: str = "train"
    """The folder of shards below the root; `hold_out` holds out a share of it"""
    templates: Templates | None = None  # type: ignore[assignment]
    """None: the set's own, from the file zeroshot_classification_templates.txt in the root, as
    clip-benchmark takes them; where there is none, a suite's, or "a photo of a {}."."""
    identical_classes: IdenticalClasses = "apart"

    def prompts(self) -> Templates:
        return self.own_prompts() or USUAL_TEMPLATES

    def own_prompts(self) -> Templates | None:
        """Raises BrokenInput for a file that cannot be read or has a line without its one {c}."""
        if self.templates is not None:
            return self.templates
        path = located(self, self.root) / "zeroshot_classification_templates.txt"
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BrokenInput(f"{path} cannot be read: {error}") from None
        # Written as Python formats: {c} is the class name.
        prompts = [line.replace("{c}", "{}") for line in lines if line]
        wrong = next((p for p in prompts if p.count("{}") != 1), None)
        if wrong is not None:
            raise BrokenInput(
                f"{path} has a template without exactly one {{c}} for the class name: '{wrong}'. "
                "Mend it, or give data.templates."
            )
        return prompts or None


class KarpathyData(Data):
    """Karpathy's split files: dataset_flickr30k.json, dataset_coco.json and others of that form."""

    convention = PUBLISHED
    source: Literal["karpathy"]
    path: str
    root: str = ""
    """The pictures' folder; the file's own folder if empty. Flickr30K's pictures lie in it or in
    its folder flickr30k-images, COCO's in its folders train2014 and val2014."""
    split: Literal["train", "validation", "test", "all"] = "train"
    """`train` has COCO's restval too; `validation` is what the file calls val."""
    task: Literal["captions"] = "captions"
    protocol: CaptionProtocol = "vse++"

    def published_as(self) -> str:
        stem = Path(self.path).stem
        return next((name for name in ("coco", "flickr30k") if name in stem), stem)

    def is_set_of(self, trained: Data) -> bool:
        """The name of the file says what set it is."""
        return isinstance(trained, KarpathyData) and Path(trained.path).name == Path(self.path).name


class CocoCaptionsData(HeldOut):
    """COCO's official annotations: captions_train2014.json and others of that form."""

    convention = PUBLISHED
    source: Literal["coco-captions"]
    path: str
    root: str = ""
    """The pictures' folder; if empty the file's own folder, or the one above `annotations`"""
    task: Literal["captions"] = "captions"
    protocol: CaptionProtocol = "vse++"

    def published_as(self) -> str:
        return "coco"
