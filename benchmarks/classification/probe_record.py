"""What a trained probe has to show: each head's curve, the head that counts, and the best epoch, labelled as such."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.classification.heads import LinearHeads, Solver


@dataclass(frozen=True)
class ProbeRun:
    """Trained heads and one record per epoch: epoch (from 1), rate_factor, and of each head (H,) loss, top1, top5.

    Accuracies are in percent; `held_out_top1` is there where images are held out.
    """

    heads: LinearHeads
    epochs: tuple[dict[str, Any], ...]

    def curve(self, head: int) -> list[dict[str, float]]:
        """One head's record of each epoch, with its learning rate."""
        rate = self.heads.solver.learning_rates[head]
        return [
            {
                "epoch": record["epoch"],
                "learning_rate": rate * record["rate_factor"],
                **{name: values[head].item() for name, values in record.items() if isinstance(values, torch.Tensor)},
            }
            for record in self.epochs
        ]


def choose_head(run: ProbeRun) -> int:
    """The head with the best last top-1 on the images held out; of equals the first. The only one needs no images."""
    last = run.epochs[-1]
    if "held_out_top1" not in last:
        return 0
    finite = last["loss"].isfinite()
    return int(last["held_out_top1"].where(finite, torch.tensor(-1.0, dtype=torch.float64)).argmax())


def best_epoch(curve: list[dict[str, float]]) -> dict[str, Any]:
    """The epoch with the best top-1, labelled as what it is."""
    best = max(curve, key=lambda record: record["top1"])
    return {"note": "chosen on the validation images, so not the result", **best}


def describe_heads(run: ProbeRun, *, chosen: int) -> list[dict[str, Any]]:
    """Every head's settings and curve: the loss (None where it is not finite) and the accuracy on images held out."""
    solver, described = run.heads.solver, []
    for head, (rate, decay) in enumerate(zip(solver.learning_rates, solver.weight_decays, strict=True)):
        losses = [record["loss"][head].item() for record in run.epochs]
        described.append(
            {
                "learning_rate": rate,
                "weight_decay": decay,
                "is_chosen": head == chosen,
                "loss": [loss if math.isfinite(loss) else None for loss in losses],
                "held_out_top1": [record["held_out_top1"][head].item() for record in run.epochs],
            }
        )
    return described


def curve_points(records: Iterable[dict[str, Any]], solver: Solver, *, num_steps: int) -> list[dict[str, float]]:
    """Each epoch as a point for the curve's log; of several heads, values carry the rate and decay in their names.

    `num_steps` are those of an epoch. A loss that is not finite is left out.
    """
    points = []
    heads = list(zip(solver.learning_rates, solver.weight_decays, strict=True))
    for record in records:
        point: dict[str, float] = {"iteration": record["epoch"] * num_steps, "epoch": record["epoch"]}
        for head, (rate, decay) in enumerate(heads):
            suffix = f"/rate_{rate:g}_decay_{decay:g}" if len(heads) > 1 else ""
            point["learning_rate" + suffix] = rate * record["rate_factor"]
            values = {name: each[head].item() for name, each in record.items() if isinstance(each, torch.Tensor)}
            point |= {name + suffix: value for name, value in values.items() if math.isfinite(value)}
        points.append(point)
    return points
