"""What a pretraining run writes beside its checkpoints: metrics.jsonl, TensorBoard events and run.json."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mocobench.runtime.environment import peak_memory_bytes
from mocobench.runtime.errors import UserError
from mocobench.runtime.events import EventFile
from mocobench.runtime.files import append_text, write_text
from pretrain.run import Plan, Progress, TrainingRun, describe


class MetricsLog:
    """metrics.jsonl and TensorBoard, one entry an epoch; on a resume, those past the checkpoint are dropped.

    An epoch's line is written before its checkpoint, so that no kill can lose a line.
    """

    def __init__(self, out: Path, *, epochs_done: int) -> None:
        self.path = out / "metrics.jsonl"
        kept = _lines_until(self.path, epochs_done) if epochs_done and self.path.exists() else []
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.events = EventFile(out, first_step=epochs_done + 1)

    def write(self, metrics: dict[str, float]) -> None:
        """Append one epoch's metrics.

        Raises:
            UserError: they cannot be written.
        """
        append_text(self.path, json.dumps(metrics) + "\n")
        scalars = {f"pretrain/{name}": value for name, value in metrics.items() if name != "epoch"}
        self.events.write(int(metrics["epoch"]), scalars)


def _lines_until(path: Path, epochs_done: int) -> list[str]:
    """The lines of metrics.jsonl on the first `epochs_done` epochs.

    Raises:
        UserError: a line is not one of these metrics; it is named.
    """
    kept = []
    # The last line may be half a line, left by a kill or a full disk.
    whole = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    for number, line in enumerate(whole, start=1):
        try:
            is_kept = json.loads(line)["epoch"] <= epochs_done
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}, line {number}: expected the metrics of an epoch, found {line[:40]!r}; mend the line, or "
                "remove the file to go on without the curve so far"
            ) from error
        if is_kept:
            kept.append(line)
    return kept


def epoch_text(metrics: dict[str, float], *, epochs: int) -> str:
    """An epoch's metrics for people, on one line."""
    rate = metrics["images_per_second"]
    shown = {
        "loss": f"{metrics['loss']:.4g}",
        "accuracy": f"{metrics['accuracy']:.1f} %",
        "spread": f"{metrics['embedding_spread']:.2f}",
        "kNN": _percent(metrics, "knn_top1"),
        "kNN of embeddings": _percent(metrics, "knn_embedding_top1"),
        "images/s": f"{rate:.3g}" if rate < 100 else f"{rate:.0f}",
        "waiting for data": f"{100 * metrics['data_wait_share']:.0f} %",
    }
    values = ", ".join(f"{name} {value}" for name, value in shown.items() if value)
    return f"epoch {metrics['epoch']}/{epochs}: {values}"


def _percent(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.1f} %" if name in metrics else ""


def write_run_record(run: TrainingRun, plan: Plan, progress: Progress, *, data: dict[str, Any]) -> None:
    """Write run.json: what ran, on what, in which sessions, and what it cost so far."""
    record = {
        **describe(run, {"name": run.data.resolve().name, **data}),
        "differs": list(run.differs),
        "plan": asdict(plan),
        "epochs_done": progress.epoch,
        "wall_seconds": progress.seconds,
        "on_bad_image": run.on_bad_image,
        "bad_images": {"count": len(progress.bad_images), "files": progress.bad_images},
        "peak_memory_bytes": peak_memory_bytes(run.device),
        "sessions": progress.sessions,
        "command": list(run.command),
    }
    write_text(run.out / "run.json", json.dumps(record, indent=2) + "\n")
