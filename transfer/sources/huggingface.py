"""Hugging Face's ResNets: `ResNetModel`, or `ResNetForImageClassification`, which puts `resnet.` before its names."""

from dataclasses import replace
from pathlib import Path

from transfer.container import Content
from transfer.found import Found
from transfer.huggingface_names import HUGGINGFACE, HUGGINGFACE_NAMES
from transfer.layout import Layout
from transfer.metadata import KEY_FOR_OTHERS, with_metadata

SUMMARY = "ResNetModel or ResNetForImageClassification of Hugging Face's transformers"
TESTED_WITH = "transformers"
MODEL = Layout(
    format="huggingface",
    method=None,
    sections=("",),
    encoders={"backbone": ""},
    heads={},
    dropped={"classifier.": "classifier"},
    containers=("safetensors", "torch"),
    names=HUGGINGFACE_NAMES,
    spelling=HUGGINGFACE,
)
LAYOUTS = (MODEL, replace(MODEL, encoders={"backbone": "resnet."}))


def finish(found: Found, content: Content, path: Path) -> Found:
    """What this project's target leaves in the header; transformers keeps the input convention in another file.

    Raises:
        UserError: the metadata is not what this project writes.
    """
    stated = content.header.get(KEY_FOR_OTHERS)
    return found if stated is None else with_metadata(found, stated, path)
