"""Detection by a Detectron2 model, scored by Detectron2's own VOC and COCO evaluators."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from benchmarks.detection.detectron2_data import POSITION, inference_batches
from benchmarks.detection.embedded.masks import to_rle
from benchmarks.detection.engine import LESS_MEMORY
from benchmarks.detection.protocol import DetectionProtocol
from benchmarks.detection.records import DetectionData, Detections, DetectionSet, LabelledImage
from benchmarks.detection.voc_metric import ONE_BASED
from mocobench.runtime.distributed import gather_objects
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means
from mocobench.runtime.progress import progress

# Detectron2's words -> those of our tasks' metrics.
NAMES = {"AP": "ap", "AP50": "ap50", "AP75": "ap75"}
KINDS = {"bbox": "box", "segm": "mask"}
# The year by which Detectron2's evaluator chooses the metric.
YEARS = {"voc-11-point": 2007, "voc-area": 2012}


def build_evaluator(data: DetectionData, protocol: DetectionProtocol, *, name: str, workspace: Path) -> Any:
    """Detectron2's evaluator for the test set registered as `name`, with the files it reads in `workspace`.

    Raises:
        UserError: objects that Detectron2's VOC evaluator cannot read or gives no number for.
    """
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator

    if protocol.metric == "coco":
        truth = data.ground_truth
        assert truth is not None, "data scored as COCO come with COCO's dictionary"
        file = workspace / "ground_truth.json"
        file.write_text(json.dumps(truth), encoding="utf-8")
        category_ids = sorted(category["id"] for category in truth["categories"])
        MetadataCatalog.get(name).set(
            json_file=str(file),
            thing_dataset_id_to_contiguous_id={number: label for label, number in enumerate(category_ids)},
        )
        tasks = ("bbox", "segm") if protocol.masks else ("bbox",)
        return COCOEvaluator(name, tasks=tasks, use_fast_impl=False)  # pycocotools, as for published numbers
    _check_for_voc(data.test, protocol.metric)
    write_voc_files(data.test, workspace)
    # Classes go by number: the evaluator makes file names of them. It gives no number for single classes.
    classes = [str(label) for label in range(len(data.test.classes))]
    voc_name = f"{name}_voc"
    MetadataCatalog.get(voc_name).set(
        dirname=str(workspace), split="test", year=YEARS[protocol.metric], thing_classes=classes
    )
    try:
        return PascalVOCDetectionEvaluator(voc_name)
    finally:
        MetadataCatalog.remove(voc_name)  # the evaluator has read it


def _check_for_voc(test: DetectionSet, metric: str) -> None:
    for image in test.images:
        corners = image.boxes + ONE_BASED
        if (corners != np.rint(corners)).any():
            raise UserError(
                f"{image.path}: expected test boxes at whole pixels, as Detectron2's VOC evaluator reads them, "
                f"found {corners[(corners != np.rint(corners)).any(axis=1)][0].tolist()}; use --engine embedded"
            )
    counted = {label for image in test.images for label in image.labels[~image.difficult].tolist()}
    absent = [name for label, name in enumerate(test.classes) if label not in counted]
    if absent and metric == "voc-area":
        raise UserError(
            f"metric voc-area: expected test objects of every class, without which Detectron2's evaluator gives no "
            f"number, found none of {', '.join(absent)}; use --metric voc-11-point or --engine embedded"
        )


def write_voc_files(test: DetectionSet, folder: Path) -> None:
    """The layout that Detectron2's VOC evaluator reads: names are positions in the set, classes are labels."""
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    names = [str(position) for position in range(len(test.images))]
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    for name, image in zip(names, test.images, strict=True):
        root = ElementTree.Element("annotation")
        corners = (image.boxes + ONE_BASED).astype(int)
        for label, difficult, box in zip(image.labels, image.difficult, corners, strict=True):
            element = ElementTree.SubElement(root, "object")
            values = {"name": label, "pose": "Unspecified", "truncated": 0, "difficult": int(difficult)}
            for key, value in values.items():
                ElementTree.SubElement(element, key).text = str(value)
            bounds = ElementTree.SubElement(element, "bndbox")
            for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ElementTree.SubElement(bounds, key).text = str(corner)
        ElementTree.ElementTree(root).write(folder / "Annotations" / f"{name}.xml")


class Collector:
    """Keeps a model's outputs as our Detections; of the shape of Detectron2's evaluators, to run beside one."""

    def __init__(self, images: Sequence[LabelledImage]) -> None:
        self.images = images
        self.found: dict[int, Detections] = {}

    def reset(self) -> None:
        self.found = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for entry, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            masks = tuple(to_rle(mask) for mask in instances.pred_masks) if instances.has("pred_masks") else None
            self.found[entry[POSITION]] = Detections(
                image_id=self.images[entry[POSITION]].image_id,
                boxes=instances.pred_boxes.tensor.numpy(),
                scores=instances.scores.numpy(),
                labels=instances.pred_classes.numpy(),
                masks=masks,
            )

    def evaluate(self) -> None:
        """Nothing to score."""

    def all_found(self) -> tuple[Detections, ...]:
        """Every image's detections in the order of the images, on every rank."""
        found = {position: each for part in gather_objects(self.found) for position, each in part.items()}
        return tuple(found[position] for position in range(len(self.images)))


def detect_and_score(
    model: Any, cfg: Any, data: DetectionData, protocol: DetectionProtocol, evaluator: Any
) -> tuple[tuple[Detections, ...], dict[str, float]]:
    """Detections of every test image in order, and Detectron2's scores for them in percent by our metrics' names.

    Raises:
        UserError: an image cannot be read, or memory runs out.
    """
    from detectron2.evaluation import inference_on_dataset

    collector = Collector(data.test.images)
    bar = progress(inference_batches(cfg), label="detect", unit="image")
    with (
        contextlib.redirect_stdout(io.StringIO()),  # pycocotools prints
        out_of_memory_means("detecting in one image", remedy=LESS_MEMORY),
    ):
        results = gather_objects(inference_on_dataset(model, bar, [collector, evaluator]))[0]  # rank 0 has scored
    detections = collector.all_found()
    any_found = any(len(each.scores) for each in detections)
    # Where nothing was found, Detectron2's COCO evaluator has NaN for what is 0.
    scores = {
        f"{KINDS[kind]}_{ours}" if protocol.metric == "coco" else ours: float(values[theirs]) if any_found else 0.0
        for kind, values in results.items()
        for theirs, ours in NAMES.items()
    }
    return detections, scores
