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
from transfer.arch import DEPTHS, NAME, deduce_arch
from transfer.backbone import Backbone, InputSpec, check_tensors
from transfer.container import Content, open_checkpoint
from transfer.found import Found
from transfer.half_precision import widen
from transfer.layout import Layout
from transfer.network import random_backbone
from transfer.released import candidates, recognise
from transfer.suspicions import (
    classifier_shape,
    suspicious_classifier,
    suspicious_statistics,
    unusual_assumption,
)


@dataclass(frozen=True)
class Loaded:
    """A file that was read: its format, its SHA-256, what was found in it, and the backbone that this makes.

    `num_classes` are those of the file's linear classifier, None where it has none. `warnings` say what is legal but
    suspicious.
    """

    path: Path
    format: str
    sha256: str
    found: Found
    backbone: Backbone
    num_classes: int | None
    warnings: tuple[str, ...]


def load_backbone(
    path: Path, *, source: str = "auto", encoder: str | None = None, pixels: InputSpec | None = None
) -> Backbone:
    """Read a checkpoint of any known format; `source` names the format, `auto` recognises it.

    Where a file holds two encoders, such as a query and a key encoder, `encoder` chooses; None is the one that its
    authors evaluate. `pixels` takes the place of the input convention that the format lets one assume.

    Raises:
        UserError: the file cannot be read, not exactly one format claims it, it states its own input convention and
            `pixels` another, or a tensor is missing, unexpected or wrong; the message names the file.
    """
    return load(path, source=source, encoder=encoder, pixels=pixels).backbone


def load_or_random(
    name: str,
    *,
    seed: int,
    arch: str = "resnet50",
    source: str = "auto",
    encoder: str | None = None,
    pixels: InputSpec | None = None,
) -> tuple[Backbone, tuple[str, ...]]:
    """The backbone in the file `name`, read as `load_backbone` does, with the warnings about it, or for `random` a
    freshly initialised one.

    Raises:
        UserError: as for `load_backbone`.
    """
    if name == "random":
        return random_backbone(arch, seed), ()
    loaded = load(Path(name), source=source, encoder=encoder, pixels=pixels)
    return loaded.backbone, loaded.warnings


def load(path: Path, *, source: str = "auto", encoder: str | None = None, pixels: InputSpec | None = None) -> Loaded:
    """As `load_backbone`, with everything that is known about the file.

    Raises:
        UserError: as for `load_backbone`.
    """
    path = Path(path)
    content = open_checkpoint(path)
    with ThreadPoolExecutor(max_workers=2) as pool:  # hashing hundreds of megabytes takes as long as all the rest
        sha256 = pool.submit(file_hash, path, "sha256")
        format_name, module, layout = choose_source(content, path, source)
        _check_encoder(encoder, layout, path)
        found = layout.read(content, path, encoder)
        if hasattr(module, "finish"):
            found = module.finish(found, content, path)
        if pixels is not None:
            found = _with_pixels(found, pixels, path)
        # An MD5 takes longer than a SHA-256: it is computed beside it, of files alone that authors may have released.
        released = candidates(found.provenance, getattr(module, "RELEASED", ()))
        md5 = pool.submit(file_hash, path, "md5") if released else None
        classifier = classifier_shape(found)
        del content  # so that each tensor of the file can be given up as it is copied
        arch, tensors, stored_as = _canonical_tensors(found, path)
        provenance = found.provenance
        if md5 is not None:
            provenance = recognise(provenance, md5.result(), released)
        if provenance.file_sha256 is None:
            provenance = replace(provenance, file_sha256=sha256.result(), stored_as=stored_as)
        backbone = Backbone(arch, tensors, found.input, provenance, found.stride_in_1x1)
        if found.declared_digest not in (None, backbone.digest):
            raise UserError(
                f"{path}: expected weights with the digest {found.declared_digest}, found {backbone.digest}: "
                "they were changed after they were written; convert the original checkpoint again"
            )
        warnings = (
            *found.warnings,
            *unusual_assumption(found, backbone),
            *suspicious_statistics(backbone),
            *suspicious_classifier(classifier, backbone),
        )
        num_classes = classifier[0] if classifier else None
        return Loaded(path, format_name, sha256.result(), found, backbone, num_classes, warnings)


def source_formats() -> dict[str, ModuleType]:
    """The formats that can be read, by name: the modules in transfer/sources."""
    names = sorted(module.name for module in pkgutil.iter_modules(sources.__path__))
    return {name: import_module(f"{sources.__name__}.{name}") for name in names}


