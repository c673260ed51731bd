"""Weight pickles for Detectron2 that this project or the converters of known authors wrote.

{"model": {"stem.conv1.weight": float32 array, ...}, "__author__": text, "matching_heuristics": True}
"""

from dataclasses import replace
from pathlib import Path

from mocobench.runtime.errors import UserError
from transfer.container import Content
from transfer.detectron2_names import DETECTRON2_NAMES
from transfer.features import DETECTRON2
from transfer.found import Found
from transfer.layout import Layout
from transfer.metadata import KEY, with_metadata

SUMMARY = "weight pickle for Detectron2, by this project or the converter of MoCo, PixPro, PyContrast or DenseCL"
LAYOUTS = (
    Layout(
        format="detectron2",
        method=None,
        sections=("model",),
        encoders={"backbone": ""},
        heads={"stem.fc.": "projection head or classifier"},
        containers=("pickle",),
        names=DETECTRON2_NAMES,
        spelling=DETECTRON2,
    ),
)
# The format does not say how pixels are prepared, so the file's author must be one whose convention is known: all of
# these are torchvision's. Author -> method
AUTHORS = {"MOCO": "MoCo", "PixPro": "PixPro", "Yonglong": "PyContrast", "OpenSelfSup": None, "torchvision": None}


def finish(found: Found, content: Content, path: Path) -> Found:
    """The method, or whatever this project wrote into the author's place.

    Raises:
        UserError: an author whose input convention is not known, or metadata that this project did not write.
    """
    for name in ("__author__", "matching_heuristics"):
        found.dropped.pop(name, None)
    author = content.values.get("__author__")
    if isinstance(author, str) and author.startswith(f"{KEY} "):
        return with_metadata(found, author.split(" ", 2)[-1], path)
    if author not in AUTHORS:
        raise UserError(
            f"{path}: expected weights by {KEY}, {' or '.join(AUTHORS)}, whose input convention is known, "
            f"found __author__ {author!r}; convert the original checkpoint with mocobench"
        )
    return replace(found, provenance=replace(found.provenance, method=AUTHORS[author]))
