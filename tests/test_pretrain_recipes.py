"""Recipes hold the papers' values, and overrides are said."""

from dataclasses import fields
from typing import Any

import pytest

from mocobench.runtime.errors import UserError
from pretrain.cards import REFERENCES, card
from pretrain.moco_recipes import AUG_CIFAR, AUG_PLUS, AUG_V1
from pretrain.recipes import CITED_RECIPES, RECIPES, choose_recipe, customise
from pretrain.schedule import learning_rate
from pretrain.settings import Augmentation, Recipe, vary


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


@pytest.mark.parametrize(
    ("name", "batch_size", "rate", "words"),
    [
        ("simclr-256-200ep", 1024, 1.2, "scaled linearly with the batch size"),
        ("simclr-sqrt-256-200ep", 1024, 2.4, "scaled with the square root of the batch size"),
    ],
)
def test_simclr_scales_its_rate_by_the_recipes_rule(name, batch_size, rate, words) -> None:
    """0.3 x batch / 256 and 0.075 x sqrt(batch)."""
    before = {"simclr-256-200ep": 0.3, "simclr-sqrt-256-200ep": 1.2}[name]
    assert RECIPES[name].learning_rate == pytest.approx(before)
    recipe, differs = customise(RECIPES[name], {"batch_size": batch_size})
    assert recipe.learning_rate == pytest.approx(rate)
    assert differs[1].startswith("learning_rate: ")
    assert differs[1].endswith(f"({words})")
    assert RECIPES["simclr-4096-1000ep"].learning_rate == pytest.approx(4.8)


@pytest.mark.parametrize(("epochs", "decays"), [(100, (60, 80)), (800, (480, 640)), (5, (3, 4)), (1, (1, 1))])
def test_the_steps_of_a_schedule_follow_the_epochs(epochs: int, decays: tuple[int, int]) -> None:
    """Of the 200 epochs of MoCo v1 the rate falls at 120 and 160, 3/5 and 4/5 of the way."""
    recipe, differs = customise(RECIPES["moco-v1-200ep"], {"epochs": epochs})
    assert recipe.decay_epochs == decays
    assert differs == (
        f"epochs: 200 -> {epochs}",
        f"decay_epochs: (120, 160) -> {decays} (scaled with the epochs)",
    )
    assert learning_rate(recipe, decays[0] - 1) == 0.03
    assert learning_rate(recipe, decays[1]) == pytest.approx(0.0003)


def test_half_a_cosine_has_no_steps_to_follow() -> None:
    assert customise(RECIPES["moco-v2-200ep"], {"epochs": 100})[1] == ("epochs: 200 -> 100",)


def test_warm_up_and_cosine_per_step_by_hand() -> None:
    recipe = RECIPES["simclr-256-200ep"]  # 10 epochs of warm-up, 190 of half a cosine, rate 0.3
    rates = [
        learning_rate(recipe, epoch, step, steps_per_epoch=100)
        for epoch, step in ((0, 0), (0, 50), (5, 0), (10, 0), (105, 0), (199, 99))
    ]
    assert rates[:5] == pytest.approx([0, 0.3 * 0.05, 0.15, 0.3, 0.15])
    assert 0 < rates[5] < 1e-6


def test_mocos_rate_stays_the_same_within_an_epoch() -> None:
    recipe = RECIPES["moco-v2-200ep"]
    assert learning_rate(recipe, 7, 99, steps_per_epoch=100) == learning_rate(recipe, 7)


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_has_a_source_that_its_card_prints(name: str) -> None:
    cited = CITED_RECIPES[name]
    views = {f"augmentation.{field.name}" for field in fields(Augmentation)}
    assert cited.sources.keys() == {f.name for f in fields(Recipe)} - {"name", "source", "augmentation"} | views
    text = card(cited.settings)
    for setting, source in cited.sources.items():
        row = next((line for line in text.splitlines() if line.startswith(f"    {setting.split('.')[-1]} ")), None)
        if row is None:  # only what has no effect is left out
            assert setting.split(".")[-1] in (
                "decay_epochs",
                "blur_sigma",
                "queue_size",
                "key_momentum",
                "warmup_epochs",
            )
        else:
            assert row.endswith(f"  {source}")
    assert "bilinear, antialiased" in text
    for tag, reference in REFERENCES.items():
        assert (f"  {tag} {reference}" in text) == (text.count(tag) > 1)


