"""Recipes: pretraining settings by name, and what a run changes in them."""

from collections.abc import Callable
from dataclasses import asdict, replace
from math import inf, sqrt
from typing import Any

from mocobench.runtime.errors import UserError
from pretrain.moco_recipes import MOCO_RECIPES
from pretrain.settings import Recipe
from pretrain.simclr_recipes import SIMCLR_RECIPES

ARCHS = ("resnet18", "resnet34", "resnet50")
CITED_RECIPES = {cited.settings.name: cited for cited in (*MOCO_RECIPES, *SIMCLR_RECIPES)}
RECIPES = {name: cited.settings for name, cited in CITED_RECIPES.items()}
POSITIVE = ("epochs", "image_size", "queue_size", "batch_size", "bn_groups", "learning_rate", "temperature")
# How the rate follows the batch size: in words, and the factor for a batch that is `scale` times as large.
SCALINGS: dict[str, tuple[str, Callable[[float], float]]] = {
    "linear": ("scaled linearly with the batch size", lambda scale: scale),
    "sqrt": ("scaled with the square root of the batch size", sqrt),
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

    A changed batch size scales the learning rate by the recipe's rule unless the rate is given too, and changed epochs
    scale those at which a step schedule decays; what differs says so.

    Raises:
        UserError: a value that no run could use.
    """
    words, factor = SCALINGS[recipe.rate_scaling]
    notes = {}
    before = asdict(recipe)
    for name in ("queue_size", "key_momentum", "symmetric"):
        if name in changes and recipe.method != "moco":
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag}: expected a recipe of MoCo, found {recipe.method}; leave it out")
    if "batch_size" in changes and "learning_rate" not in changes:
        scale = max(changes["batch_size"], 0) / recipe.batch_size
        changes = {**changes, "learning_rate": recipe.learning_rate * factor(scale)}
        notes["learning_rate"] = f" ({words})"
    if "epochs" in changes and not recipe.cosine:
        decays = tuple(round(decay * changes["epochs"] / recipe.epochs) for decay in recipe.decay_epochs)
        changes = {**changes, "decay_epochs": decays}
        notes["decay_epochs"] = " (scaled with the epochs)"
    changed = {name: value for name, value in changes.items() if before[name] != value}
    customised = replace(recipe, **changed)
    _require_usable(customised, positive=[name for name in POSITIVE if before[name]])
    differs = (f"{name}: {before[name]} -> {value}{notes.get(name, '')}" for name, value in changed.items())
    return customised, tuple(differs)


def _require_usable(recipe: Recipe, positive: list[str]) -> None:
    if recipe.arch not in ARCHS:
        raise UserError(f"--arch {recipe.arch}: expected one of {', '.join(ARCHS)}")
    for name in positive:
        if not 0 < getattr(recipe, name) < inf:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {getattr(recipe, name)}: expected a number above zero")
    if not 0 <= recipe.key_momentum <= 1:
        raise UserError(f"--key-momentum {recipe.key_momentum}: expected a number from 0 to 1")
    if recipe.batch_size % recipe.bn_groups or recipe.batch_size == recipe.bn_groups:
        raise UserError(
            f"--bn-groups {recipe.bn_groups}: expected a divisor of the batch size {recipe.batch_size} "
            "that leaves at least 2 images a group"
        )
    if recipe.epochs <= recipe.warmup_epochs:
        raise UserError(f"--epochs {recipe.epochs}: expected more than the {recipe.warmup_epochs} epochs of warm-up")
