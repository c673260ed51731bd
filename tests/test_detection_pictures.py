"""Pictures of detections and precision-recall files: what is drawn where, checked pixel by pixel and line by line."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from benchmarks.context import RunContext
from benchmarks.detection import pictures
from benchmarks.detection.pictures import GAP, HEADING, PANEL_SIDE, class_color, draw_pictures, evenly_spread
from benchmarks.detection.precision_recall import Curve, draw_precision_recall, write_precision_recall
from benchmarks.detection.records import DetectionData, Detections, DetectionSet, LabelledImage
from benchmarks.result import DataIdentity

WIDTH, HEIGHT = 180, 120  # a panel is four times as large: 720 x 480
CLASSES = ("cat", "a class with a very long name that would not fit beside a box at the border")


@pytest.fixture
def test_set(tmp_path: Path) -> DetectionSet:
    """Three gray images with an object in the middle and one in the lower right corner; ids that are no file names."""
    images = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (128, 128, 128)).save(path)
        images.append(
            LabelledImage(
                image_id=f"2007/{number} (a)",
                path=path,
                width=WIDTH,
                height=HEIGHT,
                boxes=np.array([[50, 30, 120, 90], [170, 110, 180.5, 120]], np.float32),
                labels=np.array([0, 1]),
                difficult=np.array([False, True]),
                crowd=np.zeros(2, bool),
                segmentations=([[50.0, 30, 120, 30, 120, 90, 50, 90]], [[170.0, 110, 180, 110, 180, 120]]),
            )
        )
    return DetectionSet(tuple(images), CLASSES)


def detections(test_set: DetectionSet, *, masks: bool = False, count: int = 1) -> list[Detections]:
    """`count` times the box of the first object."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[30:90, 50:120] = 1
    found = []
    for image in test_set.images:
        scores = np.linspace(0.9, 0.1, count).astype(np.float32)
        boxes, labels = image.boxes[:1].repeat(count, axis=0), np.zeros(count, np.int64)
        codes = (coco_mask.encode(pixels),) * count if masks else None
        found.append(Detections(image.image_id, boxes, scores, labels, codes))
    return found


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of both images, without heading and gap."""
    pixels = np.array(Image.open(path))
    assert pixels.shape == (HEADING + 4 * HEIGHT, 2 * PANEL_SIDE + GAP, 3)
    return pixels[HEADING:, :PANEL_SIDE], pixels[HEADING:, PANEL_SIDE + GAP :]


def test_boxes_are_drawn_in_the_colours_of_their_classes_and_captions_within_the_image(
    test_set: DetectionSet, tmp_path: Path
) -> None:
    without = DetectionSet(tuple(replace(image, segmentations=None) for image in test_set.images), CLASSES)
    (path,) = draw_pictures(without, detections(without), tmp_path / "pictures", 1)
    assert path.name == "00000_2007-0-(a).png"
    truth, found = read(path)
    for panel in (truth, found):
        assert tuple(panel[240, 200]) == tuple(panel[240, 480]) == class_color(0)  # the box's left and right side
        assert tuple(panel[360, 340]) == class_color(0)  # its lower side
        assert tuple(panel[240, 340]) == (128, 128, 128)  # and nothing inside it
    # The other object's box ends at the corner, and its caption was moved to the left, whole.
    assert tuple(truth[479, 719]) == class_color(1)
    caption = (truth[425:435] == class_color(1)).all(axis=2).any(axis=0).nonzero()[0]
    assert caption.min() < 400
    assert caption.max() <= 719
    assert (found[400:] == 128).all()  # it was not detected


def test_masks_are_translucent(test_set: DetectionSet, tmp_path: Path) -> None:
    path = draw_pictures(test_set, detections(test_set, masks=True), tmp_path / "pictures", 1)[0]
    expected = np.array(class_color(0)) * 0.4 + 128 * 0.6
    for panel in read(path):
        np.testing.assert_allclose(panel[240, 340], expected, atol=1)
        assert tuple(panel[240, 150]) == (128, 128, 128)
    truth, _ = read(path)
    assert tuple(truth[450, 715]) != (128, 128, 128)


def test_only_the_best_detections_are_drawn(test_set: DetectionSet, tmp_path: Path) -> None:
    found = detections(test_set, count=40)
    found[0].boxes[30] = (5, 100, 30, 115)  # rank 31 of 40
    path = draw_pictures(test_set, found, tmp_path, 1)[0]
    assert (read(path)[1][400:, :120] == 128).all()
    assert (read(path)[1] != 128).any()


def test_no_objects_and_no_detections_are_a_plain_picture(test_set: DetectionSet, tmp_path: Path) -> None:
    image = replace(test_set.images[0], boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, int), segmentations=())
    image = replace(image, difficult=np.zeros(0, bool), crowd=np.zeros(0, bool))
    empty = DetectionSet((image,), CLASSES)
    nothing = detections(test_set, count=0)
    for panel in read(draw_pictures(empty, nothing, tmp_path, 5)[0]):
        assert (panel == 128).all()


@pytest.mark.parametrize(
    ("num_images", "count", "expected"),
    [(9, 3, [0, 4, 8]), (10, 1, [0]), (3, 5, [0, 1, 2]), (3, 3, [0, 1, 2]), (5, 0, []), (101, 5, [0, 25, 50, 75, 100])],
)
def test_images_are_spread_evenly(num_images: int, count: int, expected: list[int]) -> None:
    assert evenly_spread(num_images, count) == expected


def test_neighbouring_classes_have_colours_far_apart() -> None:
    colors = [class_color(label) for label in range(20)]
    assert len(set(colors)) == 20
    for one, other in pairwise(colors):
        assert np.abs(np.subtract(one, other)).max() > 60


CURVES = [
    Curve("cat", "box", 0.5, np.array([0.5, 1]), np.array([1, 2 / 3]), np.array([0.9, 0.7])),
    Curve("cat", "box", 0.75, np.array([]), np.array([]), np.array([])),
    Curve('dog, "big"', "mask", 0.5, np.array([1.0]), np.array([0.25]), np.array([0.1])),
]


def test_the_points_of_the_curves_are_written(tmp_path: Path) -> None:
    write_precision_recall(CURVES, tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text().splitlines() == [
        "class,kind,iou,recall,precision,score",
        "cat,box,0.50,0.5000,1.0000,0.9000",
        "cat,box,0.50,1.0000,0.6667,0.7000",
        '"dog, ""big""",mask,0.50,1.0000,0.2500,0.1000',
    ]


