"""VOC folders: corners, splits and classes read by hand, and every bad input with its message."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from benchmarks.detection.annotations import read_upright_size
from benchmarks.detection.data_summary import data_summary
from benchmarks.detection.same_files import same_files
from benchmarks.detection.voc_data import VOC_CLASSES, read_voc
from mocobench.runtime.errors import UserError
from mocobench.runtime.images import read_rgb


def object_xml(name: str | None = "cat", corners: str = "11 21 40 50", difficult: str | None = "0") -> str:
    """One object; corners as `xmin ymin xmax ymax`, written in another order than that."""
    x1, y1, x2, y2 = corners.split()
    box = f"<ymax>{y2}</ymax><xmax>{x2}</xmax><ymin>{y1}</ymin><xmin>{x1}</xmin>"
    name_element = f"<name>{name}</name>" if name is not None else ""
    flag = f"<difficult>{difficult}</difficult>" if difficult is not None else ""
    return f"<object>{name_element}{flag}<bndbox>{box}</bndbox></object>"


def add_image(
    year: Path,
    stem: str,
    *objects: str,
    size: tuple[int, int] | None = (60, 50),
    splits: tuple[str, ...] = ("trainval", "test"),
) -> None:
    """A 60x50 image in every split, each a picture of its own: `stem` in trainval, `stem-test` in test."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / part).mkdir(parents=True, exist_ok=True)
    for split in splits:
        name = stem if split == "trainval" else f"{stem}-{split}"
        draw(year / "JPEGImages" / f"{name}.jpg")
        stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
        (year / "Annotations" / f"{name}.xml").write_text(f"<annotation>{stated}{''.join(objects)}</annotation>")
        with (year / "ImageSets/Main" / f"{split}.txt").open("a") as lines:
            lines.write(f"{name}\n")


def draw(path: Path) -> None:
    """A picture that depends on the file's name and its year folder's."""
    seed = list(f"{path.parents[1].name}/{path.name}".encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)


def read(data: Path, **changes: Any) -> Any:
    arguments = {"train_splits": ("trainval",), "test_splits": ("test",), "classes": "found", **changes}
    return read_voc(data, **arguments)


