"""Which published row a measured one repeats: the same protocol id, and a recipe that repeats its pretraining."""

from collections.abc import Sequence

from benchmarks.result import Result
from reports.published import Published
from reports.trials import Comparable, Measured, is_random

ARCH = "resnet50"  # of every published row with a recipe of ours
IMAGENET_IMAGES = 1_281_167  # what every published row with a recipe of ours was pretrained on


def recipe_of(result: Result) -> str:
    """The name of a backbone's pretraining: `random`, `supervised` or a recipe of ours, run as it stands on ImageNet.

    Empty where nothing is said of it, the recipe was changed, the images or the network were others, or the weights are
    of another encoder than the method's authors evaluate.
    """
    provenance = result.backbone.provenance
    if result.backbone.arch != ARCH or provenance.get("encoder"):
        return ""
    if is_random(result):
        return "random"
    if provenance.get("method") == "supervised":
        return "supervised"
    is_as_published = provenance.get("num_images") == IMAGENET_IMAGES and not provenance.get("recipe_changes")
    return str(provenance.get("recipe", "")) if is_as_published else ""


def repeats(result: Result, row: Published) -> bool:
    """Whether a backbone was pretrained as a published row's: our recipe for it, for its number of epochs."""
    epochs = row.pretraining.epochs
    same_epochs = epochs is None or result.backbone.provenance.get("epochs") == epochs
    return row.recipe != "" and recipe_of(result) == row.recipe and same_epochs


def twins_of(result: Result, published: Sequence[Published], *, protocol: str) -> list[Published]:
    """The published rows of that protocol that a backbone repeats, those with the most trials first."""
    rows = (row for row in published if row.protocol == protocol and row.show != "comparison")
    return sorted((row for row in rows if repeats(result, row)), key=lambda row: -(row.trials or 0))


def measured_twins(row: Published, tables: Sequence[Comparable]) -> list[Measured]:
    """The measured rows that repeat a published one, under its very protocol."""
    same = [table for table in tables if not table.kind and table.first.protocol.id == row.protocol]
    return [measured for table in same for measured in table.rows if repeats(measured.first, row)]
