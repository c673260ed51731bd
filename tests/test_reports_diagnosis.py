"""Diagnosis: for each rule a record that triggers it, and rows that need none."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.result import Metric, Result, parse_result
from reports.collect import ReportedResult
from reports.diagnosis import diagnose, what_is_skipped
from reports.published import load_published
from reports.trials import group_results
from reports.twins import IMAGENET_IMAGES

VOC, LINEAR = "voc-detection/moco-c4-24k@1", "imagenet-linear/moco@1"
FALLING = [{"iteration": i, "total_loss": 2.0 - i / 20} for i in range(20)]
FLAT = [{"iteration": i, "total_loss": 1.0} for i in range(20)]


def diagnosis_of(results: list[Result]) -> str:
    (table,) = group_results(results)
    return diagnose(table, table.rows[0], load_published())


@pytest.fixture
def run(make_result: Any) -> Callable[..., Result]:
    """A VOC run of MoCo v2, 200 epochs, whose published twin has AP 57.0 ± 0.2 over 5 trials."""

    def make(ap: float = 50.0, *, differs: tuple[str, ...] = (), details: Any = None, **changes: Any) -> Result:
        protocol = "voc-detection/custom" if differs else VOC
        result = make_result({"ap": ap}, protocol=protocol, base=VOC, differs=differs, digest="d", **changes)
        provenance = {"format": "moco", "recipe": "moco-v2-200ep", "num_images": IMAGENET_IMAGES, "epochs": 200}
        return replace(
            result, details=details or {}, backbone=replace(result.backbone, provenance=provenance, input={})
        )

    return make


def test_a_row_in_its_band_needs_none(run: Callable[..., Result]) -> None:
    assert diagnosis_of([run(56.5)]) == ""
    assert diagnosis_of([run(57.55)]) == ""


def test_a_row_off_its_band_says_how_far_and_what_is_known(run: Callable[..., Result]) -> None:
    text = diagnosis_of([run(56.3)])
    assert text == "MoCo v2, Table 1: AP -0.70 points from 57.0 ± 0.2 (5), band ± 0.6: 1 of 5 trials"
    five = [run(50.0, seed=seed) for seed in range(5)]
    assert diagnosis_of(five).endswith("nothing in the record tells why")


def test_every_metric_that_both_have_is_held_to_its_own_band(run: Callable[..., Result]) -> None:
    """The twin has AP50 82.4 ± 0.2, AP 57.0 ± 0.2 and AP75 63.6 ± 0.4."""
    result = run(57.0)
    metric_info = {name: Metric(name) for name in ("ap50", "ap", "ap75")}

    def diagnosed(**metrics: float) -> str:
        return diagnosis_of([replace(result, metrics=metrics, metric_info=metric_info)])

    assert diagnosed(ap50=82.9, ap=57.0, ap75=64.7) == ""
    only = "MoCo v2, Table 1: AP75 +1.30 points from 63.6 ± 0.4 (5), band ± 1.2: 1 of 5 trials"
    assert diagnosed(ap50=82.9, ap=57.0, ap75=64.9) == only
    both = "AP -1.00 points from 57.0 ± 0.2 (5), band ± 0.6; AP50 -2.40 points from 82.4 ± 0.2 (5), band ± 0.6: "
    assert both in diagnosed(ap50=80.0, ap=56.0, ap75=63.6)


def test_masks_are_held_to_their_twin_too(make_result: Any) -> None:
    """A random C4 backbone on COCO, 1x: box AP 26.4, mask AP 29.3 in MoCo v1."""
    result = make_result({"box_ap": 26.4, "mask_ap": 20.0}, protocol="coco-detection/moco-c4-1x@1", backbone="random")
    assert diagnosis_of([result]).startswith("MoCo v1, COCO, C4 1x: mask AP -9.30 points from 29.3, band ± 0.5: ")


def test_a_backbone_without_a_published_twin_needs_none(make_result: Any, run: Callable[..., Result]) -> None:
    assert diagnosis_of([make_result({"ap": 1.0}, protocol=VOC)]) == ""
    large = run(1.0)  # the published rows are those of ResNet-50s
    assert diagnosis_of([replace(large, backbone=replace(large.backbone, arch="resnet101"))]) == ""


@pytest.mark.parametrize(
    ("differs", "cause"),
    [
        ("iterations: 24000 -> 60", "schedule or batch scaled (iterations: 24000 -> 60)"),
        ("batch_size: 16 -> 2", "schedule or batch scaled (batch_size: 16 -> 2)"),
        ("norm: SyncBN -> FrozenBN", "BN statistics: norm: SyncBN -> FrozenBN"),
        ("precise_bn_batches: 200 -> 0", "BN statistics: precise_bn_batches: 200 -> 0"),
        ("test images: 4952 -> 20", "other data, or a subset of it: test images: 4952 -> 20"),
    ],
)
def test_a_custom_row_is_not_compared_but_told_why(run: Callable[..., Result], differs: str, cause: str) -> None:
    text = diagnosis_of([run(differs=(differs,))])
    assert text.startswith("not run as MoCo v2, Table 1: 57.0 ± 0.2 (5): ")
    assert cause in text
    assert "points" not in text


def test_the_same_input_in_another_range_and_every_right_fact_are_no_causes(run: Callable[..., Result]) -> None:
    given = {"channel_order": "RGB", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    given |= {"max_value": 255.0, "stride_in_1x1": False}
    details = {"loss_curve": FLAT, "batch_norm": "over the whole batch of 16 images", "best_epoch": {"ap": 50.0}}
    results = []
    for seed in range(5):
        result = run(50.0, seed=seed, details=details)
        results.append(replace(result, backbone=replace(result.backbone, input=given)))
    assert diagnosis_of(results).endswith("band ± 0.6: nothing in the record tells why")
    other = [replace(one, backbone=replace(one.backbone, input={**given, "max_value": 1.0})) for one in results]
    assert "input convention: mean [123.675, 116.28, 103.53], std [58.395, 57.12, 57.375]" in diagnosis_of(other)
    assert diagnosis_of([run(differs=("score_threshold: 0.05 -> 0.1",), seed=seed) for seed in range(5)]).endswith(
        "nothing in the record tells why"
    )


def test_the_plan_for_fewer_devices_is_shown(run: Callable[..., Result]) -> None:
    text = diagnosis_of([run(differs=("batch_size: 16 -> 2",), details={"plan": "an eighth of the batch"})])
    assert "schedule or batch scaled (batch_size: 16 -> 2, an eighth of the batch)" in text


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"channel_order": "BGR"}, "input convention: channel order BGR"),
        ({"mean": [0.0, 0.0, 0.0]}, "input convention: mean [0.0, 0.0, 0.0]"),
        ({"std": [1.0, 1.0, 1.0]}, "input convention: std [1.0, 1.0, 1.0]"),
        ({"stride_in_1x1": True}, "stride in the 1x1 convolutions, not in the 3x3"),
    ],
)
def test_the_backbones_input_and_stride(run: Callable[..., Result], given: dict[str, Any], cause: str) -> None:
    result = run()
    assert cause in diagnosis_of([replace(result, backbone=replace(result.backbone, input=given))])


def test_simclrs_own_input_is_no_cause(make_result: Any) -> None:
    result = make_result({"top1": 60.0}, protocol="imagenet-linear/simclr@1")
    provenance = {"format": "moco", "recipe": "simclr-256-200ep", "num_images": IMAGENET_IMAGES, "epochs": 200}
    own = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    result = replace(result, backbone=replace(result.backbone, provenance=provenance, input=own))
    assert diagnosis_of([result]) == "SimCLR, Table B.1: top-1 -1.90 points from 61.9, band ± 0.5: 1 of 2 trials"


MSRA = {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "max_value": 255.0}


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (MSRA | {"stride_in_1x1": True}, ""),
        ({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, ""),  # torchvision's, with what they want
        ({}, ""),
        (MSRA, "stride in the 3x3 convolutions, not in the 1x1"),
        ({"stride_in_1x1": True}, "stride in the 1x1 convolutions, not in the 3x3"),
        (
            MSRA | {"stride_in_1x1": True, "channel_order": "RGB"},
            "input convention: channel order RGB",
        ),
        (
            MSRA | {"stride_in_1x1": True, "std": [57.375, 57.12, 58.395]},
            "input convention: std [57.375, 57.12, 58.395] of 255.0",
        ),
    ],
)
def test_the_supervised_row_of_detection_had_msras_weights(make_result: Any, given: Any, cause: str) -> None:
    """MoCo v2's Table 1 has 53.5 ± 0.2 for them."""
    results = [make_result({"ap": 50.0}, protocol=VOC, digest="d", seed=seed) for seed in range(5)]
    provenance = {"format": "msra", "method": "supervised"}
    results = [replace(one, backbone=replace(one.backbone, provenance=provenance, input=given)) for one in results]
    off = "MoCo v2, Table 1: AP -3.50 points from 53.5 ± 0.2 (5), band ± 0.6: "
    assert diagnosis_of(results) == off + (cause or "nothing in the record tells why")


