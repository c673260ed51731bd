"""Average precision by class: the hardest classes in words, and a picture of all."""

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.classification.confusion import NUM_HARDEST, NUM_SAID
from benchmarks.context import RunContext
from mocobench.runtime.distributed import is_main
from mocobench.runtime.files import atomic_file

BAR_INCHES = 0.28

ClassScores = dict[str, Any]  # of a class: `ap` and `test_percent` in percent, `test_images`; more is not read


def precision_details(per_class: dict[str, ClassScores], context: RunContext) -> dict[str, Any]:
    """What a record keeps about classes; the hardest are said.

    Several classes may be in one image, so none is taken for another. With `context.out`, draws
    `average_precision.png` there; on rank 0.

    Raises:
        UserError: the picture cannot be written.
    """
    hardest = hardest_classes(per_class)
    if is_main():
        print(f"hardest classes: {'; '.join(in_words(each) for each in hardest[:NUM_SAID])}", flush=True)
        if context.out is not None:
            draw_precision(per_class, context.out / "average_precision.png")
    return {"per_class": per_class, "hardest_classes": hardest}


def hardest_classes(per_class: dict[str, ClassScores], count: int = NUM_HARDEST) -> list[dict[str, Any]]:
    """The classes with the lowest average precision, the lowest first; of equals in their order."""
    order = sorted(per_class, key=lambda name: per_class[name]["ap"])[:count]
    kept = ("ap", "test_images", "test_percent")
    return [{"class": name, **{key: per_class[name][key] for key in kept}} for name in order]


def in_words(hard: dict[str, Any]) -> str:
    """One of the hardest classes."""
    return f"{hard['class']} AP {hard['ap']:.1f}, in {hard['test_percent']:.0f} % of the images"


def draw_precision(per_class: dict[str, ClassScores], path: Path) -> None:
    """Draw each class's average precision, the hardest first, beside the share of test images that show it.

    That share is about what a ranking at random would get.

    Raises:
        UserError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    names = [each["class"] for each in hardest_classes(per_class, len(per_class))]
    precisions, shares = ([per_class[name][key] for name in names] for key in ("ap", "test_percent"))
    rows = range(len(names))
    figure = Figure(figsize=(8, BAR_INCHES * len(names) + 1.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.barh(rows, precisions, color="lightsteelblue")
    axes.scatter(shares, rows, marker="|", s=120, color="black", zorder=3, label="images that show it, %")
    axes.axvline(mean(precisions), color="tab:orange", zorder=0, label=f"mean, {mean(precisions):.1f}")
    for row, precision in zip(rows, precisions, strict=True):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # where the line of the mean passes
        axes.text(precision + 1, row, f"{precision:.1f}", va="center", fontsize=8, bbox=box)
    axes.set_yticks(rows, names)
    axes.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="average precision, %")
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
