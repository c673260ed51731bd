"""Claims: their schema, and each answer from records that give it."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.result import Result
from reports.claims import load_claims, published_side, read_claims
from reports.published import load_published
from reports.trials import group_results
from reports.twins import IMAGENET_IMAGES
from reports.verdicts import CONTRADICTED, NOT_MEASURED, SUPPORTED, UNDECIDED, Verdict, judge, verdict_table

LINEAR, VOC = "imagenet-linear/moco@1", "voc-detection/moco-c4-24k@1"
CLAIMS = {claim.name: claim for claim in load_claims()}


@pytest.fixture
def runs(make_result: Any) -> Any:
    """Records of a recipe of 200 epochs, one for each value of the metric."""

    def make(recipe: str, values: tuple[float, ...], *, protocol: str = LINEAR, **changes: Any) -> list[Result]:
        metric = "top1" if protocol == LINEAR else "ap"
        made = []
        for seed, value in enumerate(values):
            result = make_result({metric: value}, protocol=protocol, seed=seed, digest=recipe, **changes)
            provenance = {"format": "moco", "recipe": recipe, "num_images": IMAGENET_IMAGES, "epochs": 200}
            made.append(replace(result, backbone=replace(result.backbone, provenance=provenance)))
        return made

    return make


def verdict(name: str, results: list[Result]) -> Verdict:
    return judge(CLAIMS[name], group_results(results), load_published())


def test_every_side_of_every_claim_names_published_rows() -> None:
    for claim in CLAIMS.values():
        for side in (claim.higher, claim.lower):
            assert published_side(claim, side, load_published()), (claim.name, side)


@pytest.mark.parametrize(("answer", "points"), [(SUPPORTED, 5.0), (CONTRADICTED, -5.0), (UNDECIDED, 0.0)])
@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_can_get_every_answer(runs: Any, name: str, answer: str, points: float) -> None:
    """Five trials so many points above what is published for the other side: the measured side may be either."""
    claim = CLAIMS[name]
    is_higher = "recipe" in claim.higher
    own, other = (claim.higher, claim.lower) if is_higher else (claim.lower, claim.higher)
    published = published_side(claim, other, load_published())[0].metrics[claim.metric]
    centre = published + (points if is_higher else -points)
    values = tuple(centre + step for step in (-0.3, -0.1, 0.0, 0.1, 0.3))
    found = verdict(name, runs(own["recipe"], values, protocol=claim.protocol))
    assert found.answer == answer
    assert found.p is not None
    assert (found.p <= 0.05) is (answer != UNDECIDED)
    assert "published" in (found.lower if is_higher else found.higher)


def test_nothing_measured_is_not_measured() -> None:
    assert {judge(claim, (), load_published()).answer for claim in CLAIMS.values()} == {NOT_MEASURED}


def test_smoke_and_custom_runs_measure_no_claim(runs: Any) -> None:
    values = (90.0, 90.1, 90.2)
    smoke = runs("moco-v2-200ep", values, protocol="imagenet-linear/smoke@1")
    custom = runs("moco-v2-200ep", values, differs=("epochs: 100 -> 3",))
    assert verdict("beats-simclr-sqrt-rule", [*smoke, *custom]).answer == NOT_MEASURED


def test_above_a_published_number_without_a_spread(runs: Any) -> None:
    found = verdict("beats-simclr-sqrt-rule", runs("moco-v2-200ep", (67.7, 67.6, 67.4, 67.6, 67.3)))
    assert found.answer == SUPPORTED
    assert found.test == "one-sample t, tolerance 0.1 points"
    assert found.lower == "64.3, published: SimCLR, Table B.1"
    assert found.difference.startswith("+3.22 ± ")
    assert found.p is not None
    assert found.p < 1e-4


def test_the_falsifier_is_the_same_question_the_other_way(runs: Any) -> None:
    above, below = (67.7, 67.6, 67.4), (63.1, 63.0, 63.2)
    assert verdict("falsifier-simclr", runs("moco-v2-200ep", above)).answer == CONTRADICTED
    assert verdict("falsifier-simclr", runs("moco-v2-200ep", below)).answer == SUPPORTED
    assert verdict("beats-simclr-sqrt-rule", runs("moco-v2-200ep", below)).answer == CONTRADICTED


def test_one_trial_decides_nothing(runs: Any) -> None:
    found = verdict("beats-simclr-sqrt-rule", runs("moco-v2-200ep", (67.7,)))
    assert (found.answer, found.p, found.more_trials) == (UNDECIDED, None, None)
    beside_five = verdict("mlp-helps-linear", runs("moco-v2-a", (66.2,)))
    assert beside_five.lower.startswith("60.8 ± 0.2 (5), published")
    assert (beside_five.answer, beside_five.p) == (UNDECIDED, None)
    assert beside_five.test == "none: a single trial, or no spread over trials"


def test_undecided_says_how_many_more(runs: Any) -> None:
    found = verdict("beats-simclr-sqrt-rule", runs("moco-v2-200ep", (64.3, 65.3, 64.9)))
    assert found.answer == UNDECIDED
    assert found.p is not None
    assert found.p > 0.05
    assert found.more_trials is not None
    (row,) = verdict_table([found]).rows
    assert row.cells[1] == "undecided"
    assert row.cells[-1] == f"{found.more_trials} a side"


def test_both_sides_measured_few_trials_are_tested_exactly(runs: Any) -> None:
    found = verdict(
        "mlp-helps-linear", runs("moco-v2-a", (66.0, 66.1, 66.2)) + runs("moco-v1-200ep", (60.5, 60.6, 60.7))
    )
    assert (found.answer, found.test, found.p) == (SUPPORTED, "exact, all splits of 3 + 3", pytest.approx(1 / 20))
    assert (found.higher, found.lower) == ("66.10 ± 0.10 (3 runs)", "60.60 ± 0.10 (3 runs)")


def test_both_sides_measured_more_trials_are_tested_by_welch(runs: Any) -> None:
    more = runs("moco-v2-b", (56.7, 56.9, 56.8, 57.0, 56.6), protocol=VOC)
    less = runs("moco-v2-a", (56.3, 56.5, 56.4, 56.6, 56.2), protocol=VOC)
    found = verdict("aug-helps-detection-more", more + less)
    assert (found.answer, found.test) == (SUPPORTED, "Welch")


def test_the_published_twin_stands_for_the_side_that_is_not_measured(runs: Any) -> None:
    found = verdict("beats-supervised-detection", runs("moco-v2-200ep", (57.1, 57.0, 56.9, 57.2, 57.0), protocol=VOC))
    assert (found.answer, found.test) == (SUPPORTED, "Welch")
    assert found.lower == "53.5 ± 0.2 (5), published: MoCo v2, Table 1"


def test_other_epochs_are_another_pretraining(runs: Any) -> None:
    results = [
        replace(run, backbone=replace(run.backbone, provenance={**run.backbone.provenance, "epochs": 50}))
        for run in runs("moco-v2-200ep", (67.0, 67.1, 67.2))
    ]
    assert verdict("beats-simclr-sqrt-rule", results).answer == NOT_MEASURED


def test_mixed_engines_are_refused(runs: Any) -> None:
    one, two = ({"name": "embedded"}, {"name": "detectron2"})
    mixed = [*runs("moco-v2-200ep", (57.0, 57.1), protocol=VOC, engine=one)]
    mixed += runs("moco-v2-200ep", (57.0, 57.1), protocol=VOC, engine=two)
    found = verdict("beats-supervised-detection", mixed)
    mixes = "none: its measured rows mix engines, precisions, archs or BatchNorm statistics"
    assert (found.answer, found.test) == (UNDECIDED, mixes)


def test_of_several_pretrainings_each_is_one_trial(runs: Any) -> None:
    results = []
    for number, values in enumerate(((67.0, 67.2), (67.4, 67.6), (67.1, 67.3))):
        for run in runs("moco-v2-200ep", values):
            results.append(replace(run, backbone=replace(run.backbone, digest=str(number))))
    assert verdict("beats-simclr-sqrt-rule", results).higher == "67.27 ± 0.21 (3 backbones)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tolerance = 0.1", "claim 1: .*missing"),
        ('text = "t"\ntolerance = 0.1\nhigher = { epoch = 1 }', "claim 1: a side: expected keys of .* found"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "claims.toml"
    sides = "" if "higher" in change else 'higher = { recipe = "a" }\n'
    path.write_text(
        f'[[claims]]\nname = "n"\nprotocol = "a/b@1"\nmetric = "m"\nlower = {{ recipe = "b" }}\n{sides}{change}'
    )
    with pytest.raises(ValueError, match=message):
        read_claims(path)


@pytest.mark.parametrize(
    "changed",
    [{"recipe_changes": "epochs: 200 -> 100"}, {"num_images": 128_116}, {"num_images": None}, {"encoder": "key"}],
)
def test_a_changed_recipe_other_images_or_another_encoder_prove_nothing(runs: Any, changed: dict[str, Any]) -> None:
    """The name of the recipe stays what it was; its twin in the paper does not."""
    results = [
        replace(run, backbone=replace(run.backbone, provenance=run.backbone.provenance | changed))
        for run in runs("moco-v2-200ep", (67.7, 67.6, 67.4, 67.6, 67.3))
    ]
    assert verdict("beats-simclr-sqrt-rule", results).answer == NOT_MEASURED
