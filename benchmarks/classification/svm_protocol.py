"""The protocol of VOC07 classification: linear SVMs on frozen features (Goyal et al. 2019, arXiv 1905.01235)."""

from dataclasses import dataclass, replace

from benchmarks.ranges import refuse, require_above_zero, require_crop_fits, require_splits


@dataclass(frozen=True)
class SvmProtocol:
    """Every value that moves a number of the linear SVMs. Sizes in pixels.

    Sources: [goyal] the paper, sections 4 and 6.1; [code] its fair_self_supervision_benchmark.

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    train_splits: tuple[str, ...] = ("2007/trainval",)  # [goyal]
    test_splits: tuple[str, ...] = ("2007/test",)  # [goyal]
    image_size: int = 224  # [goyal]
    test_resize: int = 256  # [goyal]
    # One against all, squared hinge, features of unit length, positives weighted twice; [code]. Of the costs each class
    # takes the one with the best average precision by cross-validation; the decades are ours.
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    folds: int = 3  # [goyal]
    positive_weight: float = 2.0  # [code]
    tolerance: float = 1e-4  # [code]
    max_steps: int = 2000  # [code]
    # Low-shot: so many positive images of a class and 19 times as many negative ones; [code]. The costs are those of
    # all images. `draws` is of each number; [goyal].
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96)  # [goyal]
    draws: int = 5

    def __post_init__(self) -> None:
        require_above_zero(self, "image_size", "test_resize", "costs", "positive_weight", "tolerance", "max_steps")
        require_above_zero(self, "draws")
        require_splits(self)
        require_crop_fits(self)
        if self.folds < 2:
            refuse(self, "folds", "at least 2")
        if self.shots and min(self.shots) < 1:
            refuse(self, "shots", "numbers of images above 0, or none")


_PAPER = SvmProtocol(id="voc-svm/goyal@1", expected_images=(("train", 5011), ("test", 4952)))

SVM_PROTOCOLS = {
    "paper": _PAPER,
    # A year folder with its own splits, two CPU cores.
    "smoke": replace(
        _PAPER,
        id="voc-svm/smoke@1",
        expected_images=(),
        train_splits=("trainval",),
        test_splits=("test",),
        image_size=112,
        test_resize=128,
        shots=(1, 2),
    ),
}
