"""The sessions of a run: from where each of them trained, with what code and on what.

A run that goes on with the same of all of it computes, bit for bit, what it would have computed without a stop. What
changes in between is not forbidden, a cluster gives what it has, but it is said and recorded.
"""

from pathlib import Path
from typing import Any

from mocobench.runtime.environment import code_version, environment_stamp
from pretrain.batch_views import find_kernels
from pretrain.run import Progress, TrainingRun


def begin_session(run: TrainingRun, progress: Progress) -> list[str]:
    """Note in `progress` that a session begins; return what it does not share with the one before, for people."""
    session = {
        "epoch": progress.epoch,
        "step": progress.step,
        "code": " ".join(code_version().values()),
        "precision": run.precision,
        "compile": run.compile,
        "kernels": find_kernels(run.device.type) is not None,
        "num_workers": run.num_workers,
        "resume": run.resume if run.resume in ("auto", "never") else str(Path(run.resume).resolve()),
        **environment_stamp(run.device),
    }
    before = _what_computes(progress.sessions[-1]) if progress.sessions else {}
    progress.sessions.append(session)
    now = _what_computes(session)
    return [f"{name} {value} -> {now[name]}" for name, value in before.items() if now.get(name, value) != value]


def began_from(progress: Progress, checkpoint: Path) -> bool:
    """Whether a session of the run was told to go on from that checkpoint."""
    return str(checkpoint.resolve()) in (session.get("resume") for session in progress.sessions)


def _what_computes(session: dict[str, Any]) -> dict[str, Any]:
    """All of a session that its numbers depend on: not how far the run was, nor how many workers loaded images."""
    return {
        name: value
        for name, value in {**session, **session["packages"]}.items()
        if name not in ("epoch", "step", "num_workers", "resume", "packages")
    }
