"""Contract over every source and target: exactly one format claims a file, nothing is lost, the function is proved.

A new file in transfer/sources or transfer/targets joins these tests by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from mocobench.runtime.errors import UserError
from tests.transfer_examples import LAYOUTS, has_small_stem, narrow_resnets, trained_tensors, write_example
from transfer.arch import STEMS
from transfer.backbone import Backbone, InputSpec, Provenance
from transfer.convert import convert, target_formats
from transfer.convert import to_text as conversion_text
from transfer.features import STAGES
from transfer.inspect import inspect, to_text
from transfer.load import load, load_backbone, source_formats

TARGETS = tuple(target_formats())
# One of everything a backbone can say, none of it the default.
CUSTOM_INPUT = InputSpec((103.5, 116.3, 123.7), (1.0, 2.0, 3.0), channel_order="BGR", max_value=255.0)
CUSTOM_PROVENANCE = Provenance(
    source="a.pth.tar",
    format="moco",
    encoder="key",
    method="MoCo, MLP head",
    epochs=200,
    recipe="demo",
    recipe_changes="epochs=200",
    num_images=60,
    seed=3,
    file_sha256="ab" * 32,
    stored_as="float16",
)
TAKE_STRIDE_IN_1X1 = ("detectron2", "safetensors")
WIDE = ("resnet18w2", "resnet50w2", "wide_resnet50_2")
TAKE_SMALL_STEM = ("safetensors",)
TAKE_WIDE_BASIC_BLOCKS = ("huggingface", "safetensors")
TAKE_WIDE_BOTTLENECKS = ("detectron2", "huggingface", "safetensors")
TAKE_INNER_WIDTH = ("detectron2", "moco", "safetensors", "timm", "torchvision")


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    # Detectron2 does not build networks as narrow as these; test_transfer_convert.py has it build real ones.
    with narrow_resnets(), mock.patch.object(target_formats()["detectron2"], "run", return_value=None):
        yield


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of every layout of every source format, as `format-number`."""
    folder = tmp_path_factory.mktemp("samples")
    return {name: write_example(folder / name, name) for name in LAYOUTS}


def is_written(target: Any, backbone: Backbone, path: Path) -> bool:
    """Whether the target takes the backbone; a refusal must say what its tool's own network cannot be."""
    try:
        target.write(backbone, path)
    except UserError as error:
        if not re.search(r"expected .*, as .* has it, found .*; convert to", str(error)):
            raise
        return False
    return True


@pytest.mark.parametrize("module", [*source_formats().values(), *target_formats().values()])
def test_every_format_says_what_it_is(module: Any) -> None:
    assert module.SUMMARY
    assert "\n" not in module.SUMMARY
    if module.__name__.startswith("transfer.sources."):
        assert {layout.format for layout in module.LAYOUTS} == {module.__name__.rpartition(".")[2]}
    else:
        assert module.SUFFIX.startswith(".")


@pytest.mark.parametrize("source", LAYOUTS)
def test_exactly_one_layout_claims_an_example(samples: dict[str, Path], source: str) -> None:
    loaded = load(samples[source])
    assert loaded.format == LAYOUTS[source].format
    assert f"format      {loaded.format}" in to_text(inspect(samples[source]))
    expected = trained_tensors(loaded.backbone.arch)
    affine = LAYOUTS[source].spelling.mean is None
    for name, tensor in expected.items():
        if not (affine and "running" in name) and name in loaded.backbone.tensors:
            assert torch.equal(loaded.backbone.tensors[name], tensor), name


@pytest.mark.parametrize("source", [name for name, layout in LAYOUTS.items() if len(layout.encoders) > 1])
def test_either_encoder_can_be_chosen(tmp_path: Path, samples: dict[str, Path], source: str) -> None:
    first, *others = LAYOUTS[source].encoders
    for encoder in (None, first):
        loaded = load(samples[source], encoder=encoder)
        assert (loaded.found.encoder, loaded.backbone.provenance.encoder) == (first, None)
    for encoder in others:
        loaded = load(samples[source], encoder=encoder)
        assert (loaded.found.encoder, loaded.backbone.provenance.encoder) == (encoder, encoder)
        convert(samples[source], tmp_path / "out", to="safetensors", encoder=encoder)
        assert load_backbone(tmp_path / "out").provenance == loaded.backbone.provenance
        assert f"({LAYOUTS[source].format}, {encoder} encoder)" in to_text(inspect(tmp_path / "out"))
    with pytest.raises(UserError, match=r"expected --encoder .* or .*, which are in a .* file, found teachers"):
        load(samples[source], encoder="teachers")


@pytest.mark.parametrize("source", [name for name, layout in LAYOUTS.items() if len(layout.encoders) > 1])
def test_an_encoder_that_the_file_lacks_is_named(tmp_path: Path, source: str) -> None:
    layout = LAYOUTS[source]
    first, *others = layout.encoders
    # PixPro's files are told by their key encoder: of that, a head is left.
    heads = {f"{mark}fc.": "" for mark in layout.marks}
    alone = replace(layout, encoders={first: layout.encoders[first]}, dropped={**layout.dropped, **heads})
    tensors = trained_tensors("resnet18-cifar" if has_small_stem(layout) else "resnet18")
    torch.save(alone.example(tensors), tmp_path / "f")
    assert load(tmp_path / "f").found.encoder == first
    for encoder in others:
        with pytest.raises(
            UserError, match=f"f: expected the encoder {encoder}, found no such tensors in the file; leave"
        ):
            load(tmp_path / "f", encoder=encoder)


