"""Classification protocols on frozen features: MoCo's linear probe and the weighted kNN vote."""

from dataclasses import dataclass, replace

from benchmarks.ranges import (
    refuse,
    require_above_zero,
    require_bounds,
    require_crop_fits,
    require_fraction,
    require_from_zero,
    require_one_of,
    require_rising,
)

IMAGENET_IMAGES = (("train", 1281167), ("val", 50000))
TRAIN_VIEWS = ("random-every-epoch", "center-once")
OPTIMIZERS = ("sgd", "nesterov", "lars")  # see benchmarks/classification/heads.py
SCHEDULES = ("step", "cosine-per-epoch", "cosine-per-step")


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
    # Solver: SGD on the classifier alone (MoCo v1, section 4.1: learning rate 30, no weight decay). Each rate with each
    # decay is a classifier of its own, all trained on the same pass; of several, the one that is best on the images
    # held out of training counts.
    optimizer: str = "sgd"
    batch_size: int = 256
    epochs: int = 100
    learning_rate: tuple[float, ...] = (30.0,)
    weight_decay: tuple[float, ...] = (0.0,)
    momentum: float = 0.9
    # `step`: times `decay_factor` at each of `decay_epochs`. The cosines fall from 1 to 0 over all epochs.
    schedule: str = "step"
    decay_epochs: tuple[int, ...] = (60, 80)
    decay_factor: float = 0.1
    held_out: float = 0.1  # of each class's training images, where there are several classifiers to choose from

    def __post_init__(self) -> None:
        require_one_of(self, "train_views", TRAIN_VIEWS)
        require_one_of(self, "optimizer", OPTIMIZERS)
        require_one_of(self, "schedule", SCHEDULES)
        require_above_zero(self, "image_size", "test_resize", "batch_size", "epochs", "learning_rate")
        require_from_zero(self, "init_std", "weight_decay", "momentum", "decay_factor")
        require_rising(self, "decay_epochs")
        require_bounds(self, "crop_scale", "crop_ratio")
        require_fraction(self, "flip_probability")
        require_crop_fits(self)
        _require_held_out(self)


@dataclass(frozen=True)
class LogisticProtocol:
    """Every value that moves a number of logistic regression on features of the validation crop. Sizes in pixels.

    Features are divided by their mean norm over the training images, so that strengths mean the same for all
    backbones. The strength that is best on the images held out of training is then used on all training images
    (Kornblith et al., arXiv 1805.08974, section 3: L-BFGS, the strength chosen on a split of the training images).

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    image_size: int = 224
    test_resize: int = 256
    strengths: tuple[float, ...] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # l2 / 2 * |W|^2 beside the mean cross-entropy
    held_out: float = 0.1  # of each class's training images
    tolerance: float = 1e-8  # relative decrease of the objective at which L-BFGS stops
    max_steps: int = 5000

    def __post_init__(self) -> None:
        require_above_zero(self, "image_size", "test_resize", "strengths", "tolerance", "max_steps")
        require_crop_fits(self)
        _require_held_out(self)


@dataclass(frozen=True)
class KnnProtocol:
    """Every value that moves a kNN number. Sizes in pixels.

    Sources: InstDisc (Wu et al., arXiv 1805.01978, section 3.4) for the vote, k = 200 and the temperature;
    DINO (Caron et al., arXiv 2104.14294, section 4.1 and eval_knn.py) for k = 20 beside it. The other k cost
    next to nothing: all share one pass, and none changes another's number.

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    # Input of the bank (train) and of the queries (val). Resized bilinearly as in InstDisc; DINO's code is bicubic.
    image_size: int = 224
    test_resize: int = 256
    # The vote: weights exp(cosine / temperature) of the k nearest
    neighbors: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require_above_zero(self, "image_size", "test_resize", "neighbors", "temperature")
        require_crop_fits(self)


def _require_held_out(protocol: LinearProtocol | LogisticProtocol) -> None:
    if not 0 < protocol.held_out < 1:
        refuse(protocol, "held_out", "a fraction above 0 and below 1")


_LINEAR_PAPER = LinearProtocol(id="imagenet-linear/moco@1", expected_images=IMAGENET_IMAGES)

_LINEAR_SIMCLR = replace(
    _LINEAR_PAPER,
    id="imagenet-linear/simclr@1",
    # SimCLR (arXiv 2002.05709), appendices B.5 and B.6: Nesterov, 90 epochs, no weight decay, no warm-up, rate
    # 0.1 * batch / 256; their code's cosine moves with every step.
    optimizer="nesterov",
    batch_size=4096,
    epochs=90,
    learning_rate=(1.6,),
    schedule="cosine-per-step",
)

LINEAR_PROTOCOLS: dict[str, LinearProtocol | LogisticProtocol] = {
    "paper": _LINEAR_PAPER,
    "simclr": _LINEAR_SIMCLR,
    # SimSiam (arXiv 2011.10566), appendix A: LARS, 90 epochs, base rate 0.02 * batch / 256; the cosine of the authors'
    # main_lincls.py moves once an epoch. (That file's own defaults are 100 epochs and a base rate of 0.1.)
    "simsiam": replace(
        _LINEAR_SIMCLR,
        id="imagenet-linear/simsiam@1",
        optimizer="lars",
        learning_rate=(0.32,),
        schedule="cosine-per-epoch",
    ),
    # MoCo's, at 32 settings around its own: what a fixed rate leaves undecided.
    "sweep": replace(
        _LINEAR_PAPER,
        id="imagenet-linear/sweep@1",
        learning_rate=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        weight_decay=(0.0, 1e-6, 1e-5, 1e-4),
        held_out=0.02,
    ),
    "lbfgs": LogisticProtocol(id="imagenet-linear/lbfgs@1", expected_images=IMAGENET_IMAGES),
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
