"""The protocol of VOC07 classification: linear SVMs on frozen features (Goyal et al. 2019, arXiv 1905.01235)."""

from dataclasses import dataclass, replace

from benchmarks.protocol import show
from mocobench.runtime.errors import UserError


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
        for name in ("image_size", "test_resize", "positive_weight", "tolerance", "max_steps", "draws"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected a number above 0")
        if self.folds < 2:
            raise UserError(f"--folds {self.folds}: expected at least 2")
        if not self.costs or not min(self.costs) > 0:
            raise UserError(f"--costs {show(self.costs)}: expected one or more numbers above 0")
        if self.shots and min(self.shots) < 1:
            raise UserError(f"--shots {show(self.shots)}: expected numbers of images above 0, or none")


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
