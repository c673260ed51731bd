"""Damaged files of every container, each told by a seed: cut, flipped, doubled, nested, of other types and shapes."""

import io
import json
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from safetensors.torch import save

from transfer.backbone import is_counter
from transfer.detectron2_names import DETECTRON2_NAMES

Tensors = dict[str, torch.Tensor]
MOST_NESTED = 20_000
PLACE = "the place of a deep value"


def torch_bytes(value: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


class Items:
    """Pickles as a dictionary with these items, where a name may come twice."""

    def __init__(self, items: Iterable[tuple[str, Any]]) -> None:
        self.items = list(items)

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.items)


def _torch(items: Items) -> bytes:
    return torch_bytes({"state_dict": items, "epoch": 3})


def _legacy_torch(items: Items) -> bytes:
    return torch_bytes({"state_dict": items, "epoch": 3}, legacy=True)


def _lightning(items: Items) -> bytes:
    state = Items((f"backbone.{name}", value) for name, value in items.items)
    settings = {"method": "simclr", "data": {"dataset": "imagenet100"}}
    return torch_bytes(
        {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.0", "hyper_parameters": settings}
    )


def _pickle(items: Items) -> bytes:
    model = Items((_detectron2_name(n), v.numpy() if isinstance(v, torch.Tensor) else v) for n, v in items.items)
    # Protocol 2 has no frames, whose lengths would give every splice away.
    return pickle.dumps({"model": model, "__author__": "MOCO", "matching_heuristics": True}, protocol=2)


def _detectron2_name(name: str) -> str:
    try:
        return DETECTRON2_NAMES.theirs(name)
    except ValueError:
        return name


def _safetensors(items: Items) -> bytes:
    return save(dict(items.items), metadata={"format": "pt"})


CONTAINERS: dict[str, Callable[[Items], bytes]] = {
    "torch": _torch,
    "legacy torch": _legacy_torch,
    "Lightning": _lightning,
    "pickle": _pickle,
    "safetensors": _safetensors,
}


def whole_file(container: str, tensors: Tensors) -> bytes:
    """The file as its owner would write it."""
    return CONTAINERS[container](Items(tensors.items()))


def with_damaged_value(container: str, tensors: Tensors, chance: random.Random) -> bytes:
    """One tensor of another type or shape, missing, extra, under a second name, or not finite."""
    name = chance.choice([name for name in tensors if not is_counter(name)])
    tensor = tensors[name]
    kind = chance.randrange(6)
    if kind == 0:
        changed = {name: tensor.to(chance.choice([torch.float64, torch.int32, torch.uint8, torch.bool]))}
    elif kind == 1:
        changed = {name: tensor.reshape(-1)[: chance.randrange(tensor.numel())].clone()}
    elif kind == 2:
        return whole_file(container, {other: t for other, t in tensors.items() if other != name})
    elif kind == 3:
        changed = {f"module.{name}": tensor.clone()}
    elif kind == 4:
        changed = {f"{name}.{chance.randrange(99)}": tensor.clone()}
    else:
        changed = {name: torch.full(tensor.shape, float("nan"))}
    return whole_file(container, tensors | changed)


def with_deep_value(container: str, tensors: Tensors, chance: random.Random) -> bytes:
    """Lists in lists in lists beside the tensors, or in the header of safetensors."""
    depth = chance.randrange(1, MOST_NESTED)
    if container == "safetensors":
        return _with_header(
            whole_file(container, tensors), lambda text: '{"deep":' + "[" * depth + "]" * depth + "," + text[1:]
        )
    nested = b"]" * depth + b"a" * (depth - 1)
    place = b"X" + len(PLACE).to_bytes(4, "little") + PLACE.encode()
    whole = CONTAINERS[container](Items([*tensors.items(), ("deep", PLACE)]))
    if not whole.startswith(b"PK"):
        assert whole.count(place) == 1
        return whole.replace(place, nested)
    return _with_entries(whole, lambda name, data: [data.replace(place, nested)])


def with_doubled_name(container: str, tensors: Tensors, chance: random.Random) -> bytes:
    """A name twice with different values: of a tensor, or of a file in the archive."""
    name = chance.choice([name for name in tensors if not is_counter(name)])
    if container == "safetensors":
        return _with_header(whole_file(container, tensors), lambda text: _with_doubled_key(text, name))
    if container in ("torch", "Lightning") and chance.random() < 0.5:
        return _with_entries(
            whole_file(container, tensors),
            lambda entry, data: [data, bytes(len(data))] if entry.endswith("/data/7") else [data],
        )
    return CONTAINERS[container](Items([(name, torch.zeros_like(tensors[name])), *tensors.items()]))


def _with_header(whole: bytes, change: Callable[[str], str]) -> bytes:
    length = int.from_bytes(whole[:8], "little")
    header = change(whole[8 : 8 + length].decode().rstrip()).encode()
    return len(header).to_bytes(8, "little") + header + whole[8 + length :]


def _with_doubled_key(text: str, name: str) -> str:
    header = json.loads(text)
    other = next(key for key in header if key not in ("__metadata__", name))
    return "{" + f"{json.dumps(name)}:{json.dumps(header[other])}," + text[1:]


def _with_entries(whole: bytes, change: Callable[[str, bytes], list[bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(buffer, "w") as after, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of what is meant: a name twice
        for entry in before.namelist():
            for data in change(entry, before.read(entry)):
                after.writestr(entry, data)
    return buffer.getvalue()


def with_damaged_bytes(whole: bytes, chance: random.Random) -> bytes:
    """The file cut short, with a bit flipped, bytes overwritten, a part twice or a part left out."""
    kind, start = chance.randrange(5), chance.randrange(len(whole))
    # Half of the damage goes where the structure is: the head and the tail.
    if chance.random() < 0.5:
        start = chance.choice([chance.randrange(4096), len(whole) - 1 - chance.randrange(4096)]) % len(whole)
    length = chance.randrange(1, 64)
    if kind == 0:
        return whole[:start]
    if kind == 1:
        return whole[:start] + bytes([whole[start] ^ 1 << chance.randrange(8)]) + whole[start + 1 :]
    if kind == 2:
        return whole[:start] + chance.randbytes(length) + whole[start + length :]
    if kind == 3:
        return whole[: start + length] + whole[start:]
    return whole[:start] + whole[start + length :]
