"""Where an outcome cannot be written, the command says so, before its work where it can, and leaves nothing behind."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mocobench.cli import main
from mocobench.runtime.errors import UserError
from mocobench.runtime.events import EventFile
from mocobench.runtime.files import append_text, require_writable, save_tensors


def test_a_folder_and_a_place_for_one_stay_as_they_are(tmp_path: Path) -> None:
    require_writable(tmp_path, flag="--out")
    require_writable(tmp_path / "new" / "deep", flag="--out")
    assert list(tmp_path.iterdir()) == []


def test_files_and_dangling_links_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("file", "file/below", "link/below"):
        place = tmp_path / name.split("/")[0]
        message = f"--out {tmp_path / name}: expected a folder, or a place for one, found {place}, which is none"
        with pytest.raises(UserError, match=re.escape(message)):
            require_writable(tmp_path / name, flag="--out")


def test_a_closed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"--out .*: expected a folder that can be written, found Permission denied"):
        require_writable(tmp_path, flag="--out")


@pytest.mark.parametrize(
    "command",
    [
        ["bench", "imagenet-knn", "--backbone", "nothing.pth", "--data", "nothing"],
        ["bench", "pretrain-cost"],
        ["bench", "input-pipeline", "--data", "nothing"],
    ],
)
def test_results_that_cannot_be_written_are_refused_first(tmp_path: Path, capsys: Any, command: list[str]) -> None:
    (tmp_path / "results").write_text("a file")
    assert main([*command, "--results", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err.startswith(f"error: --results {tmp_path / 'results'}: expected a folder")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_what_grows_on_a_full_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    message = "No space left on device; make room, then start the same command again"
    with pytest.raises(UserError, match=f"^cannot write {FULL}: {message}$"):
        append_text(FULL, "a line\n")
    events = EventFile(tmp_path)
    events.path = tmp_path / "events"
    events.path.symlink_to(FULL)
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/events: {message}$"):
        events.write(1, {"loss": 0.5})


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("size", [1, 10**6])
def test_tensors_that_do_not_fit_on_the_disk_are_the_systems_error(size: int) -> None:
    """In the middle of PyTorch's writing, or when what it wrote is flushed."""
    with pytest.raises(OSError, match="No space left on device"):
        save_tensors({"weight": torch.zeros(size)}, FULL)


def test_the_bytes_of_tensors_do_not_depend_on_the_files_name(tmp_path: Path) -> None:
    for name in ("one", "another"):
        save_tensors({"weight": torch.arange(5.0)}, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "another").read_bytes()


def test_tensorboard_shows_each_step_of_several_sessions_once(tmp_path: Path) -> None:
    """The second session goes on after step 1; what the first had after it is left out. A third adds to both."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = EventFile(tmp_path / "new")
    for step in (1, 2, 3):
        first.write(step, {"loss": step, "rate": 0.5})
    EventFile(tmp_path / "new", first_step=2).write(2, {"loss": 20.0})
    EventFile(tmp_path / "new").write(0, {"top1": 0.25})
    events = EventAccumulator(str(tmp_path / "new")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 20.0)]
    assert [(event.step, event.value) for event in events.Scalars("rate")] == [(1, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("top1")] == [(0, 0.25)]