def test_a_card_by_hand() -> None:
    lines = card(RECIPES["moco-v2-200ep"]).splitlines()
    assert lines[0] == "moco-v2-200ep  (arXiv 2003.04297, Table 1 (d))"
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.startswith("    ")}
    assert rows["crop_scale"] == "0.2 to 1 of the image's area [2] main_moco.py"
    assert rows["blur_sigma"].startswith("0.1 to 2 pixels [2] moco/loader.py")
    assert rows["temperature"].startswith("0.2 [3] section 3")
    assert rows["symmetric"] == "no [1] Algorithm 1"
    assert lines[-1] == "  [5] SimCLR: Chen et al., arXiv 2002.05709"  # whose blur it is


@pytest.mark.parametrize("name", RECIPES)
def test_running_statistics_depart_from_the_code_for_several_gpus_only(name: str) -> None:
    is_of_several = name.startswith("moco-") and "cifar10" not in name
    assert ("running statistics move towards the mean" in card(RECIPES[name])) == is_of_several


def test_a_card_says_what_a_run_has_changed() -> None:
    text = card(customise(RECIPES["moco-v2-200ep"], {"batch_size": 128})[0])
    changed = [line.split() for line in text.splitlines() if line.endswith("changed for this run")]
    assert [line[:2] for line in changed] == [["batch_size", "128"], ["learning_rate", "0.015"]]


def test_no_value_changes_without_a_source() -> None:
    with pytest.raises(TypeError):
        vary(CITED_RECIPES["moco-v2-200ep"], temperature=0.5)


@pytest.mark.parametrize("name", ["end-to-end-200ep", "simclr-256-200ep"])
@pytest.mark.parametrize("changes", [{"queue_size": 4096}, {"key_momentum": 0.9}, {"symmetric": False}])
def test_some_settings_are_mocos_alone(name: str, changes: dict[str, Any]) -> None:
    flag = "--" + next(iter(changes)).replace("_", "-")
    with pytest.raises(UserError, match=f"{flag}: expected a recipe of MoCo, found {RECIPES[name].method}"):
        customise(RECIPES[name], changes)


def test_any_recipe_of_moco_can_be_symmetric() -> None:
    recipe, differs = customise(RECIPES["moco-v2-200ep"], {"symmetric": True})
    assert recipe.symmetric
    assert differs == ("symmetric: False -> True",)


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
        ({"batch_size": 0}, "--batch-size 0: expected a number above zero"),
        ({"learning_rate": float("nan")}, "--learning-rate nan: expected a number above zero"),
        ({"learning_rate": float("inf")}, "--learning-rate inf: expected a number above zero"),
        ({"temperature": 0.0}, "--temperature 0.0: expected a number above zero"),
        ({"key_momentum": 2.0}, "--key-momentum 2.0: expected a number from 0 to 1"),
        ({"key_momentum": float("nan")}, "--key-momentum nan: expected a number from 0 to 1"),
        ({"arch": "vgg16"}, "--arch vgg16: expected one of resnet18, resnet34, resnet50"),
    ],
)
def test_impossible_values(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        customise(RECIPES["demo"], changes)


def test_a_run_is_longer_than_its_warm_up() -> None:
    with pytest.raises(UserError, match="--epochs 10: expected more than the 10 epochs of warm-up"):
        customise(RECIPES["simclr-256-200ep"], {"epochs": 10})
