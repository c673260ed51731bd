"""Recipes of SimCLR, which MoCo v2 is compared with: each value with its source.

[5] and the like are explained in `pretrain.cards.REFERENCES`.
"""

from math import sqrt

from pretrain.settings import Augmentation, Cited, Recipe, cite, vary

VIEWS = cite(
    Augmentation,
    order=(("crop", "flip", "jitter", "grayscale", "blur"), "[5] appendix A; [6] data_util.py"),
    crop_scale=((0.08, 1.0), "[5] appendix A"),
    crop_ratio=((3 / 4, 4 / 3), "[5] appendix A"),
    jitter=((0.8, 0.8, 0.8, 0.2), "[5] appendix A: strength 1.0"),
    jitter_probability=(0.8, "[5] appendix A"),
    grayscale_probability=(0.2, "[5] appendix A"),
    blur_sigma=((0.1, 2.0), "[5] appendix A"),
    blur_probability=(0.5, "[5] appendix A"),
    flip_probability=(0.5, "[5] appendix A"),
    mean=((0.0, 0.0, 0.0), "[6] data_util.py: values in [0, 1] as they are"),
    std=((1.0, 1.0, 1.0), "[6] data_util.py: values in [0, 1] as they are"),
)
LINEAR_RATE = 0.3 / 256  # for each image of the batch
SQRT_RATE = 0.075  # for each root of an image
LARGE = cite(
    Recipe,
    name="simclr-4096-1000ep",
    source="arXiv 2003.04297, Table 2 (SimCLR, batch 4096, 1000 epochs): linear top-1 69.3",
    method=("simclr", "[5] section 2.1 and Algorithm 1"),
    symmetric=(True, "[5] Algorithm 1"),
    augmentation=VIEWS,
    image_size=(224, "[6] run.py"),
    arch=("resnet50", "[5] section 2.3"),
    stem=("7x7", "[6] resnet.py"),
    zero_init_residual=(True, "[6] resnet.py, init_zero"),
    mlp=(True, "[5] section 2.3: two layers; [6] model_util.py: BN after each in place of a bias"),
    dim=(128, "[5] section 2.3"),
    queue_size=(0, "[5] section 2.1: the other views of the batch instead"),
    key_momentum=(0.0, "[5] section 2.1: one encoder"),
    temperature=(0.1, "[6] run.py; [5] Table 5"),
    batch_size=(4096, "[5] section 2.3"),
    bn_groups=(1, "[5] section 2.2, Global BN"),
    optimizer=("lars", "[5] section 2.3; [6] lars_optimizer.py: not on biases and BN"),
    learning_rate=(LINEAR_RATE * 4096, "[5] section 2.3: 0.3 x batch / 256"),
    rate_scaling=("linear", "[5] section 2.3"),
    rate_step=("step", "[6] model_util.py"),
    warmup_epochs=(10, "[5] section 2.3"),
    cosine=(True, "[5] section 2.3, without restarts"),
    decay_epochs=((), "unused"),
    epochs=(1000, "[3] Table 2"),
    momentum=(0.9, "[6] run.py"),
    weight_decay=(1e-6, "[5] section 2.3; [6] lars_optimizer.py: not on biases and BN"),
)
LARGE = vary(
    LARGE,
    departures=(
        "crops are drawn as torchvision draws them: a uniform area, an aspect ratio uniform in its logarithm, after 10 "
        "attempts a central crop; [6] draws a uniform aspect ratio, then a uniform height, takes none below a tenth of "
        "the image, and after 100 attempts the whole of it",
        "crops are resized bilinearly, antialiased; [6] resizes bicubically, not antialiased",
        "blur is PIL's, three box filters; [6] cuts a Gaussian off at a tenth of the view's side",
        "jitter works on bytes; [6] works on fractions, and clips after each part",
        "contrast blends with the mean luma, saturation with each pixel's, as torchvision has it; [6] blends contrast "
        "with each channel's own mean, and scales the saturation of HSV",
        "an image's loss is the sum over its two views, as in [6] objective.py: twice the mean of [5] Algorithm 1",
        "weights are initialised as PyTorch's ResNet does; [6] draws from truncated normals, 0.01 wide in the head",
        "an epoch leaves its last, incomplete batch out; [6] goes on into the next epoch",
    ),
)


def _table_b1(batch_size: int, epochs: int, rate: float, scaling: str, top1: float) -> Cited[Recipe]:
    kind, formula = ("", "0.3 x batch / 256") if scaling == "linear" else ("-sqrt", "0.075 x sqrt(batch)")
    return vary(
        LARGE,
        name=f"simclr{kind}-{batch_size}-{epochs}ep",
        source=f"arXiv 2002.05709, Table B.1, {scaling} rate: linear top-1 {top1}",
        batch_size=(batch_size, "[5] Table B.1"),
        learning_rate=(rate, f"[5] appendix B.1: {formula}"),
        rate_scaling=(scaling, "[5] appendix B.1"),
        epochs=(epochs, "[5] Table B.1"),
    )


SIMCLR_RECIPES = (
    _table_b1(256, 200, LINEAR_RATE * 256, "linear", 61.9),
    _table_b1(256, 200, SQRT_RATE * sqrt(256), "sqrt", 64.3),
    LARGE,
)
