"""Conversion: what is written, the proof and the record of it, and that a failure leaves nothing behind."""

import hashlib
import json
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_processes
from torchvision import models

from mocobench.runtime.detectron2 import why_no_detectron2
from mocobench.runtime.errors import UserError
from tests.transfer_examples import ARCHS
from transfer.backbone import Backbone, InputSpec, Provenance
from transfer.convert import convert, target_formats, to_text
from transfer.detectron2_names import DETECTRON2_NAMES
from transfer.load import load_backbone
from transfer.sources import detectron2 as detectron2_source
from transfer.targets import detectron2 as detectron2_target

ResnetState = Callable[..., dict[str, torch.Tensor]]
MocoContent = Callable[..., dict[str, Any]]

TARGETS = tuple(target_formats())
# One of everything a backbone can say, none of it the default.
CUSTOM_INPUT = InputSpec((103.5, 116.3, 123.7), (1.0, 2.0, 3.0), channel_order="BGR", max_value=255.0)
CUSTOM_PROVENANCE = Provenance("a.pth.tar", "moco")


def official_content(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the authors' converter makes of a MoCo state dict, restated from its rules.

    Only the query encoder counts. A name outside the four stages belongs to the stem, whatever it is. Stages count
    from 2, a BN is the `norm` of the convolution with its number, and the downsampling pair is the `shortcut`.
    """
    substitutions = [(f"layer{n}", f"res{n + 1}") for n in (1, 2, 3, 4)]
    substitutions += [(f"bn{n}", f"conv{n}.norm") for n in (1, 2, 3)]
    substitutions += [("downsample.0", "shortcut"), ("downsample.1", "shortcut.norm")]
    model = {}
    for own_name, tensor in state.items():
        encoder, _, name = own_name.partition("encoder_q.")
        if encoder != "module.":
            continue
        name = name if "layer" in name else f"stem.{name}"
        for old, new in substitutions:
            name = name.replace(old, new)
        model[name] = tensor.numpy()
    return {"model": model, "__author__": "MOCO", "matching_heuristics": True}


@pytest.fixture(scope="module")
def samples(
    tmp_path_factory: pytest.TempPathFactory, resnet_state: ResnetState, moco_content: MocoContent
) -> dict[str, Path]:
    """The same ResNet-18 in two formats."""
    folder = tmp_path_factory.mktemp("samples")
    torch.save(moco_content("resnet18"), folder / "moco")
    torch.save(resnet_state("resnet18"), folder / "torchvision")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("arch", ARCHS)
def test_detectron2_holds_what_the_official_converter_writes(
    tmp_path: Path, moco_content: MocoContent, arch: str
) -> None:
    content = moco_content(arch)
    torch.save(content, tmp_path / "in")
    detectron2_target.write(load_backbone(tmp_path / "in"), tmp_path / "out")
    found = pickle.loads((tmp_path / "out").read_bytes())
    official = official_content(content["state_dict"])
    assert [name for name in official["model"] if name not in found["model"]] == [
        f"stem.fc.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")
    ]
    assert found["model"].keys() <= official["model"].keys()
    for name, array in found["model"].items():
        assert type(array) is np.ndarray
        assert array.dtype == (np.int64 if name.endswith("num_batches_tracked") else np.float32)
        assert array.tobytes() == official["model"][name].tobytes(), name
        assert array.shape == official["model"][name].shape, name
    assert found["matching_heuristics"] is True
    name, version, metadata = found["__author__"].split(" ", 2)
    assert name == "mocobench"
    assert version.count(".") == 2
    assert json.loads(metadata)["input"]["mean"] == [0.485, 0.456, 0.406]


def test_the_memory_layout_of_the_source_does_not_matter(tmp_path: Path, resnet_state: ResnetState) -> None:
    """Checkpoints of channels-last training give the same files, and the same proof."""
    state = resnet_state("resnet18")
    strided = {name: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for name, t in state.items()}
    written = []
    for name, content in {"a": state, "b": strided}.items():
        (tmp_path / name).mkdir()
        torch.save(content, tmp_path / name / "in")
        report = convert(tmp_path / name / "in", tmp_path / name / "out", to="detectron2")
        assert report.proof.largest.relative < 1e-6
        written.append(pickle.loads((tmp_path / name / "out").read_bytes())["model"])
    assert not strided["layer1.0.conv1.weight"].is_contiguous()
    for name, array in written[1].items():
        assert array.flags.c_contiguous, name
        np.testing.assert_array_equal(array, written[0][name])


@pytest.mark.parametrize("to", TARGETS)
def test_a_target_may_be_read_by_whom_the_user_allows(tmp_path: Path, samples: dict[str, Path], to: str) -> None:
    (tmp_path / "plain").write_text("")
    convert(samples["moco"], tmp_path / "out", to=to)
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("to", TARGETS)
def test_the_same_conversion_gives_the_same_bytes(tmp_path: Path, samples: dict[str, Path], to: str) -> None:
    one, other = (convert(samples["moco"], tmp_path / name, to=to) for name in ("one", "other"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert one.target_sha256 == other.target_sha256


def convert_on_a_full_disk(source: Path, target: Path, to: str) -> None:
    """No file may grow past a megabyte."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    convert(source, target, to=to)


@pytest.mark.parametrize("to", TARGETS)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, samples: dict[str, Path], to: str) -> None:
    ((_, said),) = in_processes(1, convert_on_a_full_disk, samples["moco"], tmp_path / "out", to)
    assert said == f"UserError: cannot write {tmp_path}/out: File too large"
    assert list(tmp_path.iterdir()) == []


