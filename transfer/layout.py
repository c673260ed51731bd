"""Where a format keeps a ResNet in its file, as data: most formats are one `Layout` and nothing else."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mocobench.runtime.errors import UserError
from transfer.backbone import IMAGENET_RGB, InputSpec, Provenance
from transfer.container import Content
from transfer.features import TORCHVISION, Spelling
from transfer.found import Found
from transfer.names import TORCHVISION_NAMES, NameTable

# Modules that wrap others for distribution or compilation add their name; weights are the same without it.
WRAPPERS = ("module", "_orig_mod")
LIGHTNING_KEY = "pytorch-lightning_version"  # at the top of every file that PyTorch Lightning saves


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A format by its names, all of them without what wrappers add.

    A file is in the format if one of `sections` (slashes between keys, nothing for the file itself; tried in order) has
    the first convolutions of the first encoder, a name that starts with each of `marks` and none that starts with one
    of `lacks`, and the file has the keys `beside` and none of `not_beside` at its top or in its header.

    `encoders` gives the start of each network's names (or `section:start` where it has a section of its own); the
    first is the one that its authors evaluate. `heads` are starts of names within an encoder and `dropped` within the
    section, with the reason to drop them. `first_epoch` is what the format calls the first epoch done.
    """

    format: str
    method: str | None
    sections: tuple[str, ...]
    encoders: Mapping[str, str]
    heads: Mapping[str, str] = field(default_factory=lambda: {"fc.": "classifier or projection head"})
    dropped: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    not_beside: tuple[str, ...] = ()
    containers: tuple[str, ...] = ("torch",)
    names: NameTable = TORCHVISION_NAMES
    spelling: Spelling = TORCHVISION
    input: InputSpec = IMAGENET_RGB
    small_stem: str = "-cifar"
    stride_in_1x1: bool = False
    first_epoch: int = 1

    def claims(self, content: Content) -> bool:
        """Whether the content of a file is in this format, by its keys alone."""
        return content.container in self.containers and self.section(content) is not None

    def section(self, content: Content) -> str | None:
        """The section that the weights are in, None if the file is not in this format."""
        keys = content.values.keys() | content.header.keys()
        if not keys.issuperset(self.beside) or not keys.isdisjoint(self.not_beside):
            return None
        start = next(iter(self.encoders.values())).rpartition(":")[2]
        first = [start + self.names.theirs(name) for name in ("conv1.weight", "layer1.0.conv1.weight")]
        for section in self.sections:
            names = [unwrapped(name) for name in content.section(section)]
            starts_found = all(any(name.startswith(mark) for name in names) for mark in self.marks)
            if set(first) <= set(names) and starts_found and not any(name.startswith(self.lacks) for name in names):
                return section
        return None

    def read(self, content: Content, path: Path, encoder: str | None = None) -> Found:
        """The weights of one encoder, by default the first; `content` must be in this format.

        Raises:
            UserError: the file has nothing of the encoder.
        """
        first = next(iter(self.encoders))
        encoder = encoder or first
        claimed = self.section(content)
        assert claimed is not None
        own_section, _, start = self.encoders[encoder].rpartition(":")
        section = own_section or claimed
        own = {name: _tensor(value) for name, value in content.section(section).items()}
        found = Found(
            own=own,
            in_network={},
            spelling=self.spelling,
            canonical={},
            dropped={},
            input=self.input,
            provenance=Provenance(
                path.name,
                self.format,
                encoder=encoder if encoder != first else None,
                method=self.method,
                epochs=_epochs(content, self.first_epoch),
            ),
            encoder=encoder if len(self.encoders) > 1 else None,
            small_stem=self.small_stem,
            stride_in_1x1=self.stride_in_1x1,
            declared_arch=_text(content.values.get("arch")),
        )
        self._sort(found, encoder, start)
        if not any(unwrapped(name).startswith(start) for name in found.canonical):
            raise UserError(
                f"{path}: expected the encoder {encoder}, found no such tensors in the file; leave --encoder out"
            )
        found.dropped.update(self._other_parts(content, section))
        return found

    def _sort(self, found: Found, encoder: str, start: str) -> None:
        """Map every name of the section or drop it with the reason."""
        heads = {start + head: reason for head, reason in self.heads.items()}
        others = {s: f"{other} encoder" for other, s in self.encoders.items() if other != encoder and ":" not in s}
        for name in found.own:
            clean = unwrapped(name)
            # The other parts may share the beginning of their names with the chosen encoder, but not all of its own.
            is_in_network = start != "" and clean.startswith(start)
            reasons = heads if is_in_network else heads | others | dict(self.dropped)
            reason = next((reason for begin, reason in reasons.items() if clean.startswith(begin)), None)
            if reason is not None:
                found.dropped[name] = reason
                continue
            theirs = clean.removeprefix(start)
            found.canonical[name] = self._canonical(theirs) if clean.startswith(start) else name
            found.in_network[name] = theirs

    def _canonical(self, name: str) -> str:
        try:
            return self.names.ours(name)
        except ValueError:
            return name

    def _other_parts(self, content: Content, section: str) -> dict[str, str]:
        top = section.split("/")[0]
        encoder_of = {s.rpartition(":")[0]: name for name, s in self.encoders.items() if ":" in s}
        parts = content.beside(top, "epoch", "arch") if top else {}
        return {name: f"{encoder_of[name]} encoder" if name in encoder_of else why for name, why in parts.items()}

    def example(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """What a file of this format holds whose encoders all have the canonical `tensors`, with a bit of all else."""
        has_place = [name for name in tensors if name.rpartition(".")[2] in self.names.norms]
        trunk = {self.names.theirs(name): tensors[name] for name in has_place}
        content: dict[str, Any] = {key: {} for key in self.beside}
        for where in self.encoders.values():
            own_section, _, start = where.rpartition(":")
            section = content
            for key in filter(None, (own_section or self.sections[0]).split("/")):
                section = section.setdefault(key, {})
            section |= {start + name: tensor for name, tensor in trunk.items()}
            begins = [start + head for head in self.heads] + list(self.dropped)
            section |= {f"{begin}weight": torch.zeros(1) for begin in begins}
        return content


def unwrapped(name: str) -> str:
    """A tensor's name without what wrappers add, wherever it stands: `encoder.module.conv1.weight`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _tensor(value: Any) -> Any:
    is_known = isinstance(value, np.ndarray) and value.dtype.kind in "fi"
    if not is_known:
        return value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arrays of a file are read-only, and copied before anybody could write
        return torch.from_numpy(value)


def _epochs(content: Content, first_epoch: int) -> int | None:
    """Epochs that were trained: by `epoch`, or by `epoch` in `meta`, as OpenMMLab's runners have it."""
    epoch = content.values.get("epoch", content.section("meta").get("epoch"))
    return epoch + 1 - first_epoch if type(epoch) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
