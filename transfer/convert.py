"""Convert a checkpoint, prove that the function was kept, and write down what became of every tensor."""

import json
import pkgutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import mocobench
from mocobench.runtime.errors import UserError
from mocobench.runtime.files import atomic_file, write_text
from transfer import targets
from transfer.backbone import InputSpec, is_counter
from transfer.inspect import widened_text
from transfer.load import Loaded, load
from transfer.verify import Proof, Witness, prove

RECORD_SUFFIX = ".json"
NO_WITNESSES: Mapping[str, Witness] = MappingProxyType({})


@dataclass(frozen=True)
class ConversionReport:
    """What was read, what was written, and the proof that both are the same function."""

    source: Loaded
    target_path: Path
    target_format: str
    target_sha256: str
    proof: Proof

    @property
    def record_path(self) -> Path:
        """Where the record of the conversion is: beside the target."""
        return record_path(self.target_path)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values; files are named without their folders."""
        backbone, source = self.source.backbone, self.source
        return {
            "mocobench": mocobench.__version__,
            "source": {
                "name": source.path.name,
                "format": source.format,
                "sha256": source.sha256,
                "encoder": source.found.encoder,
            },
            "target": {"name": self.target_path.name, "format": self.target_format, "sha256": self.target_sha256},
            "arch": backbone.arch,
            "digest": backbone.digest,
            "input": backbone.input.to_dict(),
            "stride_in_1x1": backbone.stride_in_1x1,
            "provenance": backbone.provenance.to_dict(),
            "mapped": count_by_kind(source),
            "dropped": source.found.dropped,
            "num_classes": source.num_classes,
            "warnings": list(source.warnings),
            "proof": self.proof.to_dict(),
        }


def convert(
    src: Path,
    dst: Path,
    *,
    to: str,
    source: str = "auto",
    encoder: str | None = None,
    pixels: InputSpec | None = None,
    witnesses: Mapping[str, Witness] = NO_WITNESSES,
) -> ConversionReport:
    """Convert `src` to the format `to` at `dst`, with the record of the conversion in `dst` + `.json`.

    `source`, `encoder` and `pixels` are as for `load_backbone`. `witnesses` run the target for the proof besides this
    stage's own ways, by what they are called in it.

    Both files are written under temporary names; the proof reads the target back, and only then are they renamed.

    Raises:
        UserError: no such target format, `src` is not a checkpoint that `load_backbone` reads, `dst` cannot be
            written, or the features before and after differ. Nothing is left at `dst` that was not there before.
    """
    src, dst = Path(src), Path(dst)
    target = _choose_target(to)
    _check_destination(src, dst)
    loaded = load(src, source=source, encoder=encoder, pixels=pixels)
    with atomic_file(dst) as written:
        target.write(loaded.backbone, written)
        read_back = load(written)
        own_tool = {f"by {to} itself": target.run} if hasattr(target, "run") else {}
        proof = prove(loaded, read_back, witnesses={**own_tool, **witnesses})
        report = ConversionReport(loaded, dst, to, read_back.sha256, proof)
        write_text(record_path(dst), json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
    return report


def to_text(report: ConversionReport) -> str:
    """The report for people."""
    source, largest = report.source, report.proof.largest
    counts = ", ".join(f"{count} {kind}" for kind, count in count_by_kind(source).items())
    reasons = Counter(source.found.dropped.values())
    stages = ", ".join(f"{stage} {difference.relative:.1g}" for stage, difference in report.proof.by_stage.items())
    lines = [
        f"{source.path} ({source.format}, {source.backbone.arch}) -> {report.target_path} ({report.target_format})",
        f"  mapped   {counts}",
        *(f"  dropped  {count} {reason}" for reason, count in reasons.items()),
        f"  proof    largest difference of features {largest.absolute:.3g} absolute, {largest.relative:.3g} relative",
        f"           relative by stage: {stages}",
        *([f"  weights  {widened}"] if (widened := widened_text(source.backbone.provenance.stored_as)) else []),
        *(f"  warning  {warning}" for warning in source.warnings),
        f"  digest   {source.backbone.digest}",
        f"  record   {report.record_path}",
    ]
    return "\n".join(lines)


def target_formats() -> dict[str, ModuleType]:
    """The formats that can be written, by name: the modules in transfer/targets."""
    names = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    return {name: import_module(f"{targets.__name__}.{name}") for name in names}


def record_path(dst: Path) -> Path:
    """The record's file: the target's name and `.json`."""
    return dst.with_name(dst.name + RECORD_SUFFIX)


def count_by_kind(loaded: Loaded) -> dict[str, int]:
    """Mapped tensors: convolutions, tensors of BN (weight, bias, mean, variance), and BN's batch counters."""
    tensors = loaded.backbone.tensors
    counters = sum(is_counter(name) for name in tensors)
    convolutions = sum(tensor.ndim == 4 for tensor in tensors.values())
    return {
        "convolutions": convolutions,
        "BN tensors": len(tensors) - counters - convolutions,
        "BN counters": counters,
    }


def _choose_target(to: str) -> ModuleType:
    formats = target_formats()
    if to not in formats:
        raise UserError(f"--to {to}: expected one of {', '.join(formats)}")
    return formats[to]


def _check_destination(src: Path, dst: Path) -> None:
    for path in (dst, record_path(dst)):
        if path.is_dir():
            raise UserError(f"{path}: expected the name of a file to write, found a folder; add a file name")
        if path.exists() and src.exists() and path.samefile(src):
            raise UserError(f"{path}: expected a file other than the one to convert, found the same; name another")
