"""Open a checkpoint by what is in it, never by its name, and without running anything it says."""

import mmap
import re
import zipfile
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard

from mocobench.runtime.errors import UserError
from transfer.pickle_sizes import check_sizes
from transfer.safe_pickle import RefusedNameError, read_plain_pickle

ZIP_START = b"PK\x03\x04"
LFS_START = b"version https://git-lfs.github.com/spec/"
TORCH_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
# Protocols 2 and up start with their number; 0 and 1 do not, but they start by asking for a name or with a container.
PICKLE_START = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n\w+\n|[(}\]][dlpq(cUVX]")
WEB_PAGE_START = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
PACKED_STARTS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd"}
HEAD_BYTES = 512
MODEL_NAMES = ("torchvision.models.", "torch.nn.modules.", "torch.nn.parallel.", "timm.models.")  # of their classes
NUM_LEGACY_PICKLES = 4  # magic number, version, machine, content


@dataclass(frozen=True)
class Content:
    """What a file holds: its container (`torch`, `pickle`, `safetensors`), its values, and a safetensors header."""

    container: str
    values: dict[str, Any]
    header: dict[str, str] = field(default_factory=dict)

    def section(self, keys: str) -> dict[str, Any]:
        """The dictionary of names under keys with slashes between them (`` is the file); empty when there is none."""
        section: Any = self.values
        for key in filter(None, keys.split("/")):
            section = section.get(key) if isinstance(section, dict) else None
        section = vars(section) if isinstance(section, Namespace) else section
        return section if _is_by_name(section) else {}

    def beside(self, *read: str) -> dict[str, str]:
        """The top-level keys besides those that were read, with what they are."""
        others = (name for name in self.values if name not in read)
        return {name: "optimizer state" if name == "optimizer" else "not the weights" for name in others}


def _is_by_name(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def open_checkpoint(path: Path) -> Content:
    """Open a file that torch.save, pickle or safetensors wrote.

    Raises:
        UserError: missing, a folder, empty, damaged, not a checkpoint at all, or a pickle that asks for names other
            than arrays and containers need.
    """
    head = _read_head(path)
    if head.startswith(ZIP_START):
        _check_torch_zip(path)
        content = _open_torch(path, mapped=True)
    elif TORCH_LEGACY_MAGIC in head[:32]:
        _check_legacy_sizes(path)
        content = _open_torch(path, mapped=False)
    elif head[8:9] == b"{":
        return _open_safetensors(path)
    elif PICKLE_START.match(head):
        content = _open_pickle(path)
    else:
        raise UserError(
            f"{path}: expected a checkpoint (torch.save, pickle or safetensors), found a file that starts with "
            f"{head[:16]!r}; name another file"
        )
    if not _is_by_name(content.values):
        raise UserError(
            f"{path}: expected a dictionary of weights by name, found {type(content.values).__name__}; "
            "name another file"
        )
    return content


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path}: expected a checkpoint file, found a folder; name a file in it")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: expected a checkpoint, found no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: expected a checkpoint that can be read, found {error.strerror}") from error
    if not head:
        raise UserError(f"{path}: expected a checkpoint, found an empty file; download or write it again")
    if head.startswith(LFS_START):
        raise UserError(f"{path}: expected a checkpoint, found a git-LFS pointer to one; run `git lfs pull`")
    packed = next((kind for start, kind in PACKED_STARTS.items() if head.startswith(start)), None)
    if packed or head[257:262] == b"ustar":
        raise UserError(
            f"{path}: expected a checkpoint, found a {packed or 'tar'} archive; unpack it, name a file in it"
        )
    if WEB_PAGE_START.match(head):
        raise UserError(f"{path}: expected a checkpoint, found a web page saved as one; download the file itself")
    return head


def _check_torch_zip(path: Path) -> None:
    """A zip archive ends with its directory, so one that is cut short or swells is known before it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries, names = archive.infolist(), archive.namelist()
    except Exception as error:  # a damaged directory makes the reader trip over anything
        raise _damaged(path, error) from error
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    # torch.save never compresses, so nothing can be larger inside than outside.
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(
            f"{path}: expected a checkpoint that torch.save wrote, found a compressed archive of {size} bytes that "
            f"holds {unpacked}; unpack it first"
        )
    if not any(name.endswith("/data.pkl") for name in names) or any(name.endswith("/constants.pkl") for name in names):
        raise UserError(
            f"{path}: expected a checkpoint that torch.save wrote, found another zip archive (a TorchScript model?); "
            "torch.jit.load it where you trust it and torch.save its state_dict() under the keys of its format, see "
            "docs/formats.md"
        )


def _check_legacy_sizes(path: Path) -> None:
    """Files from before torch 1.6 begin with four pickles, the last of which says how large each storage is."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for _ in range(NUM_LEGACY_PICKLES):
                check_sizes(content, len(content))
    except Exception as error:  # a damaged file makes the reader trip over anything
        raise _damaged(path, error) from error


def _open_torch(path: Path, *, mapped: bool) -> Content:
    import torch

    try:
        # Options that many projects save beside their weights; it holds values and does nothing.
        with torch.serialization.safe_globals([Namespace]):
            return Content("torch", torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except UnpicklingError as error:
        # torch names what it refuses in its message only.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise _damaged(path, error) from error
        raise _refused(path, refused[1], "torch.load(..., weights_only=False)", "torch.save") from error
    except Exception as error:  # a damaged file makes torch's reader trip over anything
        raise _damaged(path, error) from error


def _open_pickle(path: Path) -> Content:
    try:
        return Content("pickle", read_plain_pickle(path))
    except RefusedNameError as error:
        raise _refused(path, error.name, "pickle.load", "pickle.dump") from error
    except Exception as error:  # a damaged file makes the reader trip over anything
        raise _damaged(path, error) from error


def _open_safetensors(path: Path) -> Content:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return Content("safetensors", {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _refused(path: Path, name: str, reader: str, writer: str) -> UserError:
    if name.startswith(MODEL_NAMES):
        return UserError(
            f"{path}: expected a dictionary of weights by name, found a whole model ({name}), which was not run; "
            f"if you trust it, read it with {reader} and write its state_dict() with {writer}"
        )
    # The keys around the weights tell the format: a state dict alone would be no file of it any more.
    return UserError(
        f"{path}: expected tensors and plain values only, found a pickle that asks for {name}, which was not run; "
        f"if you trust it, read it with {reader}, delete what is neither tensor nor plain value, keep all other keys, "
        f"and write it with {writer}"
    )


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return UserError(
        f"{path}: expected a whole checkpoint, found one that is cut short or damaged ({reason}); "
        "download or write it again"
    )
