"""The metrics that tables show, by task: their columns in order, and the one that stands for the task."""

from collections.abc import Collection

TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "ap50": "AP50",
    "ap": "AP",
    "ap75": "AP75",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "box_ap75": "box AP75",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
    "mask_ap75": "mask AP75",
    "map": "mAP",
    "map_11_point": "11-point mAP",
}

COLUMNS = {
    "imagenet-linear": ("top1", "top5"),
    "imagenet-semi": ("top1", "top5"),
    "voc-svm": ("map", "map_11_point"),
    "voc-detection": ("ap50", "ap", "ap75"),
    "coco-detection": ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"),
}

# What a task is read by in the summary. MoCo v2 reads VOC by its three columns; AP is the one that COCO shares.
HEADLINES = {"voc-detection": ("ap",), "coco-detection": ("box_ap", "mask_ap")}
# kNN is read by the first of these that is there: published tables have 20 or 200 neighbours, and few are noisy.
VOTES = ("top1_k20", "top1_k200")


def columns_of(task: str, present: Collection[str]) -> tuple[str, ...]:
    """The metrics a table of the task shows, of those that its rows have."""
    if task == "imagenet-knn":
        votes = [name for name in present if name.startswith("top1_k") and name[6:].isdigit()]
        return tuple(sorted(votes, key=lambda name: int(name[6:])))
    return tuple(name for name in COLUMNS.get(task, sorted(present)) if name in present)


def headlines_of(task: str, present: Collection[str]) -> tuple[str, ...]:
    """The metrics that stand for the task in one line: one, or box and mask AP."""
    if task == "imagenet-knn":
        return tuple(name for name in VOTES if name in present)[:1] or columns_of(task, present)[:1]
    return tuple(name for name in HEADLINES.get(task, ()) if name in present) or columns_of(task, present)[:1]


def title_of(metric: str) -> str:
    """A metric's name as a column's head."""
    if metric.startswith("top1_k"):
        return f"top-1, k={metric[6:]}"
    return TITLES.get(metric, metric)
