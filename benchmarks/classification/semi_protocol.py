"""The protocol of semi-supervised classification: fine-tuning on few labels (SimCLR, arXiv 2002.05709)."""

from dataclasses import dataclass, replace

from benchmarks.classification.protocol import IMAGENET_IMAGES
from benchmarks.ranges import (
    refuse,
    require_above_zero,
    require_bounds,
    require_crop_fits,
    require_fraction,
    require_from_zero,
)


@dataclass(frozen=True)
class SemiProtocol:
    """Every value that moves a number of fine-tuning. Sizes in pixels.

    Sources: SimCLR, section 4.3 and appendix B.5, [ours] where they are silent.

    Raises on construction:
        UserError: a setting is out of its range.
    """

    id: str
    expected_images: tuple[tuple[str, int], ...]
    labels: float = 0.01  # of the images of each class, at least one
    image_size: int = 224
    test_resize: int = 256
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    init_std: float = 0.01  # of the classifier, as in the authors' code
    # Nesterov on all layers, rate 0.05 * batch / 256, no warm-up, no weight decay; the cosine moves with every step.
    batch_size: int = 4096
    bn_batch: int = 256  # images that share BN statistics, in one pass; gradients add up to the batch's. [ours]
    epochs: int = 60
    learning_rate: float = 0.8
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_above_zero(self, "image_size", "test_resize", "batch_size", "epochs", "learning_rate")
        require_above_zero(self, "momentum")  # without it there is no Nesterov step
        require_from_zero(self, "init_std", "weight_decay")
        require_bounds(self, "crop_scale", "crop_ratio")
        require_fraction(self, "flip_probability")
        require_crop_fits(self)
        if not 0 < self.labels <= 1:
            refuse(self, "labels", "a fraction above 0, at most 1")
        if self.bn_batch < 2:
            refuse(self, "bn_batch", "at least 2 images to share BN statistics")


_ONE_PERCENT = SemiProtocol(id="imagenet-semi/simclr-1pct@1", expected_images=IMAGENET_IMAGES)

SEMI_PROTOCOLS = {
    "paper": _ONE_PERCENT,
    "10pct": replace(_ONE_PERCENT, id="imagenet-semi/simclr-10pct@1", labels=0.1, epochs=30),
    # Two CPU cores and a few hundred images.
    "smoke": replace(
        _ONE_PERCENT,
        id="imagenet-semi/smoke@1",
        expected_images=(),
        labels=0.1,
        image_size=112,
        test_resize=128,
        batch_size=20,
        bn_batch=20,
        epochs=10,
        learning_rate=0.05,
    ),
}
