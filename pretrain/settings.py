"""What a recipe sets, and how every value keeps the source that it comes from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar


@dataclass(frozen=True)
class Augmentation:
    """What is drawn at random for a view, in the order in which it is applied.

    Jitter strengths are brightness, contrast, saturation and hue, as torchvision's ColorJitter means them;
    blur sigmas are in pixels of the view; mean and std belong to values in [0, 1].
    """

    order: tuple[str, ...]
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    jitter: tuple[float, float, float, float]
    jitter_probability: float
    grayscale_probability: float
    blur_sigma: tuple[float, float]
    blur_probability: float
    flip_probability: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a pretraining run computes, besides the data and the seed.

    Zero stands for what a method has not: a queue of 0 keys, a rate without warm-up.
    """

    name: str
    source: str
    method: str  # of pretrain.methods
    symmetric: bool  # each view is the query once and the key once, and the two losses are added
    augmentation: Augmentation
    image_size: int
    arch: str
    stem: str  # 7x7, or for pictures of 32 pixels 3x3 of stride 1 without pooling
    zero_init_residual: bool
    mlp: bool
    dim: int
    queue_size: int
    key_momentum: float
    temperature: float
    batch_size: int
    bn_groups: int
    optimizer: str  # sgd or lars
    learning_rate: float  # for the batch size
    rate_scaling: str  # linear or sqrt: how the rate follows another batch size
    rate_step: str  # epoch or step: how often the rate is set
    warmup_epochs: int
    cosine: bool
    decay_epochs: tuple[int, ...]  # x 0.1 at each, unless cosine
    epochs: int
    momentum: float
    weight_decay: float


Settings = TypeVar("Settings", Augmentation, Recipe)


@dataclass(frozen=True)
class Cited(Generic[Settings]):
    """Settings, the source of each value by the setting's name, and where they depart from what they reproduce."""

    settings: Settings
    sources: dict[str, str]
    departures: tuple[str, ...] = ()


def cite(kind: Callable[..., Settings], **values: Any) -> Cited[Settings]:
    """Settings of a kind, each as (value, source); `name` and `source` of a recipe as they are, its views cited."""
    plain, sources = _taken_apart(values)
    return Cited(kind(**plain), sources)


def vary(base: Cited[Settings], *, departures: tuple[str, ...] = (), **values: Any) -> Cited[Settings]:
    """Settings that differ in some values, each given as to `cite`, so that none changes without its source."""
    plain, sources = _taken_apart(values)
    return Cited(replace(base.settings, **plain), base.sources | sources, base.departures + departures)


def _taken_apart(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    plain: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Cited):
            plain[name] = value.settings
            sources |= {f"{name}.{inner}": source for inner, source in value.sources.items()}
        elif name in ("name", "source"):
            plain[name] = value
        else:
            plain[name], sources[name] = value
    return plain, sources