def test_the_figure_has_one_panel_per_class(tmp_path: Path) -> None:
    one, many = tmp_path / "one.png", tmp_path / "many.png"
    draw_precision_recall(CURVES[:1], one)
    draw_precision_recall([replace(CURVES[0], class_name=f"class {number}") for number in range(30)], many)
    sizes = [Image.open(path).size for path in (one, many)]
    # One panel in a row at least two wide; then 6 columns and 5 rows.
    assert sizes[1][0] == 3 * sizes[0][0]
    assert sizes[1][1] > 3 * sizes[0][1]
    blue = (np.array(Image.open(one).convert("RGB")) == (31, 119, 180)).all(axis=2)
    assert blue.sum() > 100


def test_a_run_draws_when_it_is_asked_to(test_set: DetectionSet, tmp_path: Path) -> None:
    data = DetectionData(test_set, test_set, DataIdentity("photos", 2, {}, ()))
    context = RunContext(seed=0, device=torch.device("cpu"), precision="fp32", num_workers=0, out=tmp_path / "out")
    pictures.after_detection(data, detections(test_set), CURVES, context)
    assert not (tmp_path / "out").exists()
    pictures.after_detection(data, detections(test_set), CURVES, replace(context, visualize=2))
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == [
        "pictures/00000_2007-0-(a).png",
        "pictures/00002_2007-2-(a).png",
        "precision_recall.csv",
        "precision_recall.png",
    ]
