"""Any checkpoint in, Backbone out: exactly one format must recognise the file, and every tensor is accounted for."""

import hashlib
import pkgutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from mocobench.runtime.errors import UserError
from transfer import sources
from transfer.backbone import Backbone, check_tensors
from transfer.container import Content, open_checkpoint
from transfer.found import Found
from transfer.network import random_backbone

# (bottleneck blocks?, blocks per stage) of the architectures; He et al., arXiv 1512.03385, Table 1.
ARCH_BY_BLOCKS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
}


@dataclass(frozen=True)
class Loaded:
    """A file that was read: its format, its SHA-256, what was found in it, and the backbone that this makes."""

    path: Path
    format: str
    sha256: str
    found: Found
    backbone: Backbone


def load_backbone(path: Path, *, source: str = "auto") -> Backbone:
    """Read a checkpoint of any known format; `source` names the format, `auto` recognises it.

    Raises:
        UserError: the file cannot be read, not exactly one format claims it, or a tensor is missing, unexpected or
            wrong; the message names the file.
    """
    return load(path, source=source).backbone


def load_or_random(name: str, *, seed: int, arch: str = "resnet50") -> Backbone:
    """The backbone in the file `name`, or for `random` a freshly initialised one.

    Raises:
        UserError: as for `load_backbone`.
    """
    return random_backbone(arch, seed) if name == "random" else load_backbone(Path(name))


def load(path: Path, *, source: str = "auto") -> Loaded:
    """As `load_backbone`, with everything that is known about the file.

    Raises:
        UserError: as for `load_backbone`.
    """
    path = Path(path)
    content = open_checkpoint(path)
    with ThreadPoolExecutor(max_workers=1) as pool:  # hashing hundreds of megabytes takes as long as all the rest
        sha256 = pool.submit(file_sha256, path)
        format_name, module = choose_source(content, path, source)
        found = module.read(content, path)
        tensors = _canonical_tensors(found, path)
        _refuse_small_stem(tensors, path)
        arch = _deduce_arch(tensors, found, path)
        check_tensors(arch, tensors, str(path))
        provenance = found.provenance
        if provenance.file_sha256 is None:
            provenance = replace(provenance, file_sha256=sha256.result())
        backbone = Backbone(arch, tensors, found.input, provenance, found.stride_in_1x1)
        if found.declared_digest not in (None, backbone.digest):
            raise UserError(
                f"{path}: expected weights with the digest {found.declared_digest}, found {backbone.digest}: "
                "they were changed after they were written; convert the original checkpoint again"
            )
        return Loaded(path, format_name, sha256.result(), found, backbone)


def source_formats() -> dict[str, ModuleType]:
    """The formats that can be read, by name: the modules in transfer/sources."""
    names = sorted(module.name for module in pkgutil.iter_modules(sources.__path__))
    return {name: import_module(f"{sources.__name__}.{name}") for name in names}


def choose_source(content: Content, path: Path, source: str = "auto") -> tuple[str, ModuleType]:
    """The one format that claims the content.

    Raises:
        UserError: none or several claim it, or `source` is none of them.
    """
    formats = source_formats()
    if source != "auto" and source not in formats:
        raise UserError(f"--from {source}: expected auto or one of {', '.join(formats)}")
    claiming = {name: module for name, module in formats.items() if module.claims(content)}
    if source != "auto" and source in claiming:
        return source, claiming[source]
    if source == "auto" and len(claiming) == 1:
        return next(iter(claiming.items()))
    if len(claiming) > 1:
        raise UserError(f"{path}: expected one format, found {' and '.join(claiming)}; choose one with --from")
    expected = f"the format {source}" if source != "auto" else f"a checkpoint of one of {', '.join(formats)}"
    found = f"the format {', '.join(claiming)}" if claiming else f"the keys {_some_keys(content)}"
    raise UserError(f"{path}: expected {expected}, found {found}; name another file")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha256.update(block)
    return sha256.hexdigest()


def _some_keys(content: Content) -> str:
    """A few keys of the file, with the first ones below a key that holds a dictionary."""
    shown = []
    for key in list(content.values)[:5]:
        inner = [repr(name) for name in list(content.section(key))[:3]]
        shown.append(f"{key!r} (with {', '.join(inner)}, ...)" if inner else repr(key))
    more = len(content.values) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")


def _canonical_tensors(found: Found, path: Path) -> dict[str, torch.Tensor]:
    """The mapped tensors under canonical names, copied so that nothing depends on the file any more."""
    accounted = found.canonical.keys() | found.dropped.keys()
    assert found.own.keys() <= accounted, found.own.keys() - accounted
    not_tensors = [name for name in found.canonical if not isinstance(found.own[name], torch.Tensor)]
    if not_tensors:
        raise UserError(f"{path}: expected tensors, found other values under {', '.join(not_tensors[:3])}")
    tensors = {
        ours: found.own[own].detach().clone(memory_format=torch.contiguous_format)
        for own, ours in found.canonical.items()
    }
    if len(tensors) < len(found.canonical):
        twice = [name for name, count in Counter(found.canonical.values()).items() if count > 1]
        raise UserError(f"{path}: expected each tensor once, found {', '.join(twice[:3])} under two names")
    return tensors


def _refuse_small_stem(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A canonical ResNet has one stem; with another, benchmarks and formats would use the weights wrongly."""
    stem = tensors.get("conv1.weight")
    if stem is not None and tuple(stem.shape[2:]) == (3, 3):
        raise UserError(
            f"{path}: expected a ResNet with the 7x7 stem that detectors and other formats know, found the 3x3 stem "
            "for pictures of 32 pixels; such a network is measured while it is pretrained, with --knn-every"
        )


def _deduce_arch(tensors: dict[str, torch.Tensor], found: Found, path: Path) -> str:
    """The architecture that the blocks' names tell; what the file says of itself must agree."""
    blocks = {tuple(name.split(".")[:2]) for name in tensors if name.startswith("layer")}
    per_stage = tuple(sum(stage == f"layer{number}" for stage, _ in blocks) for number in (1, 2, 3, 4))
    is_bottleneck = any(name.endswith(".conv3.weight") for name in tensors)
    arch = ARCH_BY_BLOCKS.get((is_bottleneck, per_stage))
    if arch is None:
        raise UserError(
            f"{path}: expected one of {', '.join(ARCH_BY_BLOCKS.values())}, found {list(per_stage)} "
            f"{'bottleneck' if is_bottleneck else 'basic'} blocks"
        )
    if found.declared_arch not in (None, arch):
        raise UserError(f"{path}: expected the {found.declared_arch} it says it is, found the tensors of a {arch}")
    return arch
