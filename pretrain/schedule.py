"""Learning rate of a step (MoCo v1, section 4; MoCo v2, section 3; SimCLR, section 2.3)."""

import math

from pretrain.settings import Recipe


def learning_rate(recipe: Recipe, epoch: int, step: int = 0, *, steps_per_epoch: int = 1) -> float:
    """The rate of step `step` of epoch `epoch`, both counted from 0.

    It rises in a line from 0 over the epochs of warm-up; then half a cosine, or x 0.1 at each decay epoch. Recipes that
    set it once per epoch (MoCo's) keep that of the epoch's first step.
    """
    now = epoch + step / steps_per_epoch if recipe.rate_step == "step" else float(epoch)
    if now < recipe.warmup_epochs:
        return recipe.learning_rate * now / recipe.warmup_epochs
    if recipe.cosine:
        done = (now - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * 0.1 ** sum(now >= decay for decay in recipe.decay_epochs)
