"""Where the pictures of a table lie: its folder or one beside it, and the ending of their names."""

from __future__ import annotations

from pathlib import Path

from radapter.data.clip_files import bare, find_clips, is_clip
from radapter.data.listing import names_in_folder
from radapter.data.pixels import IMAGE_EXTENSIONS, is_picture
from radapter.data.sources.table import TableData, picture_path
from radapter.errors import BrokenInput
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import Doubt, Split, split_of_name

SAMPLE = 200  # pictures that are looked for


def find_pictures(
    spot: Spot, wanted: Wanted, keys: list[str], split: Split | None, found: Found, clips: bool
) -> Spot:
    """The folder that they lie in. `root` is put into the data section where it is not the table's,
    and `image_ending` where cells have none.

    Args:
        keys: the pictures as the table writes them.
        split: of the table or of its rows that were chosen, if that is known.
        clips: whether they are clips, which have any ending or are folders of frames.

    Raises:
        BrokenInput: none of them is there.
    """
    names = keys[:: max(1, len(keys) // SAMPLE)]
    above = spot.above
    if wanted.pictures is not None:
        places = [wanted.pictures]
    else:
        beside = sorted(p.name for p in above.path.iterdir() if p.is_dir())
        places = [
            above,
            *(Spot((Path(above.written) / n).as_posix(), above.path / n) for n in beside),
        ]
    with_ending = sum(map(is_picture, names)) > len(names) / 2
    counts: dict[Spot, int] = {}
    ending_at: dict[Spot, str] = {}  # the one that finds most
    for place in places:
        endings = [""] if with_ending or clips else ["", *_endings_in(place.path)]
        there = _clips_there if clips else _there
        by_ending = {ending: there(place.path, names, ending) for ending in endings}
        ending_at[place] = max(endings, key=lambda ending: by_ending[ending])
        counts[place] = by_ending[ending_at[place]]
    most = max(counts.values())
    if clips and not most:  # a clip may lie deeper, if one alone is called so
        deeper = find_clips(places[0].path, names, len(names))
        most = counts[places[0]] = sum((places[0].path / name).exists() for name in deeper)
    if names and not most:
        items = "videos" if clips else "pictures"
        raise BrokenInput(
            f"None of {len(names)} {items} of {spot.path} ({names[0]}, ...) is in "
            f"{' or '.join(str(p.path) for p in places[:4])}. Name their folder with --pictures."
        )
    place = _place(spot, counts, split, found) if most else places[0]
    if wanted.pictures is not None or place is not above:
        found.data["root"] = place.written
    if ending_at[place]:
        found.data["image_ending"] = ending_at[place]
        found.taken["image_ending"] = "the table's names have no ending"
    return place


def _place(spot: Spot, numbers: dict[Spot, int], split: Split | None, found: Found) -> Spot:
    """The place with most of the pictures; of folders called like splits that of the table's.

    Numbered pictures (1.png, ...) are there in each split: the folder of another one must not be
    taken, though it may have more of the names.
    """
    places = list(numbers)
    most = max(numbers.values())
    best = [place for place in places if numbers[place] == most]
    if best[0] is places[0]:  # right beside the table, or the one that the user named
        return best[0]
    rivals = [place for place in places[1:] if 2 * numbers[place] >= most]
    splits = {place: split_of_name(place.path.name) for place in rivals}
    own = [place for place in rivals if split and splits[place] == split]
    if len(own) == 1 and (len(rivals) == 1 or "split_column" not in found.data):
        return own[0]
    others = {other for other in splits.values() if other not in (None, split)}
    if len(best) == 1 and not (others and (split or len(rivals) > 1)):
        return best[0]
    named = ", ".join(place.written for place in rivals[:5])
    example = next((place for place in rivals if splits[place] != "test"), rivals[0])
    raise Doubt(
        f"Pictures called as {spot.path} calls them are in {named}: say which are meant, as in "
        f"--pictures {example.written}, or write the folder into the table's names."
    )


def _there(folder: Path, names: list[str], ending: str) -> int:
    settings = TableData(source="table", path="", image_ending=ending)
    return sum((folder / picture_path(folder, name, settings)).is_file() for name in names)


def _clips_there(folder: Path, names: list[str], _ending: str) -> int:
    """Those that are there with whatever ending, or as a folder of frames."""
    beside: dict[Path, set[str]] = {}
    count = 0
    for name in names:
        path = folder / bare(name)
        if path.parent not in beside:
            around = names_in_folder(path.parent)
            beside[path.parent] = {bare(n) for n in around if is_clip(n) or not is_picture(n)}
        count += path.name in beside[path.parent] or (folder / name).exists()
    return count


def _endings_in(folder: Path) -> list[str]:
    """The endings of pictures in a folder, as they are written there."""
    if not folder.is_dir():
        return []
    found = {path.suffix for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS}
    return sorted(found)
