"""From any known file to a Backbone: every tensor is mapped, dropped on purpose, or an error that names it."""

import hashlib
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mocobench.runtime.errors import UserError
from pretrain.checkpoint import LAST, save_checkpoint
from pretrain.methods import make_model
from pretrain.recipes import RECIPES
from pretrain.run import Progress
from reports.published import load_published
from reports.twins import IMAGENET_IMAGES
from tests.tiny_pretraining import make_run
from tests.transfer_examples import ARCHS
from transfer import load as load_module
from transfer.backbone import IMAGENET_RGB, InputSpec, expected_shapes
from transfer.convert import convert
from transfer.inspect import inspect, to_text
from transfer.load import file_hash, load, load_backbone, load_or_random, source_formats
from transfer.released import ReleasedFile
from transfer.sources import moco, torchvision

ResnetState = Callable[..., dict[str, torch.Tensor]]
MocoContent = Callable[..., dict[str, Any]]
# What our own pretraining adds to the authors' layout.
OURS = {
    "recipe": {"name": "demo", "epochs": 300},
    "seed": 3,
    "input": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("arch", ARCHS)
def test_moco_keeps_the_query_encoders_trunk(tmp_path: Path, moco_content: MocoContent, arch: str) -> None:
    content = moco_content(arch)
    path = saved(tmp_path / "moco.pth.tar", content)
    loaded = load(path)
    backbone = loaded.backbone
    assert (loaded.format, backbone.arch) == ("moco", arch)
    assert backbone.tensors.keys() == expected_shapes(arch).keys()
    for name, tensor in backbone.tensors.items():
        assert torch.equal(tensor, content["state_dict"][f"module.encoder_q.{name}"]), name
    provenance = backbone.provenance
    assert (provenance.source, provenance.format, provenance.epochs) == ("moco.pth.tar", "moco", 200)
    assert provenance.method == "MoCo, MLP head"
    assert provenance.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.input == IMAGENET_RGB


def test_moco_drops_with_reasons(tmp_path: Path, moco_content: MocoContent) -> None:
    dropped = load(saved(tmp_path / "f", moco_content())).found.dropped
    assert dropped["module.encoder_q.fc.2.bias"] == "projection head"
    assert dropped["module.encoder_k.conv1.weight"] == "key encoder"
    assert dropped["module.encoder_k.fc.0.weight"] == "key encoder"
    assert dropped["module.queue"] == dropped["module.queue_ptr"] == "queue of keys"
    assert dropped["optimizer"] == "optimizer state"
    num_in_trunk = len(expected_shapes("resnet18"))
    # Two projection heads of four tensors, one trunk, the queue and its pointer, the optimizer.
    assert len(dropped) == 2 * 4 + num_in_trunk + 2 + 1


@pytest.fixture
def released(tmp_path: Path, moco_content: MocoContent, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in the authors' layout, of 200 epochs, which they are taken to have released."""
    path = saved(tmp_path / "known.pth.tar", moco_content())
    prefix = hashlib.md5(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(moco, "RELEASED", (ReleasedFile(prefix, "MoCo v2", 200, "moco-v2-200ep", 1_281_167),))
    return path


def test_a_released_file_is_known(released: Path, tmp_path: Path, moco_content: MocoContent) -> None:
    known = load_backbone(released).provenance
    assert (known.method, known.epochs, known.recipe) == ("MoCo v2", 200, "moco-v2-200ep")
    assert known.num_images == 1_281_167
    assert known.file_sha256 == hashlib.sha256(released.read_bytes()).hexdigest()
    assert "  recipe      moco-v2-200ep" in to_text(inspect(released)).splitlines()
    for format_name in ("safetensors", "detectron2"):
        convert(released, tmp_path / format_name, to=format_name)
        assert load_backbone(tmp_path / format_name).provenance == known
    other = moco_content()
    other["arch"] = "resnet18 "  # other bytes, the same weights
    unknown = load_backbone(saved(tmp_path / "f", other)).provenance
    assert (unknown.method, unknown.recipe) == ("MoCo, MLP head", None)


@pytest.mark.parametrize("change", [{"epoch": 100}, {"mocobench": OURS}], ids=["epochs", "recipe"])
def test_files_that_cannot_be_released_ones_are_hashed_once(
    change: dict[str, Any], tmp_path: Path, moco_content: MocoContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(
        load_module, "file_hash", lambda path, algorithm: hashed.append(algorithm) or file_hash(path, algorithm)
    )
    path = saved(tmp_path / "f", moco_content() | change)
    load_backbone(path)
    assert hashed == ["sha256"]
    load_backbone(saved(path, moco_content()))
    assert sorted(hashed[1:]) == ["md5", "sha256"]


def test_the_released_files_have_recipes_of_ours_and_published_rows() -> None:
    # In the authors' README.
    assert {(file.method, file.epochs): file.md5_prefix for file in moco.RELEASED} == {
        ("MoCo v1", 200): "b251726a",
        ("MoCo v2", 200): "59fd9945",
        ("MoCo v2", 800): "a04e12f8",
    }
    published = {(row.recipe, row.pretraining.epochs) for row in load_published()}
    for file in moco.RELEASED:
        assert RECIPES[file.recipe].epochs == file.epochs
        assert (file.recipe, file.epochs) in published
        assert file.num_images == IMAGENET_IMAGES


def test_our_own_checkpoints_bring_recipe_seed_and_input(tmp_path: Path, moco_content: MocoContent) -> None:
    content = moco_content()
    content["mocobench"] = deepcopy(OURS)
    backbone = load_backbone(saved(tmp_path / "f", content))
    assert (backbone.provenance.recipe, backbone.provenance.seed, backbone.provenance.epochs) == ("demo", 3, 200)
    assert (backbone.input.mean, backbone.input.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    del content["mocobench"]["input"]["std"]
    with pytest.raises(
        UserError, match="expected under `mocobench` a recipe, a seed and an input convention, found KeyError 'std'"
    ):
        load_backbone(saved(tmp_path / "f", content))


def test_reads_what_pretrain_writes(tmp_path: Path) -> None:
    run = make_run(tmp_path, tmp_path / "run", differing={"arch": "resnet18"}, seed=5)
    recipe = run.recipe
    model, optimizer = make_model(run)
    save_checkpoint(run, data={"images": 26}, progress=Progress(epoch=2), model=model, optimizer=optimizer)
    path = run.out / LAST
    loaded = load(path)
    backbone, provenance = loaded.backbone, loaded.backbone.provenance
    assert (provenance.recipe, provenance.seed, provenance.epochs) == ("demo", 5, 2)
    assert (provenance.recipe_changes, provenance.num_images) == ("; ".join(run.differs), 26)
    assert "learning_rate: 0.01 -> 0.03" in run.differs
    assert (backbone.input.mean, backbone.input.std) == (recipe.augmentation.mean, recipe.augmentation.std)
    for name, tensor in model.encoder_q.state_dict().items():
        assert name.startswith("fc.") or torch.equal(backbone.tensors[name], tensor), name
    reasons = {"projection head", "key encoder", "queue of keys", "optimizer state"}
    assert set(loaded.found.dropped.values()) == reasons


def test_a_3x3_stem_is_the_one_for_small_pictures(tmp_path: Path, moco_content: MocoContent) -> None:
    content = moco_content()
    content["state_dict"]["module.encoder_q.conv1.weight"] = torch.zeros(64, 3, 3, 3)
    assert load_backbone(saved(tmp_path / "f", content)).arch == "resnet18-cifar"


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_torchvision_bare_or_under_a_key(tmp_path: Path, resnet_state: ResnetState, key: str | None) -> None:
    state = resnet_state("resnet34")
    loaded = load(saved(tmp_path / "f", {key: state, "epoch": 90} if key else state))
    assert (loaded.format, loaded.backbone.arch) == ("torchvision", "resnet34")
    assert loaded.backbone.provenance.epochs == (90 if key else None)
    assert loaded.found.dropped == {"fc.weight": "classifier", "fc.bias": "classifier"}
    for name, tensor in loaded.backbone.tensors.items():
        assert torch.equal(tensor, state[name]), name


def test_old_files_without_bn_counters_are_whole(tmp_path: Path, resnet_state: ResnetState) -> None:
    state = resnet_state()
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    digests = [load_backbone(saved(tmp_path / "f", content)).digest for content in (state, old)]
    assert digests[0] == digests[1]


def detectron2_content(author: str = "MOCO") -> dict[str, Any]:
    """Two tensors by hand: enough to be recognised, far from a whole network."""
    conv = torch.zeros(64, 3, 7, 7).numpy()
    model = {"stem.conv1.weight": conv, "res2.0.conv1.weight": conv, "stem.fc.weight": conv}
    return {"model": model, "__author__": author, "matching_heuristics": True}


def test_detectron2_weights_of_an_unknown_author_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(detectron2_content("Caffe2")))
    with pytest.raises(
        UserError, match=r"f\.pkl: expected weights by mocobench, MOCO or .* or torchvision.*found __author__"
    ):
        load_backbone(tmp_path / "f.pkl")


def test_detectron2_metadata_that_is_broken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(detectron2_content('mocobench 0.1.0 {"arch":"resnet18"}')))
    with pytest.raises(UserError, match="expected the metadata that mocobench writes, found KeyError 'input'"):
        load_backbone(tmp_path / "f.pkl")


def faulty(state: dict[str, Any], fault: str) -> dict[str, Any]:
    """A state dict with one thing wrong."""
    changes: dict[str, dict[str, Any]] = {
        "extra": {"layer1.0.attention.weight": torch.ones(1)},
        "shape": {"layer1.0.conv1.weight": torch.ones(64, 64, 1, 1)},
        "type": {"bn1.bias": torch.ones(64, dtype=torch.float64)},
        "nan": {"bn1.bias": torch.full((64,), float("nan"))},
        "infinity": {"bn1.bias": torch.cat([torch.zeros(63), torch.tensor([float("inf")])])},
        "variance": {"bn1.running_var": torch.full((64,), -1.0)},
        "text": {"bn1.bias": "a text"},
        "missing": {},
    }
    state = state | changes[fault]
    if fault == "missing":
        del state["layer4.1.bn2.running_var"]
    return state


FAULTS = {
    "missing": r"expected the tensors of a resnet18, found 1 missing \(layer4.1.bn2.running_var\)",
    "extra": r"found 1 unexpected \(layer1.0.attention.weight\)",
    "shape": r"found 1 of another shape \(layer1.0.conv1.weight \(64, 64, 1, 1\), not \(64, 64, 3, 3\)\)",
    "type": r"found 1 of another type \(bn1.bias torch.float64, not torch.float32\)",
    "nan": r"found 1 not finite \(bn1.bias\)",
    "infinity": r"found 1 not finite \(bn1.bias\)",
    "variance": r"found 1 of negative variance \(bn1.running_var\)",
    "text": "expected tensors, found other values under .*bn1.bias",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_with_a_tensor_is_named(tmp_path: Path, resnet_state: ResnetState, fault: str) -> None:
    path = saved(tmp_path / "weights", faulty(resnet_state(), fault))
    with pytest.raises(UserError, match=f"^{path}: .*{FAULTS[fault]}"):
        load_backbone(path)


def test_a_tensor_missing_from_the_moco_layout_is_named(tmp_path: Path, moco_content: MocoContent) -> None:
    content = moco_content()
    del content["state_dict"]["module.encoder_q.layer4.1.bn2.running_var"]
    with pytest.raises(UserError, match=FAULTS["missing"]):
        load_backbone(saved(tmp_path / "weights", content))


def test_large_but_finite_values_are_finite(tmp_path: Path, resnet_state: ResnetState) -> None:
    """Their sum is not finite, each of them is."""
    state = resnet_state() | {"bn1.bias": torch.full((64,), 3e38)}
    assert load_backbone(saved(tmp_path / "f", state)).arch == "resnet18"


def test_a_name_of_the_moco_layout_that_is_not_known_is_an_error(tmp_path: Path, moco_content: MocoContent) -> None:
    content = moco_content()
    content["state_dict"]["module.predictor.weight"] = torch.ones(2)
    with pytest.raises(UserError, match=r"found 1 unexpected \(module\.predictor\.weight\)"):
        load_backbone(saved(tmp_path / "f", content))


def test_other_architectures_are_refused(tmp_path: Path, resnet_state: ResnetState, moco_content: MocoContent) -> None:
    state = resnet_state() | {"layer2.2.conv1.weight": torch.ones(1)}
    expected = r"expected a ResNet of \[2, 2, 2, 2\], .* blocks in its stages, found \[2, 3, 2, 2\] basic blocks"
    with pytest.raises(UserError, match=expected):
        load_backbone(saved(tmp_path / "f", state))
    content = moco_content() | {"arch": "resnet50"}
    with pytest.raises(UserError, match="expected the resnet50 it says it is, found the tensors of a resnet18"):
        load_backbone(saved(tmp_path / "f", content))


def test_no_format_claims_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "f", {"student": {"a": 1, "b": 2}, "epoch": 3})
    formats = ", ".join(source_formats())
    with pytest.raises(
        UserError, match=f"expected a checkpoint of one of {formats}, found the keys 'student'"
    ) as caught:
        load_backbone(path)
    assert "(with 'a', 'b', ...), 'epoch'; name another file" in str(caught.value)
    save_file({"conv9.weight": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match=r"foreign\.safetensors: .*found the keys 'conv9\.weight'"):
        load_backbone(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("section", ["", "model"])
def test_torchvisions_names_with_a_beginning_say_how_to_be_read(
    tmp_path: Path, resnet_state: ResnetState, section: str
) -> None:
    state = {f"net.encoder.{name}": tensor for name, tensor in resnet_state().items()}
    with pytest.raises(UserError, match=r"found the names of a ResNet of torchvision that begin with 'net\.encoder\.'"):
        load_backbone(saved(tmp_path / "f", {section: state} if section else state))
    stripped = {name.removeprefix("net.encoder."): tensor for name, tensor in state.items()}
    assert load(saved(tmp_path / "g", stripped)).format == "torchvision"


def test_pixels_that_a_file_does_not_state_can_be(tmp_path: Path, resnet_state: ResnetState) -> None:
    path, unit = saved(tmp_path / "f", {"state_dict": resnet_state()}), InputSpec((0.0,) * 3, (1.0,) * 3)
    assumed, stated = load_backbone(path), load_backbone(path, pixels=unit)
    assert assumed.input == IMAGENET_RGB
    assert stated.input == unit
    assert assumed.digest != stated.digest  # another function, which a report shows as a row of its own
    convert(path, tmp_path / "own", to="safetensors", pixels=unit)
    assert load_backbone(tmp_path / "own").digest == stated.digest
    assert load_backbone(tmp_path / "own", pixels=unit).digest == stated.digest
    with pytest.raises(UserError, match=r"--mean and --std: .* found RGB, values 0 to 1, mean 0 0 0, std 1 1 1; leave"):
        load_backbone(tmp_path / "own", pixels=IMAGENET_RGB)


def test_a_format_that_is_asked_for_must_be_the_files(tmp_path: Path, resnet_state: ResnetState) -> None:
    path = saved(tmp_path / "f", resnet_state())
    assert load_backbone(path, source="torchvision").arch == "resnet18"
    with pytest.raises(UserError, match="expected the format moco, found the format torchvision"):
        load_backbone(path, source="moco")
    with pytest.raises(UserError, match=r"--from caffe: expected auto or one of .*, detectron2, .*, moco"):
        load_backbone(path, source="caffe")


def test_two_claims_are_an_error(tmp_path: Path, resnet_state: ResnetState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's formats exclude each other, so a second claimant is made up."""
    formats = source_formats()
    monkeypatch.setattr(
        load_module, "source_formats", lambda: formats | {"other": SimpleNamespace(LAYOUTS=torchvision.LAYOUTS)}
    )
    path = saved(tmp_path / "f", resnet_state())
    with pytest.raises(UserError, match="expected one format, found torchvision and other; choose one with --from"):
        load_backbone(path)
    assert load_backbone(path, source="torchvision").arch == "resnet18"


def test_random_is_a_backbone_with_a_seed(tmp_path: Path, resnet_state: ResnetState) -> None:
    (first, nothing), (again, _), (other, _) = (load_or_random("random", seed=s, arch="resnet18") for s in (1, 1, 2))
    assert nothing == ()
    assert first.digest == again.digest != other.digest
    assert (first.provenance.format, first.provenance.seed) == ("random", 1)
    path = saved(tmp_path / "f", resnet_state())
    backbone, warnings = load_or_random(str(path), seed=1)
    assert (backbone.digest, warnings) == (load_backbone(path).digest, load(path).warnings)


def test_the_backbone_does_not_depend_on_the_file_any_more(tmp_path: Path, resnet_state: ResnetState) -> None:
    path = saved(tmp_path / "f", resnet_state())
    backbone = load_backbone(path)
    before = backbone.tensors["conv1.weight"].clone()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(backbone.tensors["conv1.weight"], before)
