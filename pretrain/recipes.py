"""Recipes: pretraining settings by name, each number with its source.

[1] MoCo v1: He et al., arXiv 1911.05722, section 3.3 and the authors' code.
[2] MoCo v2: Chen et al., arXiv 2003.04297, section 3 and Table 1, and the authors' code.
[3] The CIFAR-10 demo among the authors' code: colab/moco_cifar10_demo.ipynb.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from mocobench.runtime.errors import UserError

ARCHS = ("resnet18", "resnet34", "resnet50")


@dataclass(frozen=True)
class Augmentation:
    """What is drawn at random for a view, in the order in which it is applied.

    Jitter strengths are brightness, contrast, saturation and hue, as torchvision's ColorJitter means them;
    blur sigmas are in pixels of the view; mean and std belong to values in [0, 1].
    """

    order: tuple[str, ...]
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.2
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_probability: float = 0.5
    flip_probability: float = 0.5
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


# [1] section 3.3 "Technical details": crop, then grayscale before jitter, jitter always, no blur.
AUG_V1 = Augmentation(
    order=("crop", "grayscale", "jitter", "flip"),
    jitter=(0.4, 0.4, 0.4, 0.4),
    jitter_probability=1.0,
    blur_probability=0.0,
)
# [2] section 3 "aug+": SimCLR's blur, milder hue, jitter with probability 0.8 before grayscale.
AUG_PLUS = Augmentation(order=("crop", "jitter", "grayscale", "blur", "flip"))
# [3] train_transform: torchvision's default crop, no blur, CIFAR-10's own mean and deviation.
AUG_CIFAR = Augmentation(
    order=("crop", "flip", "jitter", "grayscale"),
    crop_scale=(0.08, 1.0),
    blur_probability=0.0,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a pretraining run computes, besides the data and the seed."""

    name: str
    source: str
    # The paper's four switches: MLP head, aug+, cosine schedule, epochs.
    mlp: bool
    augmentation: Augmentation
    cosine: bool
    epochs: int
    method: str = "moco"
    symmetric: bool = False  # [3]: each view is the query once and the key once, and the two losses are added
    arch: str = "resnet50"
    stem: str = "7x7"  # or, for pictures of 32 pixels, 3x3 of stride 1 without pooling ([3])
    image_size: int = 224
    zero_init_residual: bool = False  # the authors' code: torchvision's default
    dim: int = 128  # [1] section 3.3
    queue_size: int = 65536  # [1] section 4.1
    key_momentum: float = 0.999  # [1] section 4.1
    temperature: float = 0.07  # [1] section 3.3; [2] uses 0.2
    batch_size: int = 256  # [1] section 3.3, over 8 GPUs
    bn_groups: int = 8  # [1] section 3.3: BN per GPU, keys shuffled across GPUs
    learning_rate: float = 0.03  # [1] section 3.3, for batch 256
    decay_epochs: tuple[int, ...] = (120, 160)  # [1] section 3.3, x 0.1 each; unused with the cosine schedule
    momentum: float = 0.9  # [1] section 3.3
    weight_decay: float = 1e-4  # [1] section 3.3, on every parameter