def test_torchvision_misses_the_classifier_only(tmp_path: Path, samples: dict[str, Path]) -> None:
    convert(samples["moco"], tmp_path / "out.pth", to="torchvision")
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    missing, unexpected = models.resnet18(weights=None).load_state_dict(state, strict=False)
    assert sorted(missing) == ["fc.bias", "fc.weight"]
    assert unexpected == []


def test_resnet50_by_the_numbers_and_the_record(tmp_path: Path, moco_content: MocoContent) -> None:
    """A ResNet-50 has 53 convolutions, each with a BN of four tensors and a counter."""
    source, target = tmp_path / "moco.pth.tar", tmp_path / "new folder" / "out.pkl"
    torch.save(moco_content("resnet50"), source)
    report = convert(source, target, to="detectron2")
    record = json.loads((tmp_path / "new folder" / "out.pkl.json").read_text())
    assert record == json.loads(json.dumps(report.to_dict()))
    assert record["mapped"] == {"convolutions": 53, "BN tensors": 4 * 53, "BN counters": 53}
    assert record["source"] == {
        "name": "moco.pth.tar",
        "format": "moco",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "encoder": "query",
    }
    assert record["target"]["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert record["arch"] == "resnet50"
    assert record["digest"] == load_backbone(target).digest
    assert record["dropped"]["module.queue_ptr"] == "queue of keys"
    by_detectron2 = {"by detectron2 itself"} if why_no_detectron2() is None else set()
    assert record["proof"]["differences"].keys() == {"under its own names", "as benchmarks run it"} | by_detectron2
    assert record["proof"]["largest_relative"] <= record["proof"]["max_relative_allowed"] == 1e-5
    assert str(tmp_path) not in json.dumps(record)
    text = to_text(report)
    assert "mapped   53 convolutions, 212 BN tensors, 53 BN counters" in text
    assert "dropped  4 projection head" in text
    assert "proof    largest difference of features" in text
    assert [path.name for path in target.parent.iterdir() if path.name.startswith(".")] == []


def test_a_wrong_name_that_reads_back_right_fails_the_proof_and_leaves_nothing(
    tmp_path: Path, samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two BN layers change places in writing and again in reading: only running the file's own names can tell."""

    blocks = dict(DETECTRON2_NAMES.blocks, bn1="conv2.norm", bn2="conv1.norm")
    swapped = replace(DETECTRON2_NAMES, blocks=blocks)
    (layout,) = detectron2_source.LAYOUTS
    monkeypatch.setattr(detectron2_target, "DETECTRON2_NAMES", swapped)
    monkeypatch.setattr(detectron2_source, "LAYOUTS", (replace(layout, names=swapped),))
    with pytest.raises(
        UserError, match=r"expected the same features .* found them apart by .* at layer1 under its own names"
    ):
        convert(samples["moco"], tmp_path / "out.pkl", to="detectron2")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_what_was_there(tmp_path: Path, samples: dict[str, Path]) -> None:
    (tmp_path / "out.pth").write_text("before")
    (tmp_path / "broken").write_bytes(samples["moco"].read_bytes()[:-100])
    with pytest.raises(UserError, match=r"broken: expected a whole checkpoint"):
        convert(tmp_path / "broken", tmp_path / "out.pth", to="torchvision")
    assert (tmp_path / "out.pth").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "out.pth"]


def test_torchvision_has_no_place_for_a_stride_in_the_1x1(tmp_path: Path, resnet_state: ResnetState) -> None:
    tensors = {name: t for name, t in resnet_state("resnet50").items() if not name.startswith("fc.")}
    backbone = Backbone("resnet50", tensors, CUSTOM_INPUT, CUSTOM_PROVENANCE, stride_in_1x1=True)
    target_formats()["safetensors"].write(backbone, tmp_path / "in.safetensors")
    with pytest.raises(UserError, match=r"expected the stride in the 3x3 .* convert to detectron2 or safetensors"):
        convert(tmp_path / "in.safetensors", tmp_path / "out.pth", to="torchvision")
    convert(tmp_path / "in.safetensors", tmp_path / "out.pkl", to="detectron2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.pkl", "out.pkl.json"]


def test_weights_changed_after_they_were_written_are_noticed(tmp_path: Path, samples: dict[str, Path]) -> None:
    convert(samples["moco"], tmp_path / "out.pkl", to="detectron2")
    content = pickle.loads((tmp_path / "out.pkl").read_bytes())
    content["model"]["stem.conv1.weight"][0, 0, 0, 0] += 1
    (tmp_path / "out.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"expected weights with the digest .* changed after they were written"):
        load_backbone(tmp_path / "out.pkl")


def test_destinations_that_cannot_be(tmp_path: Path, samples: dict[str, Path]) -> None:
    copy = tmp_path / "in"
    copy.write_bytes(samples["torchvision"].read_bytes())
    with pytest.raises(UserError, match="expected a file other than the one to convert, found the same; name another"):
        convert(copy, tmp_path / "." / "in", to="torchvision")
    with pytest.raises(UserError, match="expected the name of a file to write, found a folder; add a file name"):
        convert(copy, tmp_path, to="torchvision")
    with pytest.raises(UserError, match=f"--to onnx: expected one of {', '.join(TARGETS)}$"):
        convert(copy, tmp_path / "out", to="onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        convert(copy, tmp_path / "file" / "out", to="torchvision")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]
