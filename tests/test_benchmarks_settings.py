"""Every setting of every protocol class: what is out of its range is one line that names the flag, before any work."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.classification.protocol import KNN_PROTOCOLS, LINEAR_PROTOCOLS
from benchmarks.classification.semi_protocol import SEMI_PROTOCOLS
from benchmarks.classification.svm_protocol import SVM_PROTOCOLS
from benchmarks.detection.protocol import COCO_PROTOCOLS, VOC_PROTOCOLS
from benchmarks.protocol import IDENTITY_FIELDS
from mocobench.cli import main
from mocobench.runtime.errors import UserError

NAN, INF = math.nan, math.inf
COUNT = (0, -1)
RATE = (0.0, -1.0, NAN, INF)
AMOUNT = (-1.0, NAN, INF)
SHARE = (-0.1, 1.1, NAN)
BOUNDS = ((0.2,), (), (0.5, 0.2), (0.0, 1.0), (0.2, 0.5, 1.0), (NAN, 1.0), (0.1, INF))
SPLITS = ((), ("",))
SHOTS = ((0,), (1, -1))
RISING = ((0,), (-1, 5), (5, 5), (6, 5))
VIEWS: dict[str, Any] = {
    "image_size": (*COUNT, 10_000),
    "test_resize": (*COUNT, 8),
    "crop_scale": BOUNDS,
    "crop_ratio": BOUNDS,
    "flip_probability": SHARE,
}
HELD_OUT = (0.0, 1.0, NAN)
RATES = ((), (0.0,), (0.1, -1.0), (NAN,), (INF,))
# Values of each setting that are out of its range, by protocol; None where every value of its type is inside.
BAD: dict[str, tuple[Any, dict[str, Any]]] = {
    "linear": (
        LINEAR_PROTOCOLS["paper"],
        {
            **VIEWS,
            "train_views": ("centre-once", ""),
            "init_std": AMOUNT,
            "optimizer": ("SGD", ""),
            "batch_size": COUNT,
            "epochs": COUNT,
            "learning_rate": RATES,
            "weight_decay": ((), (-1.0,), (0.1, NAN), (INF,)),
            "momentum": AMOUNT,
            "schedule": ("cosine",),
            "decay_epochs": RISING,
            "decay_factor": AMOUNT,
            "held_out": HELD_OUT,
        },
    ),
    "lbfgs": (
        LINEAR_PROTOCOLS["lbfgs"],
        {
            "image_size": VIEWS["image_size"],
            "test_resize": VIEWS["test_resize"],
            "strengths": RATES,
            "held_out": HELD_OUT,
            "tolerance": RATE,
            "max_steps": COUNT,
        },
    ),
    "knn": (
        KNN_PROTOCOLS["paper"],
        {
            "image_size": VIEWS["image_size"],
            "test_resize": VIEWS["test_resize"],
            "neighbors": ((), (0,), (5, -1)),
            "temperature": RATE,
        },
    ),
    "semi": (
        SEMI_PROTOCOLS["paper"],
        {
            **VIEWS,
            "labels": (0.0, -0.1, 1.1, NAN),
            "init_std": AMOUNT,
            "batch_size": COUNT,
            "bn_batch": (1, 0, -1),
            "epochs": COUNT,
            "learning_rate": RATE,
            "momentum": RATE,
            "weight_decay": AMOUNT,
        },
    ),
    "svm": (
        SVM_PROTOCOLS["paper"],
        {
            "train_splits": SPLITS,
            "test_splits": SPLITS,
            "classes": ("VOC", "all"),
            "image_size": COUNT,
            "test_resize": COUNT,
            "grid": COUNT,
            "costs": RATES,
            "folds": (1, 0, -1),
            "positive_weight": RATE,
            "tolerance": RATE,
            "max_steps": COUNT,
            "shots": SHOTS,
            "draws": COUNT,
        },
    ),
}
DETECTION: dict[str, Any] = {
    "train_splits": SPLITS,
    "test_splits": SPLITS,
    "model": ("R101-C4",),
    "box_head": ("2fc", "none"),
    "norm": ("GN",),
    "extra_norm": None,
    "norm_in_heads": (True,),
    **dict.fromkeys(("rois_per_image", "rpn_anchors_per_image", "detections_per_image"), COUNT),
    **dict.fromkeys(("rpn_pre_nms_train", "rpn_post_nms_train", "rpn_pre_nms_test", "rpn_post_nms_test"), COUNT),
    "score_threshold": SHARE,
    "nms_threshold": SHARE,
    "train_short_sides": ((), (0,), (480, -1)),
    "test_short_side": COUNT,
    "max_long_side": COUNT,
    "flip_probability": SHARE,
    "batch_size": COUNT,
    "iterations": COUNT,
    "decay_iterations": RISING,
    "decay_factor": AMOUNT,
    "warmup_iterations": (-1,),
    "warmup_factor": AMOUNT,
    "learning_rate": RATE,
    "momentum": AMOUNT,
    "weight_decay": AMOUNT,
    "weight_decay_norm": AMOUNT,
    "precise_bn_batches": (-1,),
}
BAD["voc"] = (
    VOC_PROTOCOLS["paper"],
    {**DETECTION, "classes": ("VOC", "all"), "metric": ("voc_11", "coco"), "masks": (True,)},
)
BAD["coco"] = (
    COCO_PROTOCOLS["paper"],
    {**DETECTION, "classes": ("voc", "Found"), "metric": ("voc-area", "bbox"), "masks": None},
)
OF_THE_MODEL = {"model", "box_head", "norm", "norm_in_heads"}  # their message names the model that they make


@pytest.mark.parametrize("kind", BAD)
def test_no_setting_is_forgotten(kind: str) -> None:
    protocol, bad = BAD[kind]
    assert bad.keys() == {field.name for field in fields(protocol)} - set(IDENTITY_FIELDS)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, bad) in BAD.items() for name, values in bad.items() if values]
)
def test_a_value_out_of_its_range_is_refused_by_its_flag(kind: str, name: str) -> None:
    protocol, bad = BAD[kind]
    for value in bad[name]:
        with pytest.raises(UserError) as caught:
            replace(protocol, **{name: value})
        message = str(caught.value)
        assert "expected" in message
        assert "\n" not in message
        flag = "--image-size" if (name, value) == ("test_resize", 8) else f"--{name.replace('_', '-')}"
        assert message.startswith(f"protocol {protocol.id}: " if name in OF_THE_MODEL else flag), value


@pytest.mark.parametrize("kind", BAD)
def test_the_edges_of_the_ranges_are_inside(kind: str) -> None:
    protocol, bad = BAD[kind]
    for name, values in bad.items():
        if values in (COUNT, RATE):
            assert replace(protocol, **{name: 1}) is not None, name
        if values in (AMOUNT, (-1,), SHARE):
            assert replace(protocol, **{name: 0}) is not None, name
        if values is SHARE:
            assert replace(protocol, **{name: 1}) is not None, name
        if values in (RISING, SHOTS):
            assert replace(protocol, **{name: ()}) is not None, name


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("voc-detection", ("--metric", "voc_11"), "--metric voc_11: expected one of voc-11-point, voc-area"),
        ("voc-detection", ("--metric", "coco"), "--metric coco: expected one of voc-11-point, voc-area"),
        ("voc-detection", ("--classes", "VOC"), "--classes VOC: expected one of voc, found"),
        ("voc-detection", ("--masks",), "--masks: expected --no-masks on voc-detection, whose objects are boxes alone"),
        ("voc-detection", ("--iterations", "-1"), "--iterations -1: expected a number above 0"),
        ("voc-detection", ("--precise-bn-batches", "-1"), "--precise-bn-batches -1: expected a number from 0 on"),
        ("voc-detection", ("--train-short-sides", "none"), "--train-short-sides none: expected one or more numbers ab"),
        ("coco-detection", ("--metric", "voc-area"), "--metric voc-area: expected one of coco"),
        ("coco-detection", ("--classes", "voc"), "--classes voc: expected one of found"),
        ("coco-detection", ("--train-splits", "none"), "--train-splits none: expected one or more names of splits"),
        ("imagenet-linear", ("--init-std", "-1"), "--init-std -1.0: expected a number from 0 on"),
        ("imagenet-semi", ("--momentum", "0"), "--momentum 0.0: expected a number above 0"),
        ("imagenet-semi", ("--crop-scale", "0.2"), "--crop-scale 0.2: expected two bounds LOW,HIGH above 0"),
        ("imagenet-semi", ("--weight-decay", "-1"), "--weight-decay -1.0: expected a number from 0 on"),
    ],
)
def test_on_the_command_line(task: str, flags: tuple[str, ...], message: str, tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    command = ["bench", task, "--backbone", "random", "--data", str(tmp_path / "nowhere"), "--device", "cpu"]
    assert main([*command, "--results", str(results), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not results.exists()
