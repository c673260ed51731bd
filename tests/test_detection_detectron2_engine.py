"""The detectron2 engine: whole runs that answer as the embedded engine's, from the same start."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.context import Measurement, RunContext
from benchmarks.detection import detectron2_engine
from benchmarks.detection.detectron2_data import Batches, registered, training_batches
from benchmarks.detection.detectron2_evaluation import build_evaluator
from benchmarks.detection.detectron2_training import OLDER_NOTE
from benchmarks.detection.detectron2_weights import compare_with_file, load_start
from benchmarks.detection.embedded_model import build_model, load_detector
from benchmarks.detection.protocol import (
    COCO_PROTOCOLS,
    VOC_PAPER,
    VOC_PROTOCOLS,
    DetectionProtocol,
)
from benchmarks.detection.records import DetectionData, DetectionSet
from benchmarks.detection.voc_data import read_voc
from benchmarks.run_folder import NOTE
from benchmarks.tasks import coco_detection, voc_detection
from mocobench.runtime.errors import UserError
from tests.tiny_detectron2 import SPEC, config
from transfer.backbone import Backbone, Provenance, expected_shapes

pytestmark = pytest.mark.detectron2
pytest.importorskip("detectron2", reason="Detectron2 is not installed")

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
    other = replace(backbone, input=replace(SPEC, mean=(0.1, 0.2, 0.3)))
    with pytest.raises(UserError, match=r"model_final.pth: expected a detector trained from .*another backbone"):
        voc_detection.run(other, voc, protocol, replace(CPU, engine="embedded", detector=out / "model_final.pth"))


def test_bf16_is_refused_before_anything_is_built(voc: Path, backbone: Backbone) -> None:
    context = replace(CPU, engine="detectron2", precision="bf16")
    with pytest.raises(
        UserError, match=r"--engine detectron2: expected --precision fp32, found bf16.*--engine embedded"
    ):
        voc_detection.run(backbone, voc, VOC_PROTOCOLS["smoke"], context)


def test_coco_run_answers_as_the_embedded_engines(coco: Path, backbone: Backbone) -> None:
    protocol = replace(COCO_PROTOCOLS["smoke"], **TINY)
    theirs = coco_detection.run(backbone, coco, protocol, replace(CPU, engine="detectron2"))
    same_shape(theirs, coco_detection.run(backbone, coco, protocol, replace(CPU, engine="embedded")))
    assert theirs.details["evaluator_difference"] < 1e-6
    assert theirs.details["mask_format"] == "polygon"


def stop_in_iteration_4(voc: Path, backbone: Backbone, protocol: DetectionProtocol, context: RunContext) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__iter__", stopping_after(3))
        with pytest.raises(KeyboardInterrupt):
            voc_detection.run(backbone, voc, protocol, context)


@pytest.mark.parametrize("judge", [NOTE, "model_0000001.pth", OLDER_NOTE])
def test_a_stopped_run_goes_on_and_another_is_refused(
    judge: str, voc: Path, backbone: Backbone, tmp_path: Path
) -> None:
    """By the folder's note; without one by the checkpoint; with one of an older version by the note beside it."""
    out, protocol = tmp_path / "out", replace(VOC_PROTOCOLS["smoke"], **TINY)
    context = replace(CPU, engine="detectron2", out=out, checkpoint_every=2)
    stop_in_iteration_4(voc, backbone, protocol, context)
    if judge != NOTE:
        (out / NOTE).unlink()
    if judge == OLDER_NOTE:
        checkpoint = torch.load(out / "model_0000001.pth", weights_only=True)
        (out / OLDER_NOTE).write_text(json.dumps(checkpoint["curve"].pop("run")))
        torch.save(checkpoint, out / "model_0000001.pth")
    file = NOTE if judge == NOTE else "model_0000001.pth"
    with pytest.raises(UserError, match=rf"{file}: expected a run of the same settings, found seed 3 there, 4 asked;"):
        voc_detection.run(backbone, voc, protocol, replace(context, seed=4))
    with pytest.raises(UserError, match=rf"--resume never: \S+{file} exists"):
        voc_detection.run(backbone, voc, protocol, replace(context, resume="never"))
    resumed = voc_detection.run(backbone, voc, protocol, context)
    assert "from iteration 2;" in resumed.details["resumed"]
    (point,) = resumed.details["loss_curve"]
    assert point["iteration"] == 4
    assert point["learning_rate"] == pytest.approx(0.1 * protocol.learning_rate)  # the schedule went on, too


def test_the_embedded_engine_does_not_go_on_with_detectron2s_run(voc: Path, backbone: Backbone, tmp_path: Path) -> None:
    protocol = replace(VOC_PROTOCOLS["smoke"], **TINY)
    context = replace(CPU, engine="detectron2", out=tmp_path / "out", checkpoint_every=2)
    stop_in_iteration_4(voc, backbone, protocol, context)
    with pytest.raises(UserError, match=r"same settings, found engine detectron2 there, embedded asked; use another"):
        voc_detection.run(backbone, voc, protocol, replace(context, engine="embedded"))


def test_a_checkpoint_of_detectron2_alone_is_refused(voc: Path, backbone: Backbone, tmp_path: Path) -> None:
    torch.save({"model": {}, "iteration": 1}, tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(UserError, match=r"model_0000001.pth: expected what `mocobench bench` wrote, found KeyError"):
        voc_detection.run(
            backbone, voc, replace(VOC_PROTOCOLS["smoke"], **TINY), replace(CPU, engine="detectron2", out=tmp_path)
        )


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


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("forward", "use --engine embedded --images-per-pass N, .*; or lower --batch-size"),
        ("inference", "lower --test-s"),
    ],
)
def test_out_of_memory_says_what_to_do(
    where: str, settings: str, voc: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    if where == "forward":
        monkeypatch.setattr("detectron2.modeling.GeneralizedRCNN.forward", fail)
    monkeypatch.setattr("detectron2.modeling.GeneralizedRCNN.inference", fail)
    protocol = replace(VOC_PROTOCOLS["smoke"], **{**TINY, "iterations": 2, "decay_iterations": ()})
    with pytest.raises(UserError, match=rf"expected enough memory, found CUDA out of memory.*; {settings}"):
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
