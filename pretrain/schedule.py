"""Learning rate of an epoch (MoCo v1, section 3.3; MoCo v2, section 3)."""

import math

from pretrain.recipes import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The rate of epoch `epoch`, counted from 0 and set once per epoch: half a cosine, or x 0.1 at each decay epoch."""
    if recipe.cosine:
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return recipe.learning_rate * 0.1 ** sum(epoch >= decay for decay in recipe.decay_epochs)