def message(data: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(data, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_corners_become_zero_based_and_flags_are_kept(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml(), object_xml(name="big dog", corners="1 1 60 50", difficult="1"))
    read_set = read(tmp_path).train
    assert read_set.classes == ("big dog", "cat")
    image = read_set.images[0]
    assert image.boxes.dtype == np.float32
    np.testing.assert_array_equal(image.boxes, [[10, 20, 40, 50], [0, 0, 60, 50]])
    np.testing.assert_array_equal(image.labels, [1, 0])
    np.testing.assert_array_equal(image.difficult, [False, True])
    assert not image.crowd.any()
    assert (image.width, image.height) == (60, 50)


def test_pascal_classes_are_numbered_as_in_detectron2(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml(name="tvmonitor", difficult=None))
    read_set = read(tmp_path, classes="voc").train
    assert read_set.classes == VOC_CLASSES
    assert len(set(VOC_CLASSES)) == 20
    assert read_set.images[0].labels.tolist() == [19]
    assert not read_set.images[0].difficult.any()


def test_splits_of_several_years_are_joined(tmp_path: Path) -> None:
    add_image(tmp_path / "VOC2007", "one", object_xml())
    add_image(tmp_path / "VOC2012", "one", object_xml(), object_xml())
    data = read(tmp_path, train_splits=("2007/trainval", "2012/trainval"), test_splits=("2007/test",))
    assert [image.image_id for image in data.train.images] == ["2007/one", "2012/one"]
    assert data.identity.splits["train"].images == 2
    assert data.identity.splits["train"].objects == 3
    assert data.identity.splits["test"].objects == 1
    assert data.identity.name == tmp_path.name


def test_a_plain_split_means_the_only_year_of_a_devkit(tmp_path: Path) -> None:
    add_image(tmp_path / "VOC2012", "one", object_xml())
    assert read(tmp_path).train.images[0].image_id == "one"
    add_image(tmp_path / "VOC2007", "one", object_xml())
    assert "expected one VOC year folder, found VOC2007, VOC2012" in message(tmp_path)


def test_upper_case_suffixes_and_exif_turned_images_are_read(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml(corners="1 1 50 60"), size=(50, 60), splits=("trainval",))
    add_image(tmp_path, "b", object_xml(), splits=("test",))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: the file's 60x50 pixels are shown as 50x60
    Image.new("RGB", (60, 50)).save(tmp_path / "JPEGImages/a.jpg", exif=exif)
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/a.JPG")
    (tmp_path / "Annotations/a.xml").rename(tmp_path / "Annotations/a.XML")
    image = read(tmp_path).train.images[0]
    assert (image.width, image.height, image.path.name) == (50, 60, "a.JPG")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_upright_size_is_had_without_decoding(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, keywords in (("turned", {"exif": exif}), ("plain", {})):
        Image.new("RGB", (60, 50)).save(tmp_path / f"{name}{suffix}", **keywords)
        assert read_rgb(tmp_path / f"{name}{suffix}").size == ((50, 60) if keywords else (60, 50))

    def load(image: Image.Image) -> None:
        raise AssertionError("the pixels are decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert read_upright_size(tmp_path / f"turned{suffix}") == (50, 60)
    assert read_upright_size(tmp_path / f"plain{suffix}") == (60, 50)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_that_ends_early_has_its_size(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    assert read_upright_size(path) == (60, 50)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"cut.*: expected an image, found .*; replace it"):
        read_upright_size(path)


def test_the_list_hash_follows_the_annotations_and_not_the_folder(tmp_path: Path) -> None:
    for folder in ("here", "there", "changed"):
        add_image(tmp_path / folder, "a", object_xml(corners="1 1 9 9" if folder == "changed" else "1 1 8 8"))
    hashes = {name: read(tmp_path / name).identity.splits["train"].list_sha256 for name in ("here", "there", "changed")}
    assert hashes["here"] == hashes["there"] != hashes["changed"]


BAD_OBJECTS = {
    "empty": (object_xml(corners="9 9 9 20"), "object 2 (cat): box (9, 9, 9, 20) is empty"),
    "inverted": (object_xml(corners="20 9 9 20"), "object 2 (cat): box (20, 9, 9, 20) is inverted"),
    "left of 1": (object_xml(corners="0 9 9 20"), "object 2 (cat): box (0, 9, 9, 20) reaches outside its image"),
    "below": (object_xml(corners="1 9 9 51"), "object 2 (cat): box (1, 9, 9, 51) reaches outside its image"),
    "no number": (object_xml(corners="1 nan 9 20"), "object 2: expected a name and a box of four numbers"),
    "no name": (object_xml(name=None), "object 2: expected a name and a box of four numbers"),
    "no box": ("<object><name>cat</name></object>", "object 2: expected a name and a box of four numbers"),
}


@pytest.mark.parametrize(("bad", "fault"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_bad_object_stops_or_is_skipped_and_listed(tmp_path: Path, bad: str, fault: str) -> None:
    add_image(tmp_path, "a", object_xml(), bad, object_xml(), splits=("trainval",))
    add_image(tmp_path, "good", object_xml())
    found = message(tmp_path)
    assert found.startswith(f"{tmp_path}/Annotations/a.xml {fault}")
    assert found.endswith("or leave such objects out: --on-bad-annotation skip")
    data = read(tmp_path, on_bad_annotation="skip")
    assert [len(image.boxes) for image in data.train.images] == [2, 1]
    assert data.identity.skipped[0].startswith(f"a.xml {fault}")


def test_an_unknown_class_is_named_with_its_file_and_object(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml(), object_xml(name="blood cell"))
    expected = "a.xml object 2 (blood cell): class blood cell is none of the 20 of PASCAL VOC"
    assert expected in message(tmp_path, classes="voc")
    assert read(tmp_path, classes="voc", on_bad_annotation="skip").identity.skipped[0] == expected


def test_a_test_class_that_training_never_saw_is_named(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml())
    add_image(tmp_path, "b", object_xml(name="dog"))
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("a\n")
    assert "b-test.xml object 1 (dog): class dog is none of the classes in the training splits" in message(tmp_path)


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    assert "expected a VOCdevkit or one of its year folders, found no such folder" in message(tmp_path / "nowhere")
    assert "expected a VOCdevkit (VOC2007, ...) or a year folder" in message(tmp_path)
    add_image(tmp_path / "VOC2007", "a", object_xml())
    assert "expected a VOCdevkit that holds VOC2012, found the year folders: VOC2007" in message(
        tmp_path, train_splits=("2012/trainval",)
    )
    year = tmp_path / "VOC2007"
    found = message(year, train_splits=("minival",))
    assert found.startswith(f"{year}/ImageSets/Main/minival.txt: expected the list of a split, found no such file")
    assert "test, trainval" in found
    (year / "Annotations/a.xml").unlink()
    assert re.search(r"Annotations/a: expected an annotation of the list .*trainval.txt", message(year))
    (year / "JPEGImages/a.jpg").unlink()
    assert re.search(r"JPEGImages/a: expected an image of the list .*trainval.txt", message(year))
    (year / "Annotations/a-test.xml").unlink()
    (year / "Annotations").rmdir()
    assert "found no Annotations" in message(year)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<annotation><object>", "a.xml: expected XML, found "),
        ("<annotation></annotation>", "a.xml: expected size with width and height in pixels, found none"),
        (
            "<annotation><size><width>0</width><height>5</height></size></annotation>",
            "a.xml: expected size with width and height in pixels, found none",
        ),
        (
            "<annotation><size><width>50</width><height>60</height></size></annotation>",
            "a.xml: expected the size of its image a.jpg, 60x50 when upright, found 50x60",
        ),
    ],
)
def test_a_broken_annotation_file_is_named_whatever_happens_to_objects(
    tmp_path: Path, content: str, fault: str
) -> None:
    add_image(tmp_path, "a", object_xml())
    (tmp_path / "Annotations/a.xml").write_text(content)
    for action in ("stop", "skip"):
        assert fault in message(tmp_path, on_bad_annotation=action)


@pytest.mark.parametrize("encoding", ["GB2312", "GBK", "Big5", "Shift-JIS", "EUC-JP", "UTF-16", "UTF-8"])
def test_an_annotation_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    add_image(tmp_path, "a", object_xml(name="大犬"))
    for annotation in (tmp_path / "Annotations").iterdir():
        text = f"<?xml version='1.0' encoding='{encoding}'?>\n{annotation.read_text()}"
        annotation.write_bytes(text.encode(encoding))
    assert read(tmp_path).train.classes == ("大犬",)


@pytest.mark.parametrize(
    ("encoding", "fault"),
    [
        ("GBK", "'gbk' codec can't decode byte 0xff in position "),
        ("klingon", "unknown encoding: klingon; mend"),
    ],
)
def test_an_annotation_that_is_not_as_it_declares_is_named(tmp_path: Path, encoding: str, fault: str) -> None:
    add_image(tmp_path, "a", object_xml())
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
    (tmp_path / "Annotations/a.xml").write_bytes(declaration + b"<annotation><name>\xff\xff</name></annotation>")
    assert f"a.xml: expected XML, found {fault}" in message(tmp_path)


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml())
    (tmp_path / "JPEGImages/a.jpg").write_text("<html>not found</html>")
    assert "JPEGImages/a.jpg: expected an image, found" in message(tmp_path)


def test_empty_and_repeating_lists_and_ambiguous_images_are_named(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml())
    split = tmp_path / "ImageSets/Main/trainval.txt"
    split.write_text("\n \n")
    assert f"{split}: expected one image name per line, found an empty list" in message(tmp_path)
    split.write_text("a\na\n")
    assert f"{split}: expected every image once, found a twice" in message(tmp_path)
    split.write_text("a\n")
    Image.new("RGB", (60, 50)).save(tmp_path / "JPEGImages/a.png")
    assert "expected one file per image, found a.jpg and a.png" in message(tmp_path)


def test_ids_and_names_may_look_unusual(tmp_path: Path) -> None:
    for number, stem in enumerate(("img (1)", "2008.000001", "a b", "-é")):
        add_image(tmp_path, stem, object_xml(name="big (blood) cell" if number else "cat"))
    images = tmp_path / "JPEGImages"
    (images / "a b.jpg").rename(images / "a b.JPEG")
    (images / "img (1).jpg").rename(images / "img (1).Jpg")
    data = read(tmp_path)
    assert [image.image_id for image in data.train.images] == ["img (1)", "2008.000001", "a b", "-é"]
    assert [image.path.suffix for image in data.train.images] == [".Jpg", ".jpg", ".JPEG", ".jpg"]
    assert data.train.classes == ("big (blood) cell", "cat")


def test_windows_line_ends_byte_order_marks_and_blanks_are_read(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        add_image(tmp_path, stem, object_xml(name="\r\n  big dog \t"))
    (tmp_path / "ImageSets/Main/trainval.txt").write_bytes(b"\xef\xbb\xbfa \r\n\r\n\tb\r\n")
    annotation = tmp_path / "Annotations/a.xml"
    annotation.write_bytes(b"\xef\xbb\xbf" + annotation.read_bytes().replace(b"><", b">\r\n<"))
    train = read(tmp_path).train
    assert [image.image_id for image in train.images] == ["a", "b"]
    assert train.classes == ("big dog",)
    np.testing.assert_array_equal(train.images[0].boxes, [[10, 20, 40, 50]])


def test_an_image_of_two_training_splits_is_named(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml())
    found = message(tmp_path, train_splits=("trainval", "trainval"))
    assert "expected the splits trainval, trainval to share no image, found a twice" in found


def test_a_training_image_that_is_a_test_image_stops_or_is_left_out(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        add_image(tmp_path, stem, object_xml())
    images = tmp_path / "JPEGImages"
    (images / "b-test.jpg").write_bytes((images / "a.jpg").read_bytes())
    with (tmp_path / "ImageSets/Main/trainval.txt").open("a") as lines:
        lines.write("c-test\n")
    assert message(tmp_path) == (
        f"{images}/a.jpg in training: same content as the test image JPEGImages/b-test.jpg; remove one of the two "
        "(2 such), or leave such images out of training: --on-bad-annotation skip"
    )
    data = read(tmp_path, on_bad_annotation="skip")
    assert [image.image_id for image in data.train.images] == ["b", "c"]
    assert [image.image_id for image in data.test.images] == ["a-test", "b-test", "c-test"]
    assert data.identity.splits["train"].images == data.identity.splits["train"].objects == 2
    assert data.identity.skipped[0] == "a.jpg in training: same content as the test image JPEGImages/b-test.jpg"
    assert data.identity.skipped[1].startswith("c-test.jpg in training")


def test_nothing_is_left_when_all_training_images_are_test_images(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml())
    found = message(tmp_path, test_splits=("trainval",), on_bad_annotation="skip")
    assert "expected at least one object to train on" in found


def test_copies_within_a_split_are_noted(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        add_image(tmp_path, stem, object_xml())
    assert read(tmp_path).notes == ()
    for stem in ("b", "c"):
        (tmp_path / f"JPEGImages/{stem}.jpg").write_bytes((tmp_path / "JPEGImages/a.jpg").read_bytes())
    data = read(tmp_path)
    assert data.notes == ("training images with the content of another: b.jpg = a.jpg, c.jpg = a.jpg",)
    assert len(data.train.images) == 3


def test_a_pascal_class_without_training_objects_stops_or_is_left_out_of_testing(tmp_path: Path) -> None:
    add_image(tmp_path, "a", object_xml())
    add_image(tmp_path, "b", object_xml(), object_xml(name="dog"), object_xml(name="dog"), splits=("test",))
    assert message(tmp_path, classes="voc") == (
        f"{tmp_path} classes: objects in the test splits, none in the training splits: dog (2); choose other splits, "
        "or leave these objects out of testing: --on-bad-annotation skip"
    )
    data = read(tmp_path, classes="voc", on_bad_annotation="skip")
    assert [len(image.boxes) for image in data.test.images] == [1, 1]
    assert data.identity.splits["test"].objects == 2
    assert data.identity.skipped[0].endswith("none in the training splits: dog (2)")


def test_nothing_to_train_or_to_test_on_is_an_error(tmp_path: Path) -> None:
    add_image(tmp_path, "a")
    assert "expected at least one object to train on in the training splits, found none" in message(tmp_path)
    add_image(tmp_path, "b", object_xml(difficult="1"))
    assert "expected at least one object to find in the test splits, found none that counts" in message(tmp_path)


def test_files_of_equal_size_and_end_are_told_apart_by_their_content(tmp_path: Path) -> None:
    end = b"e" * 5000
    contents = [b"a" + end, b"b" + end, b"a" + end, end, b"", b"a" + end, b""]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert same_files(paths) == [[0, 2, 5], [4, 6]]


def test_the_summary_counts_by_hand(tmp_path: Path) -> None:
    # 31 x 31 is small, 60 x 50 medium (3000 < 96 * 96); nothing is large in so small a picture.
    add_image(tmp_path, "a", object_xml(corners="1 1 31 31"), object_xml(name="big dog", corners="1 1 60 50"))
    add_image(tmp_path, "b", object_xml(difficult="1"), object_xml(corners="9 9 9 20"), splits=("trainval",))
    add_image(tmp_path, "c", splits=("test",))
    lines = data_summary(read(tmp_path, on_bad_annotation="skip")).splitlines()
    assert lines[0] == f"data {tmp_path.name}: 2 classes"
    columns = ["images", "without", "objects", "objects", "small", "medium", "large", "difficult", "crowd"]
    assert lines[1].split() == columns
    assert lines[2].split() == ["training", "2", "0", "3", "2", "1", "0", "1", "0"]
    assert lines[3].split() == ["test", "2", "1", "2", "1", "1", "0", "0", "0"]
    assert lines[6].split() == ["big", "dog", "1/1", "cat", "2/1"]
    assert lines[7:] == ["skipped: 1", "  b.xml object 2 (cat): box (9, 9, 9, 20) is empty"]
    assert max(len(line) for line in lines) < 120


def test_the_two_empty_boxes_of_bccd_are_named(shared_data: Path) -> None:
    first = "BloodImage_00338.xml object 13 (RBC): box (504, 337, 504, 337) is empty"
    second = "BloodImage_00343.xml object 4 (RBC): box (181, 329, 181, 329) is empty"
    data = shared_data / "voc-bccd"
    assert f"Annotations/{first}" in message(data)
    identity = read(data, on_bad_annotation="skip").identity
    assert identity.skipped == (first, second)
    assert identity.classes == 3
    assert (identity.splits["train"].images, identity.splits["test"].images) == (292, 72)


def test_real_pascal_images_are_read_whole(shared_data: Path) -> None:
    data = read(shared_data / "voc2012-mini", classes="voc")
    assert (len(data.train.images), len(data.test.images)) == (70, 30)
    images = (*data.train.images, *data.test.images)
    assert sum(len(image.boxes) for image in images) == 273
    assert sum(int(image.difficult.sum()) for image in images) == 38
