"""Recipe cards: everything that a recipe sets, for people, each value with the source that it comes from."""

import re
from dataclasses import fields
from textwrap import wrap
from typing import Any

from pretrain.recipes import CITED_RECIPES
from pretrain.settings import Augmentation, Recipe

REFERENCES = {
    "[1]": "MoCo v1: He et al., arXiv 1911.05722",
    "[2]": "the code of [1] and [3]: github.com/facebookresearch/moco",
    "[3]": "MoCo v2: Chen et al., arXiv 2003.04297",
    "[4]": "the CIFAR-10 demo in [2]: colab/moco_cifar10_demo.ipynb",
    "[5]": "SimCLR: Chen et al., arXiv 2002.05709",
    "[6]": "the code of [5]: github.com/google-research/simclr",
}
SECTIONS = {
    "views": ("image_size", "interpolation", *(field.name for field in fields(Augmentation))),
    "network": ("arch", "stem", "zero_init_residual", "mlp", "dim", "bn_groups"),
    "contrast": ("method", "symmetric", "temperature", "queue_size", "key_momentum"),
    "training": (
        *("optimizer", "momentum", "weight_decay", "batch_size", "learning_rate", "rate_scaling", "rate_step"),
        *("warmup_epochs", "cosine", "decay_epochs", "epochs"),
    ),
}
LINE = 100
INTERPOLATION = ("bilinear, antialiased", "as torchvision resizes PIL images")
WORDS = {
    "crop_scale": "{0:g} to {1:g} of the image's area",
    "crop_ratio": "{0:.3g} to {1:.3g}, width to height",
    "jitter": "brightness {0:g}, contrast {1:g}, saturation {2:g}, hue {3:g}",
    "jitter_probability": "{0:g}, its four parts in random order",
    "blur_sigma": "{0:g} to {1:g} pixels",
}


def card(recipe: Recipe) -> str:
    """The recipe of a run; what is not as in the recipe of that name has the run itself as its source."""
    cited = CITED_RECIPES[recipe.name]
    sources = {name.removeprefix("augmentation."): source for name, source in cited.sources.items()}
    settings, original = _flat(recipe), _flat(cited.settings)
    rows = {"interpolation": INTERPOLATION} | {
        name: (_show(name, value), sources[name] if value == original[name] else "changed for this run")
        for name, value in settings.items()
    }
    lines = [f"{recipe.name}  ({recipe.source})"]
    for title, names in SECTIONS.items():
        lines += ["", f"  {title}", *_table({name: rows[name] for name in names if not _is_idle(name, settings)})]
    if cited.departures:
        lines += ["", "  departures from the sources"]
        for departure in cited.departures:
            lines += wrap(departure, LINE, initial_indent="  - ", subsequent_indent="    ")
    tags = sorted(set(re.findall(r"\[\d\]", "\n".join(lines))))
    return "\n".join([*lines, "", *(f"  {tag} {REFERENCES[tag]}" for tag in tags)])


def _flat(recipe: Recipe) -> dict[str, Any]:
    """The settings of the recipe and of its views, side by side."""
    beside = ("name", "source", "augmentation")
    own = {name: value for name, value in vars(recipe).items() if name not in beside}
    return own | vars(recipe.augmentation)


def _is_idle(name: str, settings: dict[str, Any]) -> bool:
    """Whether the setting has no effect beside the others."""
    return (
        (name == "decay_epochs" and settings["cosine"])
        or (name == "blur_sigma" and settings["blur_probability"] == 0)
        or (name in ("queue_size", "key_momentum", "warmup_epochs") and settings[name] == 0)
    )


def _table(rows: dict[str, tuple[str, str]]) -> list[str]:
    names, values = max(map(len, rows)), max(len(value) for value, _ in rows.values())
    return [f"    {name:<{names}}  {value:<{values}}  {source}" for name, (value, source) in rows.items()]


def _show(name: str, value: Any) -> str:
    if name in WORDS:
        return WORDS[name].format(*(value if isinstance(value, tuple) else (value,)))
    if isinstance(value, tuple):
        return ", ".join(_show("", item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
