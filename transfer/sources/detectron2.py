"""Weight pickles for Detectron2 that this project or the MoCo authors' converter wrote.

{"model": {"stem.conv1.weight": float32 array, ...}, "__author__": text, "matching_heuristics": True}
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mocobench.runtime.errors import UserError
from transfer.backbone import IMAGENET_RGB, Provenance
from transfer.container import Content
from transfer.detectron2_names import canonical_name
from transfer.features import DETECTRON2
from transfer.found import Found
from transfer.metadata import KEY, parse_metadata

SUMMARY = "weight pickle for Detectron2, by this project or by the MoCo authors' converter"
# The format does not say how pixels are prepared, so the file's author must be one whose convention is known.
AUTHORS = {"MOCO": IMAGENET_RGB, "torchvision": IMAGENET_RGB}


def claims(content: Content) -> bool:
    """`model` holds `stem.conv1.weight` and a first block under Detectron2's names."""
    model = content.section("model")
    return content.container == "pickle" and "stem.conv1.weight" in model and "res2.0.conv1.weight" in model


def read(content: Content, path: Path) -> Found:
    """The trunk; the official converter's stray projection head `stem.fc.*` is dropped.

    Raises:
        UserError: an author whose input convention is not known, or metadata that this project did not write.
    """
    own = {name: _tensor(value) for name, value in content.section("model").items()}
    dropped = {name: "projection head or classifier" for name in own if name.startswith("stem.fc.")}
    canonical = {name: _canonical(name) for name in own if name not in dropped}
    dropped |= content.beside("model", "__author__", "matching_heuristics")
    author = content.values.get("__author__")
    if isinstance(author, str) and author.startswith(f"{KEY} "):
        metadata = parse_metadata(author.split(" ", 2)[-1], path)
        return Found(own, DETECTRON2, canonical, dropped, **vars(metadata))
    if author not in AUTHORS:
        raise UserError(
            f"{path}: expected weights by {KEY}, {' or '.join(AUTHORS)}, whose input convention is known, "
            f"found __author__ {author!r}; convert the original checkpoint with mocobench"
        )
    return Found(
        own=own,
        spelling=DETECTRON2,
        canonical=canonical,
        dropped=dropped,
        input=AUTHORS[author],
        provenance=Provenance(source=path.name, format="detectron2", method="MoCo" if author == "MOCO" else None),
    )


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _canonical(name: str) -> str:
    try:
        return canonical_name(name)
    except ValueError:
        return name
