"""Classification protocols on frozen features: MoCo's linear probe and the weighted kNN vote."""

from dataclasses import dataclass, replace

from benchmarks.protocol import show
from mocobench.runtime.errors import UserError

IMAGENET_IMAGES = (("train", 1281167), ("val", 50000))
TRAIN_VIEWS = ("random-every-epoch", "center-once")


@dataclass(frozen=True)
class LinearProtocol:
    """Every value that moves a linear-probe number. Sizes in pixels. Defaults: MoCo's main_lincls.py.

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    # Input. `random-every-epoch`: each epoch sees a new random crop and flip of every image, as the authors do.
    # `center-once`: features of the validation crop, computed once; much cheaper, and without augmentation.
    train_views: str = "random-every-epoch"
    image_size: int = 224
    test_resize: int = 256  # shorter side, before the centre crop
    crop_scale: tuple[float, float] = (0.08, 1.0)  # torchvision's RandomResizedCrop, area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # torchvision's RandomResizedCrop, width / height
    flip_probability: float = 0.5
    # Classifier: weight ~ N(0, std), bias 0
    init_std: float = 0.01
    # Solver: SGD on the classifier alone (MoCo v1, section 4.1: learning rate 30, no weight decay)
    batch_size: int = 256
    epochs: int = 100
    learning_rate: float = 30.0
    decay_epochs: tuple[int, ...] = (60, 80)
    decay_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.train_views not in TRAIN_VIEWS:
            raise UserError(f"--train-views {self.train_views}: expected one of {', '.join(TRAIN_VIEWS)}")
        _require_positive(self, "image_size", "test_resize", "batch_size", "epochs", "learning_rate")
        _require_crop_fits(self.image_size, self.test_resize)
        for name in ("crop_scale", "crop_ratio"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise UserError(f"--{name.replace('_', '-')} {show(bounds)}: expected two bounds LOW,HIGH above 0")


@dataclass(frozen=True)
class KnnProtocol:
    """Every value that moves a kNN number. Sizes in pixels.

    Sources: InstDisc (Wu et al., arXiv 1805.01978, section 3.4) for the vote, k = 200 and the temperature;
    DINO (Caron et al., arXiv 2104.14294, section 4.1 and eval_knn.py) for k = 20 beside it.

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    # Input of the bank (train) and of the queries (val). Resized bilinearly as in InstDisc; DINO's code is bicubic.
    image_size: int = 224
    test_resize: int = 256
    # The vote: weights exp(cosine / temperature) of the k nearest
    neighbors: tuple[int, ...] = (20, 200)
    temperature: float = 0.07

    def __post_init__(self) -> None:
        _require_positive(self, "image_size", "test_resize", "temperature")
        _require_crop_fits(self.image_size, self.test_resize)
        if not self.neighbors or min(self.neighbors) < 1:
            raise UserError(f"--neighbors {show(self.neighbors)}: expected one or more numbers of neighbours above 0")


def _require_positive(protocol: LinearProtocol | KnnProtocol, *names: str) -> None:
    for name in names:
        value = getattr(protocol, name)
        if not value > 0:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected a number above 0")


def _require_crop_fits(image_size: int, test_resize: int) -> None:
    if image_size > test_resize:
        raise UserError(
            f"--image-size {image_size}: expected at most --test-resize {test_resize}, whose centre is cropped"
        )


_LINEAR_PAPER = LinearProtocol(id="imagenet-linear/moco@1", expected_images=IMAGENET_IMAGES)

LINEAR_PROTOCOLS = {
    "paper": _LINEAR_PAPER,
    # Two CPU cores and a few hundred images: a quarter of the pixels, and the backbone runs once per image.
    "smoke": replace(
        _LINEAR_PAPER,
        id="imagenet-linear/smoke@1",
        expected_images=(),
        train_views="center-once",
        image_size=112,
        test_resize=128,
    ),
}

_KNN_PAPER = KnnProtocol(id="imagenet-knn/weighted@1", expected_images=IMAGENET_IMAGES)

KNN_PROTOCOLS = {
    "paper": _KNN_PAPER,
    "smoke": replace(_KNN_PAPER, id="imagenet-knn/smoke@1", expected_images=(), image_size=112, test_resize=128),
}