@pytest.mark.parametrize("source", [name for name, layout in LAYOUTS.items() if layout.containers == ("torch",)])
@pytest.mark.parametrize("wrapper", ["module.", "module._orig_mod."])
def test_wrappers_names_do_not_matter(tmp_path: Path, samples: dict[str, Path], source: str, wrapper: str) -> None:
    def wrapped(value: Any) -> Any:
        holds_tensors = any(isinstance(item, torch.Tensor) for item in value.values())
        return {
            wrapper + name if holds_tensors else name: wrapped(item) if isinstance(item, dict) else item
            for name, item in value.items()
        }

    torch.save(wrapped(torch.load(samples[source], weights_only=True)), tmp_path / "f")
    assert load_backbone(tmp_path / "f").digest == load_backbone(samples[source]).digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("source", [name for name, layout in LAYOUTS.items() if layout.containers == ("torch",)])
def test_half_precision_is_widened_exactly(
    tmp_path: Path, samples: dict[str, Path], source: str, dtype: torch.dtype
) -> None:
    def cast(value: Any, to: torch.dtype) -> Any:
        if isinstance(value, dict):
            return {name: cast(item, to) for name, item in value.items()}
        is_weight = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(to) if is_weight else value

    content = torch.load(samples[source], weights_only=True)
    torch.save(cast(content, dtype), tmp_path / "half")
    torch.save(cast(cast(content, dtype), torch.float32), tmp_path / "float")
    half, wide = load_backbone(tmp_path / "half"), load_backbone(tmp_path / "float")
    assert (half.digest, half.arch) == (wide.digest, wide.arch)
    assert (half.provenance.stored_as, wide.provenance.stored_as) == (str(dtype).removeprefix("torch."), None)
    report = convert(tmp_path / "half", tmp_path / "out", to="safetensors")
    assert load_backbone(tmp_path / "out").provenance == half.provenance
    assert f"  weights  {half.provenance.stored_as}, widened to float32 without loss" in conversion_text(report)
    assert f"  stored as   {half.provenance.stored_as}, widened to" in to_text(inspect(tmp_path / "half"))


@pytest.mark.parametrize("source", LAYOUTS)
def test_every_source_to_every_target_and_back_is_the_identity(
    tmp_path: Path, samples: dict[str, Path], source: str
) -> None:
    before = load_backbone(samples[source])
    assert before.provenance.format == LAYOUTS[source].format
    for to, target in target_formats().items():
        if not is_written(target, before, tmp_path / "out"):
            assert has_small_stem(LAYOUTS[source]) or before.stride_in_1x1
            continue
        after = load(tmp_path / "out")
        assert (after.format, after.found.dropped) == (to, {})
        assert after.backbone.tensors.keys() == before.tensors.keys()
        for name, tensor in before.tensors.items():
            assert torch.equal(after.backbone.tensors[name], tensor), (to, name)
        assert after.backbone.digest == before.digest
        assert after.backbone.provenance == before.provenance


@pytest.mark.parametrize("arch", ["resnet18", *(f"resnet18{stem}" for stem in STEMS if stem), *WIDE])
@pytest.mark.parametrize("to", TARGETS)
def test_what_a_target_takes_it_gives_back(tmp_path: Path, to: str, arch: str) -> None:
    before = Backbone(arch, trained_tensors(arch), CUSTOM_INPUT, CUSTOM_PROVENANCE)
    if is_written(target_formats()[to], before, tmp_path / "out"):
        after = load_backbone(tmp_path / "out")
        assert (after.arch, after.digest) == (before.arch, before.digest)


@pytest.mark.parametrize("to", ["detectron2", "huggingface", "moco", "safetensors", "timm", "torchvision"])
def test_a_target_refuses_what_its_tool_cannot_be(tmp_path: Path, to: str) -> None:
    target = target_formats()[to]
    for arch, stride_in_1x1, takes in (
        ("resnet18", False, TARGETS),
        ("resnet18", True, TAKE_STRIDE_IN_1X1),
        *((f"resnet18{stem}", False, TAKE_SMALL_STEM) for stem in STEMS if stem),
        ("resnet18w2", False, TAKE_WIDE_BASIC_BLOCKS),
        ("resnet50w2", False, TAKE_WIDE_BOTTLENECKS),
        ("wide_resnet50_2", False, TAKE_INNER_WIDTH),
    ):
        backbone = Backbone(arch, trained_tensors(arch), CUSTOM_INPUT, CUSTOM_PROVENANCE, stride_in_1x1)
        assert is_written(target, backbone, tmp_path / "out") == (to in takes), arch


@pytest.mark.parametrize(
    ("source", "to"),
    [(name, "safetensors") for name in LAYOUTS] + [("moco-0", to) for to in TARGETS if to != "safetensors"],
)
def test_every_source_and_every_target_is_proved(
    tmp_path: Path, samples: dict[str, Path], source: str, to: str
) -> None:
    """The owner's network, run from the file's own names, against what was written."""
    proof = convert(samples[source], tmp_path / "out", to=to).proof
    assert proof.differences.keys() == {"under its own names", "as benchmarks run it"}
    for stages in proof.differences.values():
        assert tuple(stages) == STAGES
    assert proof.largest.relative <= 1e-5


@pytest.mark.parametrize("to", TARGETS)
def test_the_input_convention_and_provenance_travel(tmp_path: Path, to: str) -> None:
    stride_in_1x1 = to in TAKE_STRIDE_IN_1X1
    before = Backbone("resnet18", trained_tensors("resnet18"), CUSTOM_INPUT, CUSTOM_PROVENANCE, stride_in_1x1)
    target_formats()[to].write(before, tmp_path / "out")
    after = load_backbone(tmp_path / "out")
    assert (after.input, after.provenance, after.stride_in_1x1) == (CUSTOM_INPUT, CUSTOM_PROVENANCE, stride_in_1x1)
    assert after.digest == before.digest
