"""imagenet-semi: fine-tuning of the whole backbone on a small part of the labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.classification.semi_protocol import SEMI_PROTOCOLS, SemiProtocol
from benchmarks.context import Measurement, RunContext
from benchmarks.result import DataIdentity

if TYPE_CHECKING:
    from transfer.backbone import Backbone

SUMMARY = (
    "fine-tune all layers on 1 % or 10 % of the labels of an image folder, train/CLASS and val/CLASS: top-1, top-5"
)
PROTOCOLS = SEMI_PROTOCOLS
ENGINES = ("torch",)


def run(backbone: "Backbone", data: Path, protocol: SemiProtocol, context: RunContext) -> Measurement:
    """Fine-tune and evaluate; see benchmarks/classification/semi.py."""
    from benchmarks.classification.semi import run_semi

    return run_semi(backbone, data, protocol, context)


def identify(data: Path, protocol: SemiProtocol, context: RunContext) -> DataIdentity:
    """The images of the folder that can be read, and those with labels."""
    from benchmarks.classification.semi import read_semi

    return read_semi(data, protocol, context)[2]
