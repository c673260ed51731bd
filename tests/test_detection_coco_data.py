"""COCO instances: labels and corners read by hand, and every bad input with its message."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.detection.coco_data import read_coco
from benchmarks.detection.records import DetectionData
from mocobench.runtime.errors import UserError

SQUARE = [[10, 20, 40, 20, 40, 50, 10, 50]]


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    """A 30x30 cat in image 7."""
    whole = {"id": number, "image_id": 7, "category_id": 17, "bbox": [10, 20, 30, 30], "area": 900, "iscrowd": 0}
    return {**whole, "segmentation": SQUARE, **changes}


def instances(*annotations: dict[str, Any]) -> dict[str, Any]:
    """One 60x50 image and three categories, not in the order of their ids."""
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]
    images = [{"id": 7, "file_name": "seven.jpg", "width": 60, "height": 50}]
    return {"images": images, "annotations": list(annotations), "categories": categories}


def write(data: Path, split: str, content: Any) -> Path:
    (data / split).mkdir(parents=True, exist_ok=True)
    (data / "annotations").mkdir(exist_ok=True)
    Image.new("RGB", (60, 50), "red" if split == "val" else "blue").save(data / split / "seven.jpg")
    path = data / "annotations" / f"instances_{split}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(data: Path, *, masks: bool = True, on_bad_annotation: str = "stop") -> DetectionData:
    return read_coco(
        data, train_splits=("train",), test_splits=("val",), masks=masks, on_bad_annotation=on_bad_annotation
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A sound data set of one training and one test image."""
    write(tmp_path, "train", instances(annotation(1)))
    write(tmp_path, "val", instances(annotation(1)))
    return tmp_path


