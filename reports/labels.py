"""What backbones are called in a report, and which weights each name stands for."""

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.result import Result
from reports.formats.blocks import Note
from reports.notes import HASH_DIGITS
from reports.trials import backbone_key, is_random


def backbone_labels(results: Sequence[Result]) -> dict[str, str]:
    """A distinct name for every backbone: its own, with the digest's first digits where two would share it."""
    keyed = sorted(results, key=lambda result: (is_random(result), result.backbone.name, result.backbone.digest))
    names: dict[str, str] = {}
    for result in keyed:
        names.setdefault(backbone_key(result), "random" if is_random(result) else result.backbone.name or "unnamed")
    archs = {result.backbone.arch for result in keyed if is_random(result)}
    counts, labels = Counter(names.values()), {}
    for result in keyed:
        key = backbone_key(result)
        name, shared = names[key], counts[names[key]] > 1
        if is_random(result):
            labels[key] = name if len(archs) == 1 else f"random {result.backbone.arch}"
        else:
            labels[key] = f"{name} ({result.backbone.digest[:8]})" if shared or name == "random" else name
    return labels


def backbone_notes(results: Sequence[Result], labels: Mapping[str, str]) -> tuple[Note, ...]:
    """Which weights each label stands for: arch, digest and what the records know of their history."""
    by_key: dict[str, list[Result]] = {}
    for result in results:
        by_key.setdefault(backbone_key(result), []).append(result)
    notes = []
    for key, label in labels.items():
        own = by_key[key]
        first = own[0].backbone
        if is_random(own[0]):
            notes.append(Note(label, f"{first.arch}, drawn at random, anew for each seed"))
            continue
        history = [
            f"{name} {str(value)[:HASH_DIGITS] if name.endswith('sha256') else value}"
            for name, value in first.provenance.items()
            if isinstance(value, str | int | float)
        ]
        others = sorted({result.backbone.name for result in own} - {label, ""})
        history += [f"in other records named {name}" for name in others if not label.startswith(name)]
        notes.append(Note(label, "; ".join([f"{first.arch}, digest {first.digest[:HASH_DIGITS]}", *history])))
    return tuple(notes)
