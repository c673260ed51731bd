"""Files are opened by their content; what is not a whole checkpoint is one clear line."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torchvision.models import resnet18

from mocobench.runtime.errors import UserError
from tests.transfer_examples import LAYOUTS, narrow_resnets, trained_tensors
from transfer.container import open_checkpoint
from transfer.load import load


def torch_bytes(value: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


WEIGHTS = {"w": torch.arange(1000.0)}
WHOLE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "torch": ("torch", lambda: torch_bytes(WEIGHTS)),
    "legacy torch": ("torch", lambda: torch_bytes(WEIGHTS, legacy=True)),
    "pickle": ("pickle", lambda: pickle.dumps({"w": np.arange(1000.0, dtype=np.float32)})),
    "old pickle": ("pickle", lambda: pickle.dumps({"w": np.arange(1000.0, dtype=np.float32)}, protocol=0)),
    "safetensors": ("safetensors", lambda: save(WEIGHTS, metadata={"a": "b"})),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_the_name_of_a_file_does_not_matter(tmp_path: Path, kind: str) -> None:
    container, make = WHOLE[kind]
    path = tmp_path / "no-ending.txt"
    path.write_bytes(make())
    content = open_checkpoint(path)
    assert content.container == container
    np.testing.assert_array_equal(np.asarray(content.values["w"]), np.arange(1000.0))
    assert content.header.get("a") == ("b" if kind == "safetensors" else None)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, kind: str, kept: float) -> None:
    whole = WHOLE[kind][1]()
    path = tmp_path / "cut"
    path.write_bytes(whole[: max(40, int(len(whole) * kept))])
    with pytest.raises(
        UserError, match=f"^{path}: expected a whole checkpoint, found one that is cut short or damaged"
    ):
        open_checkpoint(path)


def tar_bytes(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


BAD = {
    b"": "expected a checkpoint, found an empty file; download or write it again",
    b"<!DOCTYPE html>\n<html>404</html>": "found a web page saved as one; download the file itself",
    b"\n <HTML lang='en'>": "found a web page saved as one; download the file itself",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n": "git-LFS pointer to one; run `git lfs pull`",
    b"hello, this is not a checkpoint.": "found a file that starts with b'hello, this is n'",
    gzip.compress(bytes(9)): "found a gzip archive; unpack it, name a file in it",
    bz2.compress(bytes(9)): "found a bzip2 archive; unpack it",
    lzma.compress(bytes(9)): "found a xz archive; unpack it",
    tar_bytes("resnet50.pth"): "found a tar archive; unpack it",
    b"\x89PNG\r\n\x1a\n" + bytes(100): "expected a checkpoint .torch.save, pickle or safetensors.",
    torch_bytes(torch.zeros(3)): "expected a dictionary of weights by name, found Tensor",
    torch_bytes({0: torch.zeros(3)}): "expected a dictionary of weights by name, found dict",
    pickle.dumps([1, 2]): "expected a dictionary of weights by name, found list",
}


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_what_is_no_checkpoint_is_one_line_that_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=BAD[content]) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent: expected a checkpoint, found no such file; check the path"):
        open_checkpoint(tmp_path / "absent")
    with pytest.raises(UserError, match="expected a checkpoint file, found a folder; name a file in it"):
        open_checkpoint(tmp_path)


def test_another_zip_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "text")
    with pytest.raises(
        UserError, match=r"found another zip archive .*torch\.save its state_dict\(\) under the keys of its format"
    ):
        open_checkpoint(tmp_path / "a.zip")


class Touch:
    """Pickles as a call of os.system that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_that_ask_for_other_names_are_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(torch_bytes({"state_dict": Touch(tmp_path / "touched")}, legacy=legacy))
    with pytest.raises(UserError, match=r"asks for (posix|nt)\.system, which was not run"):
        open_checkpoint(path)
    assert not (tmp_path / "touched").exists()
    path.write_bytes(torch_bytes({"hyper_parameters": Path("x")}, legacy=legacy))
    with pytest.raises(UserError, match=r"asks for pathlib\.\w+, which was not run"):
        open_checkpoint(path)


def test_a_whole_model_is_told_how_to_become_weights(tmp_path: Path) -> None:
    torch.save(resnet18(), tmp_path / "f.pth")
    with pytest.raises(
        UserError, match=r"found a whole model \(torchvision\.models\.\S+\), .* its state_dict\(\) with"
    ):
        open_checkpoint(tmp_path / "f.pth")


def test_what_a_refusal_advises_makes_a_file_that_is_read(tmp_path: Path) -> None:
    with narrow_resnets():
        content = LAYOUTS["openmmlab-0"].example(trained_tensors("resnet18")) | {
            "meta": {"config": Path("x"), "epoch": 7}
        }
        torch.save(content, tmp_path / "f.pth")
        with pytest.raises(
            UserError,
            match=r"f\.pth: .*; if you trust it, read it with torch\.load\(\.\.\., weights_only=False\), delete what "
            r"is neither tensor nor plain value, keep all other keys, and write it with torch\.save$",
        ):
            load(tmp_path / "f.pth")
        trusted = torch.load(tmp_path / "f.pth", weights_only=False)
        del trusted["meta"]["config"]
        torch.save(trusted, tmp_path / "f.pth")
        loaded = load(tmp_path / "f.pth")
    assert (loaded.format, loaded.backbone.provenance.epochs) == ("openmmlab", 7)
