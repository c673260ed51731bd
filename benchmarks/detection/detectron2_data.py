"""Our checked records as Detectron2's data sets and loaders, so that both engines train on the same objects."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco_mask

from benchmarks.detection.records import DetectionData, DetectionSet, LabelledImage
from mocobench.runtime.errors import UserError

# Where an entry of a Detectron2 data set says which of our images it is.
POSITION = "position"


@contextmanager
def registered(data: DetectionData, *, prefix: str) -> Iterator[tuple[str, str]]:
    """Both sets under names of their own in Detectron2's catalogs; yields the names for training and for testing."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names = (f"{prefix}_train", f"{prefix}_test")
    sets = dict(zip(names, (data.train, data.test), strict=True))
    for name, one in sets.items():
        DatasetCatalog.register(name, lambda one=one: dataset_dicts(one))
        MetadataCatalog.get(name).set(thing_classes=list(one.classes))
    try:
        yield names
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def dataset_dicts(one: DetectionSet) -> list[dict[str, Any]]:
    """The set in Detectron2's format: its boxes, crowds marked, difficult objects as any other.

    The `image_id` is COCO's where it is a number, else the position in the set: an id of VOC may hold a space or a
    slash, which the files of Detectron2's VOC evaluator cannot.
    """
    return [
        {
            "file_name": str(image.path),
            "height": image.height,
            "width": image.width,
            "image_id": image.image_id if isinstance(image.image_id, int) else str(position),
            POSITION: position,
            "annotations": _annotations(image),
        }
        for position, image in enumerate(one.images)
    ]


def _annotations(image: LabelledImage) -> list[dict[str, Any]]:
    from detectron2.structures import BoxMode

    annotations = []
    for i, (box, label, crowd) in enumerate(zip(image.boxes.tolist(), image.labels, image.crowd, strict=True)):
        one = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": int(label), "iscrowd": int(crowd)}
        if image.segmentations is not None:
            one["segmentation"] = _segmentation(image.segmentations[i])
        annotations.append(one)
    return annotations


def _segmentation(segmentation: Any) -> Any:
    """Polygons as they are; an RLE with its counts compressed, which is the only one Detectron2 decodes."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def mask_format(train: DetectionSet) -> str:
    """`polygon`, or `bitmask` where an object that is trained on has an RLE: Detectron2 takes one kind for all."""
    for image in train.images:
        for segmentation, crowd in zip(image.segmentations or (), image.crowd, strict=False):
            if isinstance(segmentation, dict) and not crowd:
                return "bitmask"
    return "polygon"


class Batches:
    """A loader's batches. Raises what a worker could not read, and keeps the latest batch for messages."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.latest: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self.loader:
            for entry in batch:
                if "error" in entry:
                    raise entry["error"]
            self.latest = batch
            yield batch


@dataclass(frozen=True)
class _ErrorsAsValues:
    """A DatasetMapper that gives a UserError back: raised in a worker it would come out wrapped in a traceback."""

    mapper: Any

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any]:
        try:
            mapped: dict[str, Any] = self.mapper(entry)
        except (OSError, SyntaxError, ValueError) as error:
            found = " ".join(str(error).split())
            message = f"{entry['file_name']}: expected an image as annotated, found {found}; replace it"
            return {"width": entry["width"], "height": entry["height"], "error": UserError(message)}
        return mapped


def training_batches(cfg: Any, *, seed: int) -> Batches:
    """Detectron2's endless training batches of this rank; `seed` is that of the order of images alone.

    Images without an object that is no crowd are left out. Sizes and flips are drawn from NumPy's global generator.
    """
    from detectron2.data import DatasetMapper, build_detection_train_loader, get_detection_dataset_dicts
    from detectron2.data.samplers import TrainingSampler

    dataset = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    mapper = _ErrorsAsValues(DatasetMapper(cfg, is_train=True))
    sampler = TrainingSampler(len(dataset), seed=seed)
    return Batches(build_detection_train_loader(cfg, mapper=mapper, dataset=dataset, sampler=sampler))


def inference_batches(cfg: Any) -> Batches:
    """Detectron2's test loader: this rank's test images in order, one by one."""
    from detectron2.data import DatasetMapper, build_detection_test_loader

    (name,) = cfg.DATASETS.TEST
    mapper = _ErrorsAsValues(DatasetMapper(cfg, is_train=False))
    return Batches(build_detection_test_loader(cfg, name, mapper=mapper))
