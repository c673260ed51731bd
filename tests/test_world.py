"""The demo's picture world: exact outlines, the real layouts, the same files for the same seed."""

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mocobench.world import CLASSES, DrawnObject, WorldSize, draw_picture, draw_world

SMALL = WorldSize(train_per_class=2, val_per_class=1, detection_train=3, detection_test=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("world")
    draw_world(out, seed=0, size=SMALL)
    return out


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_box_by_hand() -> None:
    outline = np.array([[2.2, 3.0], [7.5, 3.1], [4.0, 9.9]])
    assert DrawnObject(0, outline).box() == (2, 3, 8, 10)


def test_the_same_seed_gives_the_same_files(world: Path, tmp_path: Path) -> None:
    draw_world(tmp_path / "again", seed=0, size=SMALL)
    draw_world(tmp_path / "other", seed=1, size=SMALL)
    assert hashes(tmp_path / "again") == hashes(world)
    assert hashes(tmp_path / "other") != hashes(world)


def test_objects_lie_inside_and_apart() -> None:
    for seed in range(20):
        image, objects = draw_picture(
            np.random.default_rng(seed), width=160, height=128, labels=(0, 1, 2), radius=(0.16, 0.34)
        )
        boxes = [drawn.box() for drawn in objects]
        assert boxes
        for x1, y1, x2, y2 in boxes:
            assert 0 <= x1 < x2 <= image.width
            assert 0 <= y1 < y2 <= image.height
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_image_folders(world: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        found = {folder.name: len(list(folder.iterdir())) for folder in (world / "imagenet" / split).iterdir()}
        assert found == dict.fromkeys(CLASSES, count)


def test_voc_and_coco_hold_the_same_objects(world: Path) -> None:
    coco = json.loads((world / "coco" / "annotations" / "instances_train2017.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    voc = world / "VOCdevkit" / "VOC2007"
    ids = (voc / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    assert len(ids) == len(coco["images"]) == 3
    for scene_id, image in zip(ids, coco["images"], strict=True):
        root = ElementTree.parse(voc / "Annotations" / f"{scene_id}.xml").getroot()
        in_voc = [element.findtext("name") for element in root.iter("object")]
        mine = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert in_voc == [names[a["category_id"]] for a in mine]
        assert Image.open(voc / "JPEGImages" / f"{scene_id}.jpg").size == (image["width"], image["height"])
        for element, annotation in zip(root.iter("object"), mine, strict=True):
            x, y, _, height = annotation["bbox"]
            # VOC is 1-based and includes the last pixel
            assert int(element.findtext("bndbox/xmin")) == int(np.floor(x)) + 1
            assert int(element.findtext("bndbox/ymax")) == int(np.ceil(round(y + height, 6)))


def test_coco_area_is_that_of_the_drawn_mask(world: Path) -> None:
    from pycocotools import mask

    coco = json.loads((world / "coco" / "annotations" / "instances_val2017.json").read_text())
    for annotation in coco["annotations"]:
        pixels = mask.area(mask.merge(mask.frPyObjects(annotation["segmentation"], 128, 160)))
        assert annotation["area"] == pytest.approx(pixels, rel=0.06)
