"""Protocols: evaluation settings as frozen dataclasses with an id and a version; an override makes them custom.

A protocol class is a frozen dataclass whose first two fields are

    id: str                                     `TASK/NAME@VERSION`; the version goes up when its numbers would move
    expected_images: tuple[tuple[str, int], ...]  images per split of the data it is defined on; () means any data

and whose other fields are its settings, each with the source of its value in a comment.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar, get_args, get_type_hints

from benchmarks.result import DataIdentity, ProtocolRecord
from mocobench.runtime.errors import UserError

P = TypeVar("P")
IDENTITY_FIELDS = ("id", "expected_images")
# The split of labelled images where a list of them is not the share of each class that the protocol's `labels` says.
LISTED = "listed"


def settings_of(protocol: Any) -> dict[str, Any]:
    """Every value the protocol sets, by name, without its identity."""
    return {name: value for name, value in asdict(protocol).items() if name not in IDENTITY_FIELDS}


def choose_protocol(protocols: dict[str, P], name: str) -> P:
    """The protocol of that name.

    Raises:
        UserError: no such protocol; those that exist are listed.
    """
    if name not in protocols:
        raise UserError(f"--protocol {name}: expected one of {', '.join(sorted(protocols))}")
    return protocols[name]


def override(protocol: P, changes: dict[str, Any]) -> tuple[P, tuple[str, ...]]:
    """Apply changed settings; return the protocol that runs and what differs, as `name: paper value -> value`.

    Raises:
        UserError: the protocol has no setting of that name.
    """
    before = settings_of(protocol)
    if foreign := sorted(changes.keys() - before.keys()):
        flags = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise UserError(f"{flags}: no setting of {protocol.id}; it has {', '.join(sorted(before))}")  # type: ignore[attr-defined]
    changed = {name: value for name, value in changes.items() if before[name] != value}
    differs = tuple(f"{name}: {show(before[name])} -> {show(value)}" for name, value in changed.items())
    return replace(protocol, **changed), differs  # type: ignore[type-var]


def data_differences(protocol: Any, data: DataIdentity) -> tuple[str, ...]:
    """How the data that was read differs from the data the protocol is defined on."""
    differs = []
    for split, images in protocol.expected_images:
        found = data.splits[split].images if split in data.splits else 0
        if found != images:
            differs.append(f"{split} images: {images} -> {found}")
    if (listed := data.splits.get(LISTED)) is not None:
        given = f"{listed.images} of a list (sha256 {listed.list_sha256[:12]})"
        differs.append(f"labelled images: {protocol.labels} of each class -> {given}")
    return tuple(differs)


def protocol_record(task: str, protocol: Any, differs: tuple[str, ...]) -> ProtocolRecord:
    """The record of a protocol as it was run."""
    name = f"{task}/custom" if differs else protocol.id
    return ProtocolRecord(id=name, base=protocol.id, differs=differs, settings=settings_of(protocol))


def card(protocol: Any) -> str:
    """The protocol with every value it sets, one per line, for people."""
    lines = [protocol.id]
    if protocol.expected_images:
        lines.append("  data: " + ", ".join(f"{split} {images} images" for split, images in protocol.expected_images))
    names = [f.name for f in fields(protocol) if f.name not in IDENTITY_FIELDS]
    width = max(len(name) for name in names)
    lines += [f"  {name:<{width}}  {show(getattr(protocol, name))}" for name in names]
    return "\n".join(lines)


def show(value: Any) -> str:
    """A setting as it is typed on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(show(item) for item in value) or "none"
    return str(value)


def task_setting_flags(protocols: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Command-line flags for the settings of all protocols of a task, as `setting_flags` makes them.

    The help is the value of `paper`; of a setting that `paper` lacks, that of the first protocol with it, and its name.
    """
    flags = setting_flags(protocols["paper"])
    for name, protocol in protocols.items():
        for flag, keywords in setting_flags(protocol, owner=f"{name}: ").items():
            flags.setdefault(flag, keywords)
    return flags


def setting_flags(protocol: Any, *, owner: str = "") -> dict[str, dict[str, Any]]:
    """Command-line flags for a protocol's settings: flag -> keywords for argparse's add_argument.

    The help is the protocol's own value, after `owner`. A tuple is typed with commas (`--train-short-sides 128,160`); a
    bool as `--masks` or `--no-masks`.
    """
    flags: dict[str, dict[str, Any]] = {}
    types = get_type_hints(type(protocol))
    for name, value in settings_of(protocol).items():
        keywords: dict[str, Any] = {"dest": name, "default": None, "help": f"({owner}{show(value)})".replace("%", "%%")}
        if isinstance(value, bool):
            keywords["action"] = argparse.BooleanOptionalAction
        elif isinstance(value, tuple | list):
            keywords |= {"type": _tuple_of(get_args(types[name])[0]), "metavar": "A,B,..."}
        else:
            keywords |= {"type": type(value), "metavar": type(value).__name__.upper()}
        flags["--" + name.replace("_", "-")] = keywords
    return flags


def _tuple_of(kind: type) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return () if text == "none" else tuple(kind(item) for item in text.split(","))

    parse.__name__ = f"comma-separated {kind.__name__}"  # argparse names it in its message
    return parse