def test_msras_convention_is_a_cause_where_the_papers_had_others(make_result: Any) -> None:
    result = make_result({"top1": 70.0}, protocol=LINEAR)
    provenance = {"format": "msra", "method": "supervised"}
    given = MSRA | {"stride_in_1x1": True}
    text = diagnosis_of([replace(result, backbone=replace(result.backbone, provenance=provenance, input=given))])
    assert "input convention: channel order BGR, mean [103.53, 116.28, 123.675] of 255.0, std [1.0" in text
    assert "stride in the 1x1 convolutions" in text


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        ({"batch_norm": "over parts of 2 images of 16"}, "BN statistics: over parts of 2 images of 16"),
        ({"loss_curve": FALLING}, "seed 0: the loss is still falling at the end"),
        ({"loss_curve": [*FLAT, {"total_loss": float("nan")}]}, "seed 0: the loss ends as nan"),
    ],
)
def test_what_the_run_recorded(run: Callable[..., Result], details: dict[str, Any], cause: str) -> None:
    assert cause in diagnosis_of([run(details=details)])


def test_a_converged_loss_and_whole_batches_are_no_causes(run: Callable[..., Result]) -> None:
    for batch in ("16 images", "16 images, synchronised over 8 processes"):
        text = diagnosis_of([run(details={"loss_curve": FLAT, "batch_norm": f"over the whole batch of {batch}"})])
        assert "loss" not in text
        assert "BN" not in text