def choose_source(content: Content, path: Path, source: str = "auto") -> tuple[str, ModuleType, Layout]:
    """The one format that claims the content, its module, and the one of its layouts that does.

    Raises:
        UserError: none or several claim it, or `source` is none of them.
    """
    formats = source_formats()
    if source != "auto" and source not in formats:
        raise UserError(f"--from {source}: expected auto or one of {', '.join(formats)}")
    claims = [(name, layout) for name, module in formats.items() for layout in module.LAYOUTS if layout.claims(content)]
    chosen = [(name, layout) for name, layout in claims if source in ("auto", name)]
    if len(chosen) == 1:
        name, layout = chosen[0]
        return name, formats[name], layout
    claiming = [name for name, _ in claims]
    if len(chosen) > 1:
        raise UserError(f"{path}: expected one format, found {' and '.join(claiming)}; choose one with --from")
    expected = f"the format {source}" if source != "auto" else f"a checkpoint of one of {', '.join(formats)}"
    if not claiming and (start := _start_of_all_names(content)) is not None:
        raise UserError(
            f"{path}: expected {expected}, found the names of a ResNet of torchvision that begin with {start!r}; "
            "torch.save a dictionary of these tensors without that beginning"
        )
    found = f"the format {', '.join(claiming)}" if claiming else f"the keys {_some_keys(content)}"
    raise UserError(f"{path}: expected {expected}, found {found}; name another file")


def _check_encoder(encoder: str | None, layout: Layout, path: Path) -> None:
    if encoder is not None and encoder not in layout.encoders:
        raise UserError(
            f"{path}: expected --encoder {' or '.join(layout.encoders)}, which are in a {layout.format} file, "
            f"found {encoder}"
        )


def _with_pixels(found: Found, pixels: InputSpec, path: Path) -> Found:
    if found.declared_digest is not None and pixels != found.input:
        raise UserError(
            f"{path}: --mean and --std: expected a file that does not state its input convention, found "
            f"{found.input.to_text()}; leave them out"
        )
    return replace(found, input=pixels)


def file_hash(path: Path, algorithm: str) -> str:
    """The `sha256` or `md5` of a file's bytes, as hexadecimal text."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _start_of_all_names(content: Content) -> str | None:
    """What stands before torchvision's names of a ResNet, in a file of no known format."""
    for section in ("", "state_dict", "model"):
        names = content.section(section)
        for name in names:
            start = name.removesuffix("layer1.0.conv1.weight")
            if start not in ("", name) and f"{start}conv1.weight" in names:
                return start
    return None


def _some_keys(content: Content) -> str:
    """A few keys of the file, with the first ones below a key that holds a dictionary."""
    shown = []
    for key in list(content.values)[:5]:
        inner = [repr(name) for name in list(content.section(key))[:3]]
        shown.append(f"{key!r} (with {', '.join(inner)}, ...)" if inner else repr(key))
    more = len(content.values) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")


def _canonical_tensors(found: Found, path: Path) -> tuple[str, dict[str, torch.Tensor], str | None]:
    """The architecture, its tensors copied so that nothing depends on the file any more, in `found.own` too, and the
    half precision that they had in the file.

    Everything is checked before it is copied: a small file can describe tensors that fill any memory.
    """
    accounted = found.canonical.keys() | found.dropped.keys()
    assert found.own.keys() <= accounted, found.own.keys() - accounted
    not_tensors = [name for name in found.canonical if not _is_plain(found.own[name])]
    if not_tensors:
        raise UserError(f"{path}: expected tensors, found other values under {', '.join(not_tensors[:3])}")
    mapped = {ours: found.own[own] for own, ours in found.canonical.items()} | found.implied
    if len(mapped) < len(found.canonical) + len(found.implied):
        twice = [name for name, count in Counter(found.canonical.values()).items() if count > 1]
        raise UserError(f"{path}: expected each tensor once, found {', '.join(twice[:3])} under two names")
    described, size = sum(tensor.nbytes for tensor in mapped.values()), path.stat().st_size
    if described > size + sum(tensor.nbytes for tensor in found.implied.values()):
        raise UserError(
            f"{path}: expected tensors that fit in a file of {size} bytes, found some that describe {described} bytes; "
            "download or write it again"
        )
    stored_as = widen(found.own, found.canonical)
    mapped |= {ours: found.own[own] for own, ours in found.canonical.items()}
    arch = _deduce_arch(mapped, found, path)
    check_tensors(arch, mapped, str(path))
    del mapped
    for name in found.own.keys() - found.canonical.keys():
        del found.own[name]
    tensors = dict(found.implied)
    for own, ours in found.canonical.items():
        tensors[ours] = found.own[own].detach().clone(memory_format=torch.contiguous_format)
        found.own[own] = tensors[ours]
    return arch, tensors, stored_as


def _is_plain(value: object) -> bool:
    is_dense = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized
    return is_dense and value.device.type == "cpu"  # type: ignore[attr-defined]


def _deduce_arch(tensors: dict[str, torch.Tensor], found: Found, path: Path) -> str:
    """The architecture that names and shapes tell; what the file says of itself must agree."""
    arch = deduce_arch({name: tuple(tensor.shape) for name, tensor in tensors.items()}, found.small_stem)
    if isinstance(arch, str):
        blocks = ", ".join(f"{list(blocks)}" for _, blocks in DEPTHS.values())
        raise UserError(f"{path}: expected a ResNet of {blocks} blocks in its stages, found {arch}")
    # Checkpoints name torchvision's network, whatever stem was put in the place of its own.
    declared = (found.declared_arch or "").split("-")[0]
    if NAME.fullmatch(declared) and declared != arch.name.split("-")[0]:
        raise UserError(f"{path}: expected the {declared} it says it is, found the tensors of a {arch.name}")
    return arch.name
