"""The detectron2 engine: its configuration, data and start, and whole runs that answer as the embedded engine's."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.context import Measurement, RunContext
from benchmarks.detection import detectron2_engine
from benchmarks.detection.detectron2_config import build_config
from benchmarks.detection.detectron2_data import Batches, dataset_dicts, mask_format, registered, training_batches
from benchmarks.detection.detectron2_evaluation import YEARS, build_evaluator
from benchmarks.detection.detectron2_weights import compare_with_file, load_start
from benchmarks.detection.embedded_model import build_model, load_detector
from benchmarks.detection.protocol import (
    COCO_FPN_2FC_1X,
    COCO_FPN_4CONV1FC_1X,
    COCO_PAPER,
    COCO_PROTOCOLS,
    VOC_PAPER,
    VOC_PROTOCOLS,
    DetectionProtocol,
)
from benchmarks.detection.records import DetectionData, DetectionSet, LabelledImage
from benchmarks.detection.voc_data import read_voc
from benchmarks.protocol import IDENTITY_FIELDS
from benchmarks.tasks import coco_detection, voc_detection
from mocobench.runtime.errors import UserError
from transfer.backbone import Backbone, InputSpec, Provenance, expected_shapes

pytestmark = pytest.mark.detectron2
pytest.importorskip("detectron2", reason="Detectron2 is not installed")

SPEC = InputSpec(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.5))
# A changed value of every setting that the configuration holds; `model` and `box_head` have tests of their own.
CHANGES: dict[str, Any] = {
    "masks": True,
    "norm": "BN",
    "extra_norm": False,
    "rois_per_image": 7,
    "rpn_anchors_per_image": 7,
    "rpn_pre_nms_train": 7,
    "rpn_post_nms_train": 7,
    "rpn_pre_nms_test": 7,
    "rpn_post_nms_test": 7,
    "score_threshold": 0.07,
    "nms_threshold": 0.7,
    "detections_per_image": 7,
    "train_short_sides": (7, 8),
    "test_short_side": 7,
    "max_long_side": 7,
    "flip_probability": 0.0,
    "batch_size": 7,
    "iterations": 700,
    "decay_iterations": (7,),
    "decay_factor": 0.7,
    "warmup_iterations": 7,
    "warmup_factor": 0.7,
    "learning_rate": 0.7,
    "momentum": 0.7,
    "weight_decay": 0.7,
    "weight_decay_norm": 0.7,
    "precise_bn_batches": 7,
}
# The task reads the data that these name; `metric` also chooses the evaluator.
OF_THE_DATA = {"train_splits", "test_splits", "classes", "metric"}


def config(protocol: DetectionProtocol, *, spec: InputSpec = SPEC, stride_in_1x1: bool = False, norm: str = "") -> Any:
    return build_config(protocol, spec=spec, stride_in_1x1=stride_in_1x1, num_classes=3, norm=norm or protocol.norm)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_setting_reaches_the_configuration(name: str) -> None:
    assert getattr(VOC_PAPER, name) != CHANGES[name]
    assert config(replace(VOC_PAPER, **{name: CHANGES[name]})).dump() != config(VOC_PAPER).dump()


def test_no_setting_is_forgotten() -> None:
    covered = {*CHANGES, *OF_THE_DATA, *IDENTITY_FIELDS, "model", "box_head", "norm_in_heads"}
    assert {field.name for field in fields(DetectionProtocol)} == covered
    two_fc, four_convs = config(COCO_FPN_2FC_1X), config(COCO_FPN_4CONV1FC_1X)
    assert (two_fc.MODEL.ROI_BOX_HEAD.NUM_CONV, two_fc.MODEL.ROI_BOX_HEAD.NUM_FC) == (0, 2)
    assert (four_convs.MODEL.ROI_BOX_HEAD.NUM_CONV, four_convs.MODEL.ROI_BOX_HEAD.NUM_FC) == (4, 1)
    assert (two_fc.MODEL.ROI_BOX_HEAD.NORM, two_fc.MODEL.ROI_MASK_HEAD.NORM, two_fc.MODEL.FPN.NORM) == (
        "",
        "",
        "SyncBN",
    )
    assert four_convs.MODEL.ROI_BOX_HEAD.NORM == four_convs.MODEL.ROI_MASK_HEAD.NORM == "SyncBN"
    assert set(YEARS) | {"coco"} == {"voc-11-point", "voc-area", "coco"}


def test_the_paper_configuration_is_the_authors() -> None:
    """Values of Base-RCNN-C4-BN.yaml, pascal_voc_R_50_C4_24k_moco.yaml and coco_R_50_C4_2x_moco.yaml."""
    moco = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    voc, coco = config(VOC_PAPER, spec=moco), config(COCO_PAPER, spec=moco)
    for cfg in (voc, coco):
        assert cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
        assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)
        assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.TEST.PRECISE_BN.ENABLED) == (0, True)
        assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR) == (16, 0.02)
        assert pytest.approx([123.675, 116.280, 103.530]) == cfg.MODEL.PIXEL_MEAN
        assert pytest.approx([58.395, 57.120, 57.375]) == cfg.MODEL.PIXEL_STD
        assert (cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("RGB", False)
        assert cfg.INPUT.MIN_SIZE_TEST == 800
    assert (voc.MODEL.MASK_ON, coco.MODEL.MASK_ON) == (False, True)
    assert voc.INPUT.MIN_SIZE_TRAIN == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert coco.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert (voc.SOLVER.STEPS, voc.SOLVER.MAX_ITER, voc.SOLVER.WARMUP_ITERS) == ((18000, 22000), 24000, 100)
    assert (coco.SOLVER.STEPS, coco.SOLVER.MAX_ITER) == ((120000, 160000), 180000)


def test_the_weights_side_comes_from_the_weights() -> None:
    cfg = config(VOC_PAPER, spec=replace(SPEC, channel_order="BGR", max_value=255.0), stride_in_1x1=True)
    assert cfg.MODEL.PIXEL_MEAN == [0.4, 0.5, 0.6]
    assert (cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("BGR", True)
    assert pytest.approx([25.5, 51.0, 127.5]) == config(VOC_PAPER).MODEL.PIXEL_STD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_probability": 0.3}, "expected flip_probability 0 or 0.5, found 0.3"),
        ({"iterations": 50}, "expected warmup_iterations of at most the 50 iterations, found 100"),
        ({"model": "R50-C5"}, "model R50-C5"),
    ],
)
def test_what_it_cannot_hold_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(replace(VOC_PAPER, **changes))


def test_records_become_detectron2s_entries() -> None:
    rle = {"size": [50, 60], "counts": [0, 100, 2900]}
    image = LabelledImage(
        image_id=7,
        path=Path("seven.jpg"),
        width=60,
        height=50,
        boxes=np.array([[1, 2, 30, 40], [0, 0, 60, 50]], dtype=np.float32),
        labels=np.array([2, 0]),
        difficult=np.array([True, False]),
        crowd=np.array([False, True]),
        segmentations=([[1, 2, 30, 2, 30, 40]], rle),
    )
    (entry,) = dataset_dicts(DetectionSet((image,), ("a", "b", "c")))
    assert {entry["file_name"], entry["image_id"], entry["width"], entry["height"]} == {"seven.jpg", 7, 60, 50}
    assert [each["bbox"] for each in entry["annotations"]] == [[1, 2, 30, 40], [0, 0, 60, 50]]
    assert [(each["category_id"], each["iscrowd"]) for each in entry["annotations"]] == [(2, 0), (0, 1)]
    assert isinstance(entry["annotations"][1]["segmentation"]["counts"], bytes)
    assert mask_format(DetectionSet((image,), ("a", "b", "c"))) == "polygon"  # only the crowd has a run-length code
    assert mask_format(DetectionSet((replace(image, crowd=np.array([True, False])),), ("a", "b", "c"))) == "bitmask"


# Whole runs.

TINY = {
    "train_short_sides": (48,),
    "test_short_side": 48,
    "max_long_side": 64,
    "iterations": 4,
    "decay_iterations": (3,),
    "warmup_iterations": 2,
    "precise_bn_batches": 1,
    "rois_per_image": 8,
    "rpn_post_nms_train": 16,
    "rpn_post_nms_test": 8,
    "detections_per_image": 4,
    "score_threshold": 0.0,
}
CPU = RunContext(seed=3, device=torch.device("cpu"), precision="fp32", num_workers=0)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A ResNet-50 with small random weights."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in expected_shapes("resnet50").items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(5)
        elif len(shape) == 4:
            tensors[name] = torch.randn(shape, generator=generator) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        else:
            tensors[name] = torch.full(shape, 0.0 if name.endswith(("bias", "mean")) else 0.9)
    return Backbone("resnet50", tensors, SPEC, Provenance("random", "random"))


def save_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two training images and two test images without `pose` or `truncated`, corners in another order, odd names."""
    year = tmp_path / "voc" / "VOC2007"
    for number, split in enumerate(("trainval", "trainval", "test", "test")):
        stem = f"im (ge {number}"
        save_picture(year / "JPEGImages" / f"{stem}.JPG", number)
        box = "<ymax>40</ymax><xmin>5</xmin><xmax>50</xmax><ymin>6</ymin>"
        objects = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"
            for name, difficult in (("a/big dog", 0), ("cat", number % 2))
        )
        (year / "Annotations").mkdir(exist_ok=True)
        (year / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation><size><width>60</width><height>50</height></size>{objects}</annotation>"
        )
        (year / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        with (year / "ImageSets/Main" / f"{split}.txt").open("a") as lines:
            lines.write(f"{stem}\n")
    return tmp_path / "voc"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two training images and two test images with category ids 5 and 90."""
    data = tmp_path / "coco"
    for offset, split in ((0, "train2017"), (2, "val2017")):
        images, annotations = [], []
        for number in (offset + 1, offset + 2):
            save_picture(data / split / f"{number}.jpg", number)
            images.append({"id": number, "file_name": f"{number}.jpg", "width": 60, "height": 50})
            for category in (5, 90):
                square = [[5, 6, 50, 6, 50, 40, 5, 40]]
                one = {"id": 10 * number + category, "image_id": number, "category_id": category, "iscrowd": 0}
                annotations.append({**one, "bbox": [5, 6, 45, 34], "area": 1530, "segmentation": square})
        categories = [{"id": 90, "name": "toothbrush"}, {"id": 5, "name": "plane"}]
        (data / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (data / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return data


def same_shape(one: Measurement, other: Measurement) -> None:
    """The same metrics, and a curve of the same points with the same losses."""
    assert one.metrics.keys() == other.metrics.keys() == one.metric_info.keys()
    assert one.data == other.data
    curves = one.details["loss_curve"], other.details["loss_curve"]
    assert [point.keys() for point in curves[0]] == [point.keys() for point in curves[1]]
    for key in ("iteration", "learning_rate"):
        assert [p[key] for p in curves[0]] == pytest.approx([p[key] for p in curves[1]])
    assert {"per_class", "train_seconds", "detection_seconds"} <= one.details.keys() & other.details.keys()


def test_voc_run_answers_as_the_embedded_engines(
    voc: Path,
    backbone: Backbone,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_in_silence(*arguments: Any) -> Any:
        capfd.readouterr()
        outcome = run(*arguments)
        assert capfd.readouterr() == ("", "")
        return outcome

    run = detectron2_engine.run
    monkeypatch.setattr(detectron2_engine, "run", run_in_silence)
    protocol = replace(VOC_PROTOCOLS["smoke"], **TINY)
    out = tmp_path / "out"
    theirs = voc_detection.run(backbone, voc, protocol, replace(CPU, engine="detectron2", out=out))
    same_shape(theirs, voc_detection.run(backbone, voc, protocol, replace(CPU, engine="embedded")))
    assert theirs.details["detections"] == 8
    assert theirs.details["evaluator_difference"] < 1e-9
    assert theirs.details["batch_norm"] == "over the whole batch of 2 images"
    for name in ("config.yaml", "log.txt", "metrics.json", "model_final.pth"):
        assert (out / name).stat().st_size > 0
    ours = build_model(backbone, protocol, num_classes=2, seed=0)
    load_detector(ours, out / "model_final.pth")
    saved = torch.load(out / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in ours.state_dict().items())
    # The trained detector, evaluated again by each engine.
    for engine in ("detectron2", "embedded"):
        again = voc_detection.run(
            backbone, voc, protocol, replace(CPU, engine=engine, detector=out / "model_final.pth")
        )
        assert again.metrics == pytest.approx(theirs.metrics, abs=1e-6), engine
        assert again.details["loss_curve"] == []


def test_coco_run_answers_as_the_embedded_engines(coco: Path, backbone: Backbone) -> None:
    protocol = replace(COCO_PROTOCOLS["smoke"], **TINY)
    theirs = coco_detection.run(backbone, coco, protocol, replace(CPU, engine="detectron2"))
    same_shape(theirs, coco_detection.run(backbone, coco, protocol, replace(CPU, engine="embedded")))
    assert theirs.details["evaluator_difference"] < 1e-6
    assert theirs.details["mask_format"] == "polygon"


def test_a_stopped_run_goes_on_and_another_is_refused(voc: Path, backbone: Backbone, tmp_path: Path) -> None:
    protocol = replace(VOC_PROTOCOLS["smoke"], **TINY)
    context = replace(CPU, engine="detectron2", out=tmp_path / "out", checkpoint_every=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__iter__", stopping_after(3))
        with pytest.raises(KeyboardInterrupt):
            voc_detection.run(backbone, voc, protocol, context)
    with pytest.raises(UserError, match=r"detectron2_run.json: expected a run of the same settings.*seed.*4"):
        voc_detection.run(backbone, voc, protocol, replace(context, seed=4))
    with pytest.raises(UserError, match=r"--resume never: .* holds a run of Detectron2"):
        voc_detection.run(backbone, voc, protocol, replace(context, resume="never"))
    resumed = voc_detection.run(backbone, voc, protocol, context)
    assert "from iteration 2;" in resumed.details["resumed"]
    (point,) = resumed.details["loss_curve"]
    assert point["iteration"] == 4
    assert point["learning_rate"] == pytest.approx(0.1 * protocol.learning_rate)  # the schedule went on, too


def stopping_after(num_batches: int) -> Any:
    def batches(self: Batches) -> Any:
        for number, batch in enumerate(self.loader):
            if number == num_batches:
                raise KeyboardInterrupt
            yield batch

    return batches


def test_a_loss_that_is_not_finite_names_the_images(voc: Path, backbone: Backbone) -> None:
    protocol = replace(VOC_PROTOCOLS["smoke"], **TINY, learning_rate=1e20)
    with pytest.raises(UserError, match=r"iteration \d, images im \(ge \d, im \(ge \d: expected finite losses, found"):
        voc_detection.run(backbone, voc, protocol, replace(CPU, engine="detectron2"))


def read(voc: Path) -> DetectionData:
    return read_voc(voc, train_splits=("trainval",), test_splits=("test",), classes="found")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_one_line(voc: Path, num_workers: int) -> None:
    data = read(voc)
    for image in data.train.images:
        image.path.write_bytes(image.path.read_bytes()[:800])  # the header is whole, the pixels are not
    cfg = config(VOC_PAPER)
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = num_workers, 1
    with registered(data, prefix=voc.parent.name) as (train, _):
        cfg.DATASETS.TRAIN = (train,)
        with pytest.raises(UserError, match=r"^.*im \(ge \d.JPG: expected an image as annotated, found [^\n]*$"):
            next(iter(training_batches(cfg, seed=0)))


@pytest.mark.parametrize(
    ("metric", "shift", "message"),
    [
        ("voc-11-point", 0.5, r"expected test boxes at whole pixels.*found \[5.5, 6.5, 50.5, 40.5\]"),
        ("voc-area", 0.0, "expected test objects of every class.*found none of unicorn"),
    ],
)
def test_what_the_voc_evaluator_cannot_score_is_refused(
    voc: Path, tmp_path: Path, metric: str, shift: float, message: str
) -> None:
    data = read(voc)
    images = tuple(replace(image, boxes=image.boxes + np.float32(shift)) for image in data.test.images)
    data = replace(data, test=DetectionSet(images, (*data.test.classes, "unicorn")))
    with pytest.raises(UserError, match=message):
        build_evaluator(data, replace(VOC_PAPER, metric=metric), name="unused", workspace=tmp_path)


@pytest.mark.slow
def test_two_processes_are_one_run(voc: Path, tmp_path: Path) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if not isinstance(value, tuple)]
    flags += ["--train-short-sides=48", "--decay-iterations=3", "--engine=detectron2", "--backbone=random"]
    flags += [f"--data={voc}", f"--results={tmp_path}", "--protocol=smoke", "--precision=fp32", "--device=cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mocobench"]
    subprocess.run([*launch, "bench", "voc-detection", *flags], check=True, capture_output=True)
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert record["details"]["detections"] == 8  # four of each of the two images, one on each process
    assert record["details"]["batch_norm"] == "over parts of 1 images of 2"
    assert record["details"]["evaluator_difference"] < 1e-9


def test_a_tensor_without_a_place_is_an_error(backbone: Backbone) -> None:
    model = build_model(backbone, VOC_PAPER, num_classes=3, seed=0)
    state = model.state_dict()
    compare_with_file(state, backbone, file=Path("w.pkl"))
    state["backbone.res2.0.conv1.kernel"] = state.pop("backbone.res2.0.conv1.weight")
    state["backbone.stem.conv1.weight"] = state["backbone.stem.conv1.weight"] + 1
    with pytest.raises(UserError) as caught:
        compare_with_file(state, backbone, file=Path("w.pkl"))
    assert "backbone.stem.conv1.weight holds other values; res2.0.conv1.weight has 0 places" in str(caught.value)


def test_both_engines_start_from_the_same_weights(backbone: Backbone, tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model as build_detectron2_model

    cfg = config(VOC_PAPER, norm="BN")
    cfg.MODEL.DEVICE = "cpu"
    model = build_detectron2_model(cfg)
    load_start(model, DetectionCheckpointer(model), backbone, VOC_PAPER, file=tmp_path / "backbone.pkl", seed=5)
    ours = build_model(backbone, VOC_PAPER, num_classes=3, seed=5).state_dict()
    theirs = model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
