"""The methods by name, and the model and optimizer that a run asks for.

Every method is a module with an `encoder_q`, the backbone to be, and
`forward(queries, keys, shuffle) -> (logits, embeddings)`, see `pretrain.moco.MoCo.forward`: one row of logits per
query with its positive in column 0, and the normalised embeddings of those queries.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import nn

from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.seeds import derive_seed, seed_everything
from pretrain.encoder import make_encoder
from pretrain.end_to_end import EndToEnd
from pretrain.lars import LARS
from pretrain.moco import MoCo
from pretrain.run import TrainingRun
from pretrain.settings import Recipe
from pretrain.simclr import SimCLR, make_projection_head

Encoder = Callable[..., nn.Module]  # pretrain.encoder.make_encoder with everything set that the recipe sets


def _make_moco(recipe: Recipe, encoder: Encoder) -> nn.Module:
    return MoCo(
        encoder,
        dim=recipe.dim,
        queue_size=recipe.queue_size,
        key_momentum=recipe.key_momentum,
        temperature=recipe.temperature,
        symmetric=recipe.symmetric,
    )


def _make_end_to_end(recipe: Recipe, encoder: Encoder) -> nn.Module:
    return EndToEnd(encoder, temperature=recipe.temperature)


def _make_simclr(recipe: Recipe, encoder: Encoder) -> nn.Module:
    network = encoder(mlp=False)
    linear = cast(nn.Linear, network.fc)
    network.fc = make_projection_head(linear.in_features, recipe.dim, bn_groups=recipe.bn_groups)
    return SimCLR(network, temperature=recipe.temperature)


METHODS = {"moco": _make_moco, "end-to-end": _make_end_to_end, "simclr": _make_simclr}
OPTIMIZERS = {"sgd": torch.optim.SGD, "lars": LARS}


def make_model(run: TrainingRun) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model as the seed initialises it, the same on every process, on the run's device, with its optimizer.

    Raises:
        UserError: it does not fit into memory.
    """
    recipe = run.recipe
    seed_everything(derive_seed(run.seed, "initialisation"))
    make = partial(
        make_encoder,
        recipe.arch,
        dim=recipe.dim,
        mlp=recipe.mlp,
        bn_groups=recipe.bn_groups,
        zero_init_residual=recipe.zero_init_residual,
        stem=recipe.stem,
    )
    what = f"a {recipe.arch} of {recipe.method}" + (f" with {recipe.queue_size} keys" if recipe.queue_size else "")
    with out_of_memory_means(what, remedy=f"use a smaller {'--queue-size' if recipe.queue_size else '--arch'}"):
        model = METHODS[recipe.method](recipe, make)
        model = model.to(run.device).to(memory_format=torch.channels_last).train()
    if run.compile:
        for encoder in model.children():
            encoder.compile()  # in place, so that the state dict keeps its names
    # All parameters, the key encoder's too, as in the authors' code: those without a gradient are never stepped,
    # and the optimizer's state keeps the authors' numbering.
    optimizer = OPTIMIZERS[recipe.optimizer](
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    return model, optimizer
