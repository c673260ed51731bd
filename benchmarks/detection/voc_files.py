"""Where a VOC data set keeps the files of a split: a VOCdevkit of year folders, or one year folder."""

from dataclasses import dataclass
from pathlib import Path

from mocobench.runtime.errors import UserError
from mocobench.runtime.images import IMAGE_SUFFIXES

YEAR_FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")


@dataclass(frozen=True)
class VocFiles:
    """The image and the annotation of one line of a split file."""

    image_id: str
    image: Path
    annotation: Path


def list_voc_split(data: Path, split: str) -> list[VocFiles]:
    """The files of a split in the order of its list.

    Args:
        data: a VOCdevkit (holds `VOC2007`, `VOC2012`, ...) or one such year folder.
        split: `YEAR/NAME` (`2007/trainval`) below a devkit, whose image ids start with `YEAR/`; or `NAME` in
            the year folder itself or in the devkit's only one.

    Raises:
        UserError: a folder, the split file, an image or an annotation is missing, or the list is empty or repeats.
    """
    year, _, name = split.rpartition("/")
    folder = find_year_folder(data, year)
    for needed in YEAR_FOLDERS:
        if not (folder / needed).is_dir():
            raise UserError(f"{folder}: expected the VOC folders {', '.join(YEAR_FOLDERS)}, found no {needed}")
    stems = _read_split(folder / "ImageSets/Main" / f"{name}.txt")
    images = _files_by_stem(folder / "JPEGImages", IMAGE_SUFFIXES)
    annotations = _files_by_stem(folder / "Annotations", (".xml",))
    files = []
    for stem in stems:
        for found, below, kind in ((images, "JPEGImages", "an image"), (annotations, "Annotations", "an annotation")):
            if stem not in found:
                listed_in = folder / "ImageSets/Main" / f"{name}.txt"
                raise UserError(f"{folder / below / stem}: expected {kind} of the list {listed_in}, found no such file")
        files.append(VocFiles(f"{year}/{stem}" if year else stem, images[stem], annotations[stem]))
    return files


def find_year_folder(data: Path, year: str) -> Path:
    """The folder `VOC{year}` of a devkit; without a year `data` itself, or the only year folder below it.

    Raises:
        UserError: there is no such folder, or more than one and no year to choose by.
    """
    if not data.is_dir():
        raise UserError(f"{data}: expected a VOCdevkit or one of its year folders, found no such folder")
    years = sorted(entry for entry in data.glob("VOC*") if entry.is_dir())
    names = ", ".join(entry.name for entry in years) or "none"
    if year:
        if not (data / f"VOC{year}").is_dir():
            raise UserError(f"{data}: expected a VOCdevkit that holds VOC{year}, found the year folders: {names}")
        return data / f"VOC{year}"
    if any((data / part).is_dir() for part in YEAR_FOLDERS):
        return data
    if not years:
        folders = ", ".join(YEAR_FOLDERS)
        raise UserError(f"{data}: expected a VOCdevkit (VOC2007, ...) or a year folder ({folders}), found neither")
    if len(years) > 1:
        raise UserError(f"{data}: expected one VOC year folder, found {names}; give --data one of them")
    return years[0]


def _read_split(path: Path) -> list[str]:
    """Image names, one per line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        others = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise UserError(f"{path}: expected the list of a split, found no such file; splits there: {others}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a list of image names, found {error}") from error
    stems = [line.strip() for line in lines if line.strip()]
    if not stems:
        raise UserError(f"{path}: expected one image name per line, found an empty list")
    if len(set(stems)) < len(stems):
        twice = next(stem for i, stem in enumerate(stems) if stem in stems[:i])
        raise UserError(f"{path}: expected every image once, found {twice} twice; remove one of the two")
    return stems


def _files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files whose suffix, in lower case, is one of `suffixes`, by name without it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes:
            if path.stem in found:
                raise UserError(f"{folder}: expected one file per image, found {found[path.stem].name} and {path.name}")
            found[path.stem] = path
    return found
