"""What a checkpoint is: its format, where it came from, what it holds, and what looks wrong with it."""

import json
from pathlib import Path
from typing import Any

from transfer.backbone import Backbone, InputSpec
from transfer.load import load
from transfer.suspicions import assumes_convention


def inspect(
    path: Path, source: str = "auto", encoder: str | None = None, pixels: InputSpec | None = None
) -> dict[str, Any]:
    """Everything that is known about a checkpoint, as plain values.

    Raises:
        UserError: it is not a checkpoint that `load_backbone` reads.
    """
    loaded = load(path, source=source, encoder=encoder, pixels=pixels)
    backbone = loaded.backbone
    dropped: dict[str, list[str]] = {}
    for name, reason in loaded.found.dropped.items():
        dropped.setdefault(reason, []).append(name)
    return {
        "path": str(loaded.path),
        "format": loaded.format,
        "sha256": loaded.sha256,
        "encoder": loaded.found.encoder,
        "arch": backbone.arch,
        "provenance": backbone.provenance.to_dict(),
        "num_tensors": len(backbone.tensors),
        "num_parameters": num_parameters(backbone),
        "input": backbone.input.to_dict(),
        "input_is_assumed": assumes_convention(loaded.found),
        "stride": "1x1" if backbone.stride_in_1x1 else "3x3",
        "digest": backbone.digest,
        "dropped": dropped,
        "num_classes": loaded.num_classes,
        "warnings": list(loaded.warnings),
    }


def num_parameters(backbone: Backbone) -> int:
    """Numbers that training changes by gradient: convolutions, BN weights and biases."""
    learned = (t for name, t in backbone.tensors.items() if name.endswith((".weight", ".bias")))
    return sum(tensor.numel() for tensor in learned)


def to_text(found: dict[str, Any]) -> str:
    """What `inspect` returns, for people."""
    provenance, spec = found["provenance"], InputSpec.from_dict(found["input"])
    assumed = "; assumed, for the file does not say (--mean and --std do)" if found["input_is_assumed"] else ""
    lines = [
        found["path"],
        f"  format      {found['format']}",
        *([f"  encoder     {found['encoder']}"] if found["encoder"] else []),
        f"  backbone    {found['arch']}, {found['num_tensors']} tensors, {found['num_parameters']:,} parameters",
        f"  input       {spec.to_text()}{assumed}",
        f"  stride      in the {found['stride']} convolutions of bottlenecks",
        *(f"  {name:<11} {provenance[name]}" for name in ("method", "recipe", "epochs", "seed") if name in provenance),
        f"  origin      {provenance['source']} ({provenance['format']}{_of_encoder(provenance)})",
        *([f"  stored as   {widened}"] if (widened := widened_text(provenance.get("stored_as"))) else []),
        f"  digest      {found['digest']}",
        f"  sha256      {found['sha256']}",
        *([f"  classes     {found['num_classes']}, of the classifier"] if found["num_classes"] else []),
        *(
            f"  dropped     {len(names)} {reason} ({names[0]}{', ...' * (len(names) > 1)})"
            for reason, names in found["dropped"].items()
        ),
        *(f"  warning     {warning}" for warning in found["warnings"]),
    ]
    return "\n".join(lines)


def _of_encoder(provenance: dict[str, Any]) -> str:
    return f", {provenance['encoder']} encoder" if "encoder" in provenance else ""


def widened_text(stored_as: str | None) -> str:
    """What became of weights in half precision, for people; nothing where there are none."""
    return f"{stored_as}, widened to float32 without loss" if stored_as else ""


def to_json(found: dict[str, Any]) -> str:
    """What `inspect` returns, for machines."""
    return json.dumps(found, indent=2, allow_nan=False)
