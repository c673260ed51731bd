"""Precision-recall curves of every class: what a metric hands over, as a table in a file and as a figure."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mocobench.runtime.files import atomic_file, write_text

CURVE_THRESHOLDS = (0.50, 0.75)
LINE_STYLES: dict[float, Literal["-", "--"]] = {0.50: "-", 0.75: "--"}
COLORS = {"box": "tab:blue", "mask": "tab:orange"}
LINE_WIDTHS = {"box": 2.2, "mask": 1.1}  # so that neither hides the other
PANELS_PER_ROW = 8
PANEL_INCHES = 2.4


@dataclass(frozen=True)
class Curve:
    """One class at one IoU threshold; `recall`, `precision` and `score` (N,) in [0, 1], by falling score.

    `kind` says what was compared with what was found: `box` or `mask`.
    """

    class_name: str
    kind: str
    iou: float
    recall: np.ndarray
    precision: np.ndarray
    score: np.ndarray


def write_precision_recall(curves: Iterable[Curve], path: Path) -> None:
    """Write all points as CSV with the columns class, kind, iou, recall, precision, score."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("class", "kind", "iou", "recall", "precision", "score"))
    for curve in curves:
        for point in zip(curve.recall, curve.precision, curve.score, strict=True):
            writer.writerow((curve.class_name, curve.kind, f"{curve.iou:.2f}", *(f"{value:.4f}" for value in point)))
    write_text(path, table.getvalue())


def draw_precision_recall(curves: Sequence[Curve], path: Path) -> None:
    """Draw a figure (PNG) with one panel per class, and in it one line per kind and IoU threshold."""
    # Not pyplot: it would choose a display and keep the figure.
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(curve.class_name for curve in curves))
    columns = min(PANELS_PER_ROW, math.ceil(math.sqrt(len(names))))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(columns, 2) * PANEL_INCHES, rows * PANEL_INCHES + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    panel_of = dict(zip(names, panels.flat, strict=False))
    for name, panel in panel_of.items():
        panel.set_title(name if len(name) <= 24 else name[:23] + "…", fontsize=9)
        panel.set(xlim=(-0.02, 1.02), ylim=(0, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        panel.tick_params(labelsize=8, labelbottom=True)
        panel.grid(alpha=0.3)
    for curve in curves:
        recall, precision = np.append(0, curve.recall), np.append(curve.precision[:1], curve.precision)
        if len(curve.recall):
            line = panel_of[curve.class_name].plot(recall, precision, LINE_STYLES[curve.iou], color=COLORS[curve.kind])
            line[0].set_linewidth(LINE_WIDTHS[curve.kind])
    drawn = sorted({(curve.kind, curve.iou) for curve in curves})
    handles = [Line2D([], [], color=COLORS[kind], linestyle=LINE_STYLES[iou]) for kind, iou in drawn]
    labels = [f"{kind}, IoU {iou:.2f}" for kind, iou in drawn]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(drawn), frameon=False, fontsize=9)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
