"""Recipes hold the papers' values, and overrides are said."""

from dataclasses import asdict

import pytest

from mocobench.runtime.errors import UserError
from pretrain.recipes import AUG_CIFAR, AUG_PLUS, AUG_V1, RECIPES, card, choose_recipe, customise
from pretrain.schedule import learning_rate


@pytest.mark.parametrize(
    ("name", "mlp", "augmentation", "cosine", "epochs", "temperature"),
    [
        ("moco-v1-200ep", False, AUG_V1, False, 200, 0.07),
        ("moco-v2-a", True, AUG_V1, False, 200, 0.2),
        ("moco-v2-b", False, AUG_PLUS, False, 200, 0.07),
        ("moco-v2-c", True, AUG_PLUS, False, 200, 0.2),
        ("moco-v2-200ep", True, AUG_PLUS, True, 200, 0.2),
        ("moco-v2-800ep", True, AUG_PLUS, True, 800, 0.2),
    ],
)
def test_rows_of_table_1(name, mlp, augmentation, cosine, epochs, temperature) -> None:
    recipe = RECIPES[name]
    assert (recipe.mlp, recipe.augmentation, recipe.cosine, recipe.epochs) == (mlp, augmentation, cosine, epochs)
    assert recipe.temperature == temperature
    shared = (recipe.batch_size, recipe.learning_rate, recipe.momentum, recipe.weight_decay)
    assert shared == (256, 0.03, 0.9, 1e-4)
    assert (recipe.dim, recipe.queue_size, recipe.key_momentum, recipe.image_size) == (128, 65536, 0.999, 224)


@pytest.mark.parametrize(("name", "symmetric"), [("moco-v2-cifar10", False), ("moco-v2-cifar10-symmetric", True)])
def test_the_authors_cifar_demo(name, symmetric) -> None:
    """The arguments that colab/moco_cifar10_demo.ipynb prints, and its transforms."""
    recipe = RECIPES[name]
    assert (recipe.arch, recipe.batch_size, recipe.bn_groups) == ("resnet18", 512, 8)
    assert (recipe.cosine, recipe.epochs) == (True, 200)
    assert (recipe.learning_rate, recipe.weight_decay) == (0.06, 5e-4)
    assert (recipe.dim, recipe.queue_size, recipe.key_momentum, recipe.temperature) == (128, 4096, 0.99, 0.1)
    assert (recipe.symmetric, recipe.mlp, recipe.stem, recipe.image_size) == (symmetric, False, "3x3", 32)
    assert recipe.augmentation is AUG_CIFAR
    assert AUG_CIFAR.order == ("crop", "flip", "jitter", "grayscale")
    assert (AUG_CIFAR.crop_scale, AUG_CIFAR.blur_probability) == ((0.08, 1.0), 0.0)


def test_step_schedule_by_hand() -> None:
    recipe = RECIPES["moco-v1-200ep"]
    rates = [learning_rate(recipe, epoch) for epoch in (0, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])


def test_cosine_schedule_by_hand() -> None:
    recipe = RECIPES["moco-v2-200ep"]
    # cos(0) = 1, cos(pi/2) = 0, cos(pi/3) = 1/2 at epoch 200/3, so 0.03 * 3/4 near epoch 66.67
    assert learning_rate(recipe, 0) == 0.03
    assert learning_rate(recipe, 100) == pytest.approx(0.015)
    assert learning_rate(recipe, 66) > 0.0225 > learning_rate(recipe, 67)
    assert learning_rate(recipe, 199) > 0


def test_batch_size_scales_the_rate_linearly() -> None:
    recipe, differs = customise(RECIPES["moco-v2-200ep"], {"batch_size": 128})
    assert recipe.learning_rate == 0.015  # the authors' own figure for 4 GPUs
    assert differs == ("batch_size: 256 -> 128", "learning_rate: 0.03 -> 0.015 (scaled linearly with the batch size)")


def test_batch_size_leaves_a_given_rate_alone() -> None:
    recipe, differs = customise(RECIPES["moco-v2-200ep"], {"batch_size": 128, "learning_rate": 0.03})
    assert recipe.learning_rate == 0.03
    assert differs == ("batch_size: 256 -> 128",)


def test_card_states_every_value() -> None:
    text = card(RECIPES["moco-v2-200ep"])
    settings = asdict(RECIPES["moco-v2-200ep"])
    for name in settings.keys() - {"name", "source", "augmentation"}:
        assert f"  {name} " in text
    for name in settings["augmentation"]:
        assert f"  augmentation.{name} " in text


def test_unknown_recipe_lists_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"--recipe moco-v4: expected one of moco-v1-200ep, .*demo"):
        choose_recipe("moco-v4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected a number above zero"),
        ({"batch_size": 32, "bn_groups": 5}, "--bn-groups 5: expected a divisor of the batch size 32"),
        ({"batch_size": 4, "bn_groups": 4}, "leaves at least 2 images a group"),
        ({"queue_size": -1}, "--queue-size -1: expected a number above zero"),
        ({"arch": "vgg16"}, "--arch vgg16: expected one of resnet18, resnet34, resnet50"),
    ],
)
def test_impossible_values(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        customise(RECIPES["demo"], changes)