def test_precision_and_skipped_annotations(run: Callable[..., Result]) -> None:
    text = diagnosis_of([replace(run(skipped=("image 1: empty box",)), precision="bf16")])
    assert "precision bf16, not fp32" in text
    assert "1 annotations skipped" in text
    assert (what_is_skipped("coco-detection"), what_is_skipped("imagenet-knn")) == ("annotations", "images")


def test_a_published_number_that_only_the_best_epoch_meets(make_result: Any) -> None:
    result = make_result({"top1": 66.0}, protocol=LINEAR)
    provenance = {"format": "moco", "recipe": "moco-v2-200ep", "num_images": IMAGENET_IMAGES, "epochs": 200}
    result = replace(result, backbone=replace(result.backbone, provenance=provenance))
    met, missed = (replace(result, details={"best_epoch": {"top1": best}}) for best in (67.4, 66.2))
    assert "the best epoch, chosen on the test set, reads 67.40" in diagnosis_of([met])
    assert "best epoch" not in diagnosis_of([missed])


def test_the_losses_of_a_classifiers_epochs_are_read_from_its_record(run: Callable[..., Result]) -> None:
    curve = [{"epoch": epoch, "learning_rate": 30.0, "loss": 10.0 - 0.4 * epoch} for epoch in range(20)]
    record = run(details={"curve": curve}).to_json().encode()
    assert "seed 0: the loss is still falling at the end" in diagnosis_of([parse_result(record, ReportedResult)])