V1 = Recipe(
    name="moco-v1-200ep",
    source="arXiv 1911.05722, section 3.3; arXiv 2003.04297, Table 1, first MoCo row",
    mlp=False,
    augmentation=AUG_V1,
    cosine=False,
    epochs=200,
)
V2 = replace(
    V1,
    name="moco-v2-200ep",
    source="arXiv 2003.04297, Table 1 (d)",
    mlp=True,
    augmentation=AUG_PLUS,
    cosine=True,
    temperature=0.2,
)
# Batch 512 on one device that plays eight, with the rate of 0.03 for 256. The demo counts its epochs from 1, so that
# its rates are those of one epoch later and 0 in the last one.
CIFAR = replace(
    V2,
    name="moco-v2-cifar10",
    source="colab/moco_cifar10_demo.ipynb of the authors' code, asymmetric: kNN 82.6 at 200 epochs",
    mlp=False,
    augmentation=AUG_CIFAR,
    arch="resnet18",
    stem="3x3",
    image_size=32,
    queue_size=4096,
    key_momentum=0.99,
    temperature=0.1,
    batch_size=512,
    learning_rate=0.06,
    weight_decay=5e-4,
)
TABLE_1 = "arXiv 2003.04297, Table 1"
RECIPES = {
    recipe.name: recipe
    for recipe in (
        V1,
        V2,
        replace(V2, name="moco-v2-800ep", source=f"{TABLE_1} (e)", epochs=800),
        # The ablation rows differ from v1 by the switches that their row ticks; T is 0.2 with the MLP (section 3).
        replace(V1, name="moco-v2-a", source=f"{TABLE_1} (a)", mlp=True, temperature=0.2),
        replace(V1, name="moco-v2-b", source=f"{TABLE_1} (b)", augmentation=AUG_PLUS),
        replace(V1, name="moco-v2-c", source=f"{TABLE_1} (c)", mlp=True, augmentation=AUG_PLUS, temperature=0.2),
        CIFAR,
        replace(
            CIFAR,
            name="moco-v2-cifar10-symmetric",
            source="colab/moco_cifar10_demo.ipynb of the authors' code, symmetric: kNN 85.3 at 200 epochs",
            symmetric=True,
        ),
        # Ours: MoCo v2 shrunk until two CPU cores learn something in minutes. What differs, and why:
        # - residual branches start at zero (Goyal et al., arXiv 1706.02677, section 5.1): a random ResNet-50 gives
        #   two views of a picture features no more alike than those of two pictures; this one does not
        # - no blur, as in the authors' CIFAR-10 demo: its sigmas are for 224 pixels; milder crops for small pictures
        # - temperature and key momentum of the same demo, a queue smaller than the data, and a low rate, so that
        #   the keys in the queue are not told apart by their age
        replace(
            V2,
            name="demo",
            source="this project: MoCo v2 at a size for two CPU cores; no published counterpart",
            augmentation=replace(AUG_PLUS, crop_scale=(0.5, 1.0), blur_probability=0.0),
            epochs=20,
            image_size=64,
            zero_init_residual=True,
            queue_size=256,
            key_momentum=0.99,
            temperature=0.1,
            batch_size=32,
            bn_groups=4,
            learning_rate=0.01,
        ),
    )
}


def choose_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UserError: no such recipe; those that exist are listed.
    """
    if name not in RECIPES:
        raise UserError(f"--recipe {name}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def customise(recipe: Recipe, changes: dict[str, Any]) -> tuple[Recipe, tuple[str, ...]]:
    """Apply changed settings; return the recipe that runs and what differs, as `setting: before -> after`.

    A changed batch size scales the learning rate linearly ([1], README of the authors' code: 4 GPUs, batch 128,
    rate 0.015) unless the rate is given too; what differs says so.

    Raises:
        UserError: a value that no run could use.
    """
    is_scaled = "batch_size" in changes and "learning_rate" not in changes
    if is_scaled:
        scale = changes["batch_size"] / recipe.batch_size
        changes = {**changes, "learning_rate": recipe.learning_rate * scale}
    before = asdict(recipe)
    changed = {name: value for name, value in changes.items() if before[name] != value}
    customised = replace(recipe, **changed)
    if customised.arch not in ARCHS:
        raise UserError(f"--arch {customised.arch}: expected one of {', '.join(ARCHS)}")
    for name in ("epochs", "image_size", "queue_size", "batch_size", "bn_groups", "learning_rate"):
        if getattr(customised, name) <= 0:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {getattr(customised, name)}: expected a number above zero")
    if customised.batch_size % customised.bn_groups or customised.batch_size == customised.bn_groups:
        raise UserError(
            f"--bn-groups {customised.bn_groups}: expected a divisor of the batch size {customised.batch_size} "
            "that leaves at least 2 images a group"
        )
    notes = {"learning_rate": " (scaled linearly with the batch size)"} if is_scaled else {}
    differs = (f"{name}: {before[name]} -> {value}{notes.get(name, '')}" for name, value in changed.items())
    return customised, tuple(differs)


def card(recipe: Recipe) -> str:
    """The recipe with every value it sets, one per line, for people."""
    settings = {**asdict(recipe)}
    name, source = settings.pop("name"), settings.pop("source")
    settings |= {f"augmentation.{key}": value for key, value in settings.pop("augmentation").items()}
    width = max(map(len, settings))
    lines = [f"{name}  ({source})"]
    lines += [f"  {key:<{width}}  {_show(value)}" for key, value in settings.items()]
    return "\n".join(lines)


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_show(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
