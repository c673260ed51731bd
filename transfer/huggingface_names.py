"""The names of Hugging Face's `ResNetModel`, twice: to translate them and to run them."""

from transfer.features import Spelling
from transfer.names import NameTable

HUGGINGFACE_NAMES = NameTable(
    stem={"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"},
    stages={f"layer{n}": f"encoder.stages.{n - 1}.layers.{{block}}." for n in (1, 2, 3, 4)},
    blocks={
        "conv1": "layer.0.convolution",
        "bn1": "layer.0.normalization",
        "conv2": "layer.1.convolution",
        "bn2": "layer.1.normalization",
        "conv3": "layer.2.convolution",
        "bn3": "layer.2.normalization",
        "downsample.0": "shortcut.convolution",
        "downsample.1": "shortcut.normalization",
    },
)
HUGGINGFACE = Spelling(
    stem="embedder.embedder.convolution",
    stem_norm="embedder.embedder.normalization",
    stages=(
        "encoder.stages.0.layers.{block}.",
        "encoder.stages.1.layers.{block}.",
        "encoder.stages.2.layers.{block}.",
        "encoder.stages.3.layers.{block}.",
    ),
    conv="layer.{index}.convolution",
    norm="layer.{index}.normalization",
    shortcut="shortcut.convolution",
    shortcut_norm="shortcut.normalization",
)
