"""Two runs in one folder at once: the second is refused on all its processes and leaves the first alone."""

import errno
import fcntl
from pathlib import Path

import pytest
from processes import in_processes
from tiny_pretraining import draw_pictures, run_tiny

from pretrain.lock import LOCK, sole_run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_run_is_refused_while_the_first_is_at_work(pictures: Path, tmp_path: Path, count: int) -> None:
    out = tmp_path / "out"
    with sole_run(out):
        (out / ".checkpoint_last.pth.tar.1.tmp").write_text("the first run is writing this")
        before = names(out)
        answers = in_processes(count, run_tiny, pictures, out)
        assert names(out) == before
    message = f"UserError: --out {out}: expected a folder in which no run is at work, found one that is; wait for its"
    assert len([said for _, said in answers if said and said.startswith(message)]) == 1
    assert "checkpoint_last.pth.tar" not in [said for _, said in answers]
    assert in_processes(count, run_tiny, pictures, out) == [(0, "checkpoint_last.pth.tar")] * count
    assert not list(out.glob(".*"))


def test_the_lock_leaves_neither_itself_nor_an_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with sole_run(out):
        assert names(out) == {LOCK}
    assert list(tmp_path.iterdir()) == []
    with sole_run(out):
        (out / "something").touch()
    assert names(out) == {"something"}


def test_a_lock_that_a_killed_run_left_holds_nobody(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with sole_run(tmp_path):
        assert names(tmp_path) == {LOCK}
    assert names(tmp_path) == set()


def test_without_locks_on_the_file_system_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    done = []
    with sole_run(tmp_path):
        done.append("the body")
    assert done == ["the body"]
    assert names(tmp_path) == set()


def test_a_file_that_was_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a run that ends between the two."""
    original, calls = fcntl.lockf, []

    def remove_first(file: int, how: int) -> None:
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(how)
        original(file, how)

    monkeypatch.setattr(fcntl, "lockf", remove_first)
    with sole_run(tmp_path):
        assert names(tmp_path) == {LOCK}
    assert len(calls) == 2