def message(data: Path, **arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(data, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_category_ids_with_gaps_become_labels_in_their_order(data: Path) -> None:
    crowd = {"size": [50, 60], "counts": [0, 100, 2900]}
    write(
        data,
        "train",
        instances(annotation(5, category_id=90, iscrowd=1, segmentation=crowd), annotation(4, category_id=1)),
    )
    write(data, "val", instances(annotation(1, category_id=1)))
    read_set = read(data).train
    assert read_set.classes == ("person", "cat", "toothbrush")
    image = read_set.images[0]
    assert image.labels.tolist() == [2, 0]
    assert image.crowd.tolist() == [True, False]
    assert image.boxes.dtype == np.float32
    np.testing.assert_array_equal(image.boxes, [[10, 20, 40, 50]] * 2)
    assert image.segmentations == (crowd, SQUARE)
    assert image.path == data / "train" / "seven.jpg"
    assert read(data, masks=False).train.images[0].segmentations is None


def test_boxes_over_the_border_stay_as_filed(data: Path) -> None:
    write(data, "val", instances(annotation(0, bbox=[50.5, 40.5, 9.75, 9.75])))
    coco = read(data)
    np.testing.assert_array_equal(coco.test.images[0].boxes, [[50.5, 40.5, 60.25, 50.25]])
    assert coco.ground_truth
    truth = coco.ground_truth["annotations"]
    assert [one["bbox"] for one in truth] == [[50.5, 40.5, 9.75, 9.75]]
    assert [one["id"] for one in truth] == [1]  # pycocotools would take an object 0 for no match


def test_identity_counts_images_and_objects(data: Path) -> None:
    before = read(data).identity
    assert (before.name, before.classes, before.skipped) == (data.name, 3, ())
    assert (before.splits["train"].images, before.splits["train"].objects) == (1, 1)
    write(data, "train", instances(annotation(1), annotation(2)))
    after = read(data).identity
    assert after.splits["train"].objects == 2
    assert after.splits["train"].list_sha256 != before.splits["train"].list_sha256
    assert after.splits["test"] == before.splits["test"]


BAD_ANNOTATIONS = {
    "category": (annotation(2, category_id=18), "annotation 2: category 18 is not among the file's categories"),
    "image": (annotation(2, image_id=8), "annotation 2 (cat): image 8 is not among the file's images"),
    "repeated id": (annotation(1), "annotation 1 (cat): its id was used before"),
    "no id": ({"image_id": 7}, "annotation at position 1: it has no id"),
    "no box": ({"id": 2, "image_id": 7, "category_id": 17, "area": 1}, "annotation 2: it has no bbox"),
    "three numbers": (annotation(2, bbox=[1, 2, 3]), "annotation 2 (cat): box [1, 2, 3] is not four numbers"),
    "empty": (
        annotation(2, bbox=[10, 20, 5, 0]),
        "annotation 2 (cat): box [10, 20, 5, 0] (x, y, width, height) is empty",
    ),
    "outside": (
        annotation(2, bbox=[60, 0, 5, 5]),
        "annotation 2 (cat): box [60, 0, 5, 5] (x, y, width, height) is outside",
    ),
    "area": (annotation(2, area=None), "annotation 2 (cat): area None is not a number"),
    "no polygons": (annotation(2, segmentation=[]), "annotation 2 (cat): segmentation is empty"),
    "empty polygon": (annotation(2, segmentation=[[]]), "annotation 2 (cat): polygon 1 is empty"),
    "two points": (annotation(2, segmentation=[[1, 1, 2, 2]]), "annotation 2 (cat): polygon 1 has 4 numbers"),
    "odd": (annotation(2, segmentation=[[1, 1, 2, 2, 3, 3, 4]]), "annotation 2 (cat): polygon 1 has 7 numbers"),
    "text": (annotation(2, segmentation=[["1"] * 6]), "annotation 2 (cat): polygon 1 is not a flat list of numbers"),
    "code size": (
        annotation(2, segmentation={"size": [60, 50], "counts": [3000]}),
        "annotation 2 (cat): run-length code has size [60, 50], expected height and width [50, 60]",
    ),
    "code length": (
        annotation(2, segmentation={"size": [50, 60], "counts": [0, 10]}),
        "annotation 2 (cat): run-length code covers 10 pixels, expected 3000",
    ),
}


@pytest.mark.parametrize(("bad", "fault"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_a_bad_annotation_stops_or_is_skipped_and_listed(data: Path, bad: dict[str, Any], fault: str) -> None:
    path = write(data, "val", instances(annotation(1), bad, annotation(3)))
    found = message(data)
    assert found.startswith(f"{path} {fault}")
    assert found.endswith("or leave such objects out: --on-bad-annotation skip")
    coco = read(data, on_bad_annotation="skip")
    assert len(coco.test.images[0].boxes) == len(coco.ground_truth["annotations"]) == 2
    (skipped,) = coco.identity.skipped
    assert skipped.startswith(f"instances_val.json {fault}")


def test_skipping_keeps_the_sound_polygons_of_an_object(data: Path) -> None:
    write(data, "train", instances(annotation(1, segmentation=[*SQUARE, [1, 1, 2, 2]])))
    assert "polygon 2 has 4 numbers" in message(data)
    assert read(data, on_bad_annotation="skip").train.images[0].segmentations == (SQUARE,)


def test_segmentations_are_not_asked_for_without_masks(data: Path) -> None:
    write(data, "train", instances(annotation(1, segmentation=[]), annotation(2)))
    assert len(read(data, masks=False).train.images[0].boxes) == 2


def test_masks_are_not_trained_on_data_without_them(data: Path) -> None:
    without = annotation(1)
    del without["segmentation"]
    path = write(data, "val", instances(without, annotation(2, segmentation=[])))
    for action in ("stop", "skip"):
        assert message(data, on_bad_annotation=action) == (
            f"{path}: expected segmentations to train and score masks by, found none in 2 annotations; "
            "add them or choose a protocol without masks"
        )
    assert len(read(data, masks=False).test.images[0].boxes) == 2


def test_images_are_in_the_order_of_their_ids(data: Path) -> None:
    Image.new("RGB", (60, 50), "green").save(data / "train" / "three.PNG")
    three = {"id": 3, "file_name": "three.PNG", "width": 60, "height": 50}
    both = instances(annotation(1), annotation(2, image_id=3))
    write(data, "train", both | {"images": [*both["images"], three]})
    assert [image.image_id for image in read(data).train.images] == [3, 7]


def test_a_class_that_training_never_saw_stops_or_is_left_out_of_testing(data: Path) -> None:
    write(data, "val", instances(annotation(1), annotation(2, category_id=90), annotation(3, category_id=90)))
    assert message(data) == (
        f"{data} classes: objects in the test splits, none in the training splits: toothbrush (2); choose other "
        "splits, or leave these objects out of testing: --on-bad-annotation skip"
    )
    coco = read(data, on_bad_annotation="skip")
    assert coco.test.images[0].labels.tolist() == [1]
    assert coco.test.images[0].segmentations == (SQUARE,)
    assert [one["category_id"] for one in coco.ground_truth["annotations"]] == [17]


def test_a_training_image_that_is_a_test_image_is_named(data: Path) -> None:
    (data / "val/seven.jpg").write_bytes((data / "train/seven.jpg").read_bytes())
    assert message(data).startswith(
        f"{data}/train/seven.jpg in training: same content as the test image val/seven.jpg; "
    )


def test_a_byte_order_mark_is_read(data: Path) -> None:
    path = data / "annotations/instances_val.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(data).test.images) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"images": [', "expected COCO instances in JSON, found Expecting value"),
        ("[]", "expected a JSON object with the lists images, annotations, categories, found a list"),
        ('{"images": [], "info": 1}', "annotations, categories, found images, info"),
        (instances() | {"images": []}, "expected at least one image, found none"),
        (instances() | {"images": [{"id": 7}]}, "expected id, file_name, width, height in every image, found image 0"),
        (instances() | {"images": instances()["images"] * 2}, "expected every image id once, found 7 twice"),
        (
            instances() | {"categories": instances()["categories"] * 2},
            "expected every category id once, found 90 twice",
        ),
        (instances() | {"categories": [{"id": 17, "name": "dog"}]}, "expected the same categories as instances_train"),
    ],
)
def test_a_broken_file_is_named_whatever_happens_to_objects(data: Path, content: Any, fault: str) -> None:
    path = write(data, "val", content)
    for action in ("stop", "skip"):
        found = message(data, on_bad_annotation=action)
        assert found.startswith(f"{path}: ")
        assert fault in found


def test_missing_files_and_images_are_named(data: Path) -> None:
    (data / "val" / "seven.jpg").unlink()
    assert message(data) == f"{data / 'val' / 'seven.jpg'}: expected an image, found no such file"
    path = data / "annotations" / "instances_val.json"
    path.unlink()
    assert message(data) == f"{path}: expected COCO instances in JSON, found No such file or directory"


def test_an_image_of_another_size_is_named(data: Path) -> None:
    Image.new("RGB", (50, 60)).save(data / "val" / "seven.jpg")
    assert "instances_val.json image 7: expected the size of its image seven.jpg, 50x60 when upright" in message(data)


def test_nothing_to_train_or_to_test_on_is_an_error(data: Path) -> None:
    crowd = annotation(1, iscrowd=1)
    write(data, "train", instances(crowd))
    assert "expected at least one object to train on in the training splits, found none" in message(data)
    write(data, "train", instances(annotation(1)))
    write(data, "val", instances(crowd))
    assert "expected at least one object to find in the test splits, found none that counts" in message(data)


def test_real_coco_images_are_read_whole(shared_data: Path) -> None:
    coco = read_coco(
        shared_data / "coco-mini",
        train_splits=("train2017",),
        test_splits=("val2017",),
        masks=True,
        on_bad_annotation="skip",  # of the 36 classes tested, some are not in the 50 images of training
    )
    (unseen,) = coco.identity.skipped
    assert unseen.startswith("coco-mini classes: objects in the test splits, none in the training splits: ")
    train, test = coco.train, coco.test
    assert (len(train.images), len(test.images), len(train.classes)) == (50, 25, 80)
    assert sum(int(image.crowd.sum()) for image in train.images) == 5
    assert any(len(image.boxes) == 0 for image in (*train.images, *test.images))
    assert train.classes[0] == "person"
    assert train.classes[-1] == "toothbrush"
