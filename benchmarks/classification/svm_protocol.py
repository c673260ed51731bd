"""The protocol of VOC07 classification: linear SVMs on frozen features (Goyal et al. 2019, arXiv 1905.01235)."""

from dataclasses import dataclass, replace

from benchmarks.ranges import refuse, require_above_zero, require_one_of, require_splits

DECADES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)
POWERS_OF_ONE_HALF = tuple(0.5**power for power in range(4, 20))


@dataclass(frozen=True)
class SvmProtocol:
    """Every value that moves a number of the linear SVMs. Sizes in pixels.

    Sources: [goyal] the paper, sections 4 and 6.1; the rest its code, fair_self_supervision_benchmark, by file: [kfold]
    tools/svm/train_svm_kfold.py, [helper] tools/svm/svm_helper.py, [samples] extra_scripts/
    create_voc_low_shot_samples.py, [config] configs/benchmark_tasks/image_classification/voc07/
    resnet50_supervised_extract_features.yaml, [started] GETTING_STARTED.md, the commands that make the paper's numbers.

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    train_splits: tuple[str, ...] = ("2007/trainval",)  # [goyal]
    test_splits: tuple[str, ...] = ("2007/test",)  # [goyal]
    classes: str = "voc"  # the 20 of PASCAL VOC; "found": those of the training data
    # The shorter side to `test_resize`, then both sides to `image_size`: [config] squashes and does not crop.
    image_size: int = 224  # [config]
    test_resize: int = 256  # [config]
    # The last map, 7 x 7, averaged in 6 x 6 windows of stride 1, [config]: 2 x 2 x 2048 values of a ResNet-50.
    grid: int = 2
    # One against all, squared hinge, positives weighted twice; [kfold]. Each class takes the cost with the best average
    # precision by cross-validation, the first of equals in this order: the decades of [started], then those that
    # [helper] adds.
    costs: tuple[float, ...] = DECADES + POWERS_OF_ONE_HALF
    folds: int = 3  # [kfold] in the order of the list, with equal shares of positives
    positive_weight: float = 2.0  # [kfold]
    tolerance: float = 1e-4  # [kfold]
    max_steps: int = 2000  # [kfold]
    # Low-shot: so many positive images of a class, and as many negative ones for each other class; [samples]. The costs
    # are those of all images: the authors' scripts take the best on the test images. `draws` is of each number.
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96)  # [goyal], [samples]
    draws: int = 5  # [goyal], [samples]

    def __post_init__(self) -> None:
        require_above_zero(self, "image_size", "test_resize", "grid", "costs", "positive_weight", "tolerance")
        require_above_zero(self, "max_steps", "draws")
        require_splits(self)
        require_one_of(self, "classes", ("voc", "found"))
        if self.folds < 2:
            refuse(self, "folds", "at least 2")
        if self.shots and min(self.shots) < 1:
            refuse(self, "shots", "numbers of images above 0, or none")


_PAPER = SvmProtocol(id="voc-svm/goyal@2", expected_images=(("train", 5011), ("test", 4952)))

SVM_PROTOCOLS = {
    "paper": _PAPER,
    # A year folder with its own splits and classes, two CPU cores.
    "smoke": replace(
        _PAPER,
        id="voc-svm/smoke@2",
        expected_images=(),
        train_splits=("trainval",),
        test_splits=("test",),
        classes="found",
        image_size=112,
        test_resize=128,
        shots=(1, 2),
    ),
}
