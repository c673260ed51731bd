"""Which classes are taken for which: accuracy by class, the hardest classes in words, and a picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.classification.heads import accuracy_by_class
from benchmarks.context import RunContext
from mocobench.runtime.distributed import is_main
from mocobench.runtime.files import atomic_file

NUM_HARDEST = 10  # in the record and beside the picture
NUM_SAID = 3
NUM_DRAWN = 40  # with more classes the picture shows the hardest, and what they are taken for
NUM_WRITTEN = 20  # with more, its cells have no numbers


@dataclass(frozen=True)
class Confusion:
    """`counts[label, predicted]` of images (K, K), and the classes' names."""

    counts: np.ndarray
    classes: tuple[str, ...]

    def hardest(self, count: int = NUM_HARDEST) -> list[dict[str, Any]]:
        """The classes with the lowest accuracy that have images: top-1 in percent, and what they are taken for most."""
        images, right = self.counts.sum(axis=1), self.counts.diagonal()
        wrong = self.counts - np.diag(right)
        there = np.flatnonzero(images)
        order = there[np.argsort(right[there] / images[there], kind="stable")][:count]
        return [
            {
                "class": self.classes[label],
                "top1": 100 * right[label].item() / images[label].item(),
                "images": images[label].item(),
                **self._taken_for(wrong[label], images[label].item()),
            }
            for label in order
        ]

    def _taken_for(self, wrong: np.ndarray, images: int) -> dict[str, Any]:
        other = int(wrong.argmax())
        if not wrong[other]:
            return {}
        return {"taken_for": self.classes[other], "taken_for_percent": 100 * wrong[other].item() / images}


def count_confusion(predicted: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...]) -> Confusion:
    """Of predicted and true classes (N,)."""
    pairs = labels * len(classes) + predicted
    return Confusion(pairs.bincount(minlength=len(classes) ** 2).view(len(classes), -1).numpy(), classes)


def class_details(
    predicted: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...], context: RunContext
) -> dict[str, Any]:
    """What a record keeps about classes, of predicted and true classes (N,); the hardest are said.

    With `context.out`, draws `confusion.png` there; on rank 0.

    Raises:
        UserError: the picture cannot be written.
    """
    confusion = count_confusion(predicted, labels, classes)
    hardest = confusion.hardest()
    if is_main():
        print(f"hardest classes: {'; '.join(in_words(each) for each in hardest[:NUM_SAID])}", flush=True)
        if context.out is not None:
            draw_confusion(confusion, context.out / "confusion.png")
    return {"per_class": accuracy_by_class(predicted == labels, labels, classes), "hardest_classes": hardest}


def in_words(hard: dict[str, Any]) -> str:
    """One of the hardest classes."""
    taken = f", taken for {hard['taken_for']} {hard['taken_for_percent']:.0f} %" if "taken_for" in hard else ""
    return f"{hard['class']} {hard['top1']:.0f} % of {hard['images']}{taken}"


def draw_confusion(confusion: Confusion, path: Path) -> None:
    """Draw the percentage of each class (row) that is taken for each class (column), and the classes' accuracies.

    Raises:
        UserError: the picture cannot be written.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    percent = 100 * confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    drawn = drawn_classes(confusion)
    cells, names = percent[np.ix_(drawn, drawn)], [confusion.classes[label] for label in drawn]
    side = max(5.5, (0.55 if len(drawn) <= NUM_WRITTEN else 0.28) * len(drawn))
    figure = Figure(figsize=(side + 8.5, side + 2), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(side + 2.5, 6))  # type: ignore[misc]  # an array of two
    axes = left.subplots()
    # The square root: a few percent taken for another class must be seen beside the diagonal.
    shown = axes.imshow(cells, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100), interpolation="nearest")
    left.colorbar(shown, ax=axes, label="% of the class", shrink=0.8)
    all_or_some = f"{len(drawn)} of {len(confusion.classes)} classes: the hardest, and those they are taken for"
    axes.set(xlabel="predicted class", ylabel="class", title="" if len(drawn) == len(percent) else all_or_some)
    axes.set_xticks(range(len(drawn)), names, rotation=90)
    axes.set_yticks(range(len(drawn)), names)
    if len(drawn) <= NUM_WRITTEN:
        for (row, column), value in np.ndenumerate(cells):
            if value:
                axes.text(
                    column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 35 else "black"
                )
    words, bars = right.subplots(2, 1)
    lines = ["Hardest classes", "", *(in_words(each) for each in confusion.hardest())]
    words.text(0, 1, "\n".join(lines), va="top", fontsize=9)
    words.set_axis_off()
    there = confusion.counts.sum(axis=1) > 0
    bars.hist(percent.diagonal()[there], bins=np.linspace(0, 100, 21))
    bars.set(xlabel="top-1 of a class, %", ylabel="classes", xlim=(0, 100))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def drawn_classes(confusion: Confusion) -> list[int]:
    """All classes, or of too many the hardest with what they are taken for most, in their order."""
    if len(confusion.classes) <= NUM_DRAWN:
        return list(range(len(confusion.classes)))
    hardest = confusion.hardest(NUM_DRAWN // 2)
    names = {name for each in hardest for name in (each["class"], each.get("taken_for"))}
    return [label for label, name in enumerate(confusion.classes) if name in names]
