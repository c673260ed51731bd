"""voc-svm: PASCAL VOC 2007 image classification by linear SVMs on the frozen backbone's pooled features."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.classification.svm_protocol import SVM_PROTOCOLS, SvmProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import DataIdentity

if TYPE_CHECKING:
    from transfer.backbone import Backbone

SUMMARY = "linear SVMs on frozen features of PASCAL VOC: mAP with all images and with few positive ones"
PROTOCOLS = SVM_PROTOCOLS
ENGINES = ("torch",)


def run(backbone: "Backbone", data: Path, protocol: SvmProtocol, context: RunContext) -> Measurement:
    """Train and score the SVMs; see benchmarks/classification/svm.py."""
    from benchmarks.classification.svm import run_svm

    return run_svm(backbone, data, protocol, context)


def identify(data: Path, protocol: SvmProtocol, context: RunContext) -> DataIdentity:
    """The images of the splits that can be read."""
    from benchmarks.classification.svm_images import identify_images

    return identify_images(data, protocol, context)
