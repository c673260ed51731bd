"""How the embedded engine runs: parts of a batch, several processes, resume after a kill, and what goes wrong."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_processes
from pycocotools import mask as coco_mask
from tiny_detector import CONTEXT, PROTOCOL, build_tiny_model, draw_squares, run_tiny, use_tiny_model
from torch import nn

from benchmarks.detection import embedded_parts, embedded_step
from benchmarks.detection.detections_file import append_detections, read_detections
from benchmarks.detection.embedded.instances import Found
from benchmarks.detection.embedded.solver import build_optimizer
from benchmarks.detection.embedded_checkpoint import Checkpoint, save_checkpoint
from benchmarks.detection.embedded_detection import to_detections
from benchmarks.detection.embedded_parts import Parts, batches_of_parts, cut_batch, sample_generator
from benchmarks.detection.records import Detections, LabelledImage
from benchmarks.run_folder import NOTE
from mocobench.runtime.errors import UserError


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Where `run_tiny` draws its pictures."""
    return tmp_path / "squares"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny model in this process, on one thread as in the others: sums in the same order."""
    use_tiny_model(monkeypatch.setattr)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model_final.pth", weights_only=True)["model"]


def assert_same_detections(ones: tuple[Detections, ...], others: tuple[Detections, ...]) -> None:
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        assert one.image_id == other.image_id
        for name in ("boxes", "scores", "labels"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert one.masks == other.masks
    assert sum(len(one.scores) for one in ones)


# Parts of a batch


def test_a_batch_is_cut_into_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut_batch(16, None) == Parts(images=16, num_passes=1, rank=0, world_size=1)
    assert cut_batch(16, 2) == Parts(images=2, num_passes=8, rank=0, world_size=1)
    monkeypatch.setattr(embedded_parts, "world_size", lambda: 4)
    monkeypatch.setattr(embedded_parts, "rank", lambda: 3)
    assert cut_batch(16, 2) == Parts(images=2, num_passes=2, rank=3, world_size=4)
    with pytest.raises(UserError, match=r"--batch-size 6: expected a multiple of the 4 processes, found 6"):
        cut_batch(6, None)
    with pytest.raises(UserError, match=r"--images-per-pass 3: expected a divisor of the 4 images of each process"):
        cut_batch(16, 3)


def test_the_record_says_whose_statistics_batch_norm_took() -> None:
    alone, parts = Parts(16, 1, 0, 1), Parts(2, 2, 0, 4)
    assert alone.batch_norm(is_synchronised=False) == "over the whole batch of 16 images"
    assert parts.batch_norm(is_synchronised=False) == "over parts of 2 images of 16"
    assert parts.batch_norm(is_synchronised=True) == "over parts of 8 images of 16, synchronised over 4 processes"
    paper = Parts(2, 1, 0, 8)  # 16 images on 8 GPUs with SyncBN
    assert paper.batch_norm(is_synchronised=True) == "over the whole batch of 16 images, synchronised over 8 processes"
    assert paper.batch_norm(is_synchronised=False) == "over parts of 2 images of 16"


def test_passes_show_the_images_and_draw_the_samples_of_as_many_ranks(squares: Path) -> None:
    data = draw_squares(squares).train.images

    def shown(parts: Parts) -> list[list[list[Any]]]:
        batches = batches_of_parts(data, PROTOCOL, CONTEXT, parts, purpose="p", num_batches=4, first_batch=1)
        return [[[example.image_id for example in batch] for batch in passes] for passes in batches]

    def drawn(parts: Parts, number: int) -> list[int]:
        generator = sample_generator(CONTEXT, parts, purpose="p", batch=5, number=number)
        return torch.randperm(50, generator=generator).tolist()

    first, second = (shown(Parts(images=2, num_passes=1, rank=r, world_size=2)) for r in (0, 1))
    both = Parts(images=2, num_passes=2, rank=0, world_size=1)
    assert shown(both) == [[*one, *other] for one, other in zip(first, second, strict=True)]
    assert len(shown(both)) == 4
    ranks = [drawn(Parts(2, 1, r, 2), 0) for r in (0, 1)]
    assert [drawn(both, number) for number in (0, 1)] == ranks
    assert ranks[0] != ranks[1]


class Toy(nn.Module):
    """Two losses that are means over the batch: w times the images' mean, and w squared."""

    size_divisibility = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, images: torch.Tensor, *others: Any) -> dict[str, torch.Tensor]:
        return {"linear": self.weight * images.mean(), "square": self.weight**2}


def test_the_gradient_is_the_mean_over_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Detectron2 on as many GPUs as there are passes: each takes the mean of its own loss."""
    monkeypatch.setattr(embedded_step, "assemble", lambda batch, *_, **__: (torch.tensor(batch), []))
    model = Toy()
    training = SimpleNamespace(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        input=None,
        context=CONTEXT,
        parts=Parts(2, 2, 0, 1),
        iteration=0,
    )

    class Pixels(float):
        targets = SimpleNamespace(to=lambda device: None)

    passes = [[Pixels(1), Pixels(3)], [Pixels(10), Pixels(20)]]
    values = embedded_step.step(training, passes)
    # Means 2 and 15, so d/dw = (2 + 15) / 2 + 2w = 14.5.
    assert model.weight.item() == pytest.approx(3 - 0.5 * 14.5)
    assert values == pytest.approx({"total_loss": 3 * 8.5 + 9, "linear": 3 * 8.5, "square": 9})


# Several processes


def test_two_processes_do_what_one_does_in_two_passes(squares: Path, tmp_path: Path, tiny: None) -> None:
    one = run_tiny(squares, tmp_path / "one", images_per_pass=2)
    answers = in_processes(2, run_tiny, squares, tmp_path / "two")
    assert [code for code, _ in answers] == [0, 0], answers
    first, second = (answer for _, answer in answers)
    assert_same_detections(first.detections, second.detections)
    assert first.details == one.details == {"batch_norm": "over parts of 2 images of 4"}
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in ours.items():
        if ".running_" in name:  # sums over the same batches in another order
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-5, atol=1e-6)
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(theirs[name], tensor), name
    assert [point["total_loss"] for point in first.curve] == pytest.approx([p["total_loss"] for p in one.curve])
    for detected, expected in zip(first.detections, one.detections, strict=True):
        assert detected.image_id == expected.image_id
        np.testing.assert_allclose(detected.scores, expected.scores, atol=1e-4)


def test_two_processes_resume_together(squares: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ((_, expected), _) = in_processes(2, run_tiny, squares, whole)
    assert [code for code, _ in in_processes(2, run_tiny, squares, killed, kill=("step", 6))] == [-9, -9]
    answers = in_processes(2, run_tiny, squares, killed)
    assert [code for code, _ in answers] == [0, 0], answers
    for _, outcome in answers:
        assert outcome.details["resumed"].startswith("from iteration 4")
        assert outcome.curve == expected.curve
        assert_same_detections(outcome.detections, expected.detections)
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(killed)[name], tensor), name


def test_synchronised_norms_keep_their_names_and_their_weight_decay() -> None:
    model = build_tiny_model(None, PROTOCOL, num_classes=1, seed=0)
    names = list(model.state_dict())
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert list(model.state_dict()) == names
    optimizer = build_optimizer(model, learning_rate=1.0, momentum=0.9, weight_decay=0.5, weight_decay_norm=0.0)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    undecayed = [name for name, p in model.named_parameters() if decays[id(p)] == 0]
    assert undecayed == [n for n, _ in model.named_parameters() if ".norm." in n]


# Resume


def test_a_run_killed_again_and_again_ends_as_if_never_stopped(squares: Path, tmp_path: Path, tiny: None) -> None:
    """SIGKILL in iteration 2, before a checkpoint; in 6, between two; in PreciseBN; in detection, in a half line."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    expected = run_tiny(squares, whole)
    for kill in (("step", 2), ("step", 6), ("_make_precise", 1)):
        ((code, _),) = in_processes(1, run_tiny, squares, out, kill=kill)
        assert code == -9
    assert torch.load(out / "detector_last.pth", weights_only=True)["mocobench"]["iteration"] == 7
    ((code, _),) = in_processes(1, run_tiny, squares, out, kill=("to_detections", 6))
    assert code == -9
    (out / ".detector_last.pth.4711.tmp").write_bytes(b"half a checkpo")
    kept = (out / "detections.jsonl").read_text()
    assert kept.count("\n") == 4
    (out / "detections.jsonl").write_text(kept + '{"image_id": 4, "bo')
    outcome = run_tiny(squares, out)
    assert outcome.details["resumed"].startswith("from iteration 7")
    assert outcome.curve == expected.curve
    assert_same_detections(outcome.detections, expected.detections)
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(out)[name], tensor), name
    for name in ("detector_curve.jsonl", "detections.jsonl"):
        assert (out / name).read_text() == (whole / name).read_text(), name
    names = {path.name for path in out.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == {NOTE, "detector_curve.jsonl", "detections.jsonl", "model_final.pth"}


def test_what_a_run_leaves(squares: Path, tmp_path: Path, tiny: None) -> None:
    outcome = run_tiny(squares, tmp_path / "out")
    assert [point["iteration"] for point in outcome.curve] == [3, 6, 7]
    points = [json.loads(line) for line in (tmp_path / "out" / "detector_curve.jsonl").read_text().splitlines()]
    assert points == list(outcome.curve)
    model = build_tiny_model(None, PROTOCOL, num_classes=1, seed=1)
    model.load_state_dict(weights(tmp_path / "out"), strict=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out")).Reload()
    steps = [event.step for event in events.Scalars("train/loss_mask")]
    assert steps == [3, 6, 7]
    assert "train/learning_rate" in events.Tags()["scalars"]


@pytest.mark.parametrize("judge", [NOTE, "model_final.pth"])
def test_a_folder_of_another_run_is_refused(judge: str, squares: Path, tmp_path: Path, tiny: None) -> None:
    """By the note, or by the checkpoint where an older version left none."""
    out = tmp_path / "out"
    run_tiny(squares, out, iterations=1, precise_bn_batches=0)
    if judge != NOTE:
        (out / NOTE).unlink()
    differs = rf"{judge}: expected a run of the same settings, found seed 0 there, 1 asked; iterations 1 there, 2 asked"
    with pytest.raises(UserError, match=differs):
        run_tiny(squares, out, iterations=2, precise_bn_batches=0, seed=1)
    with pytest.raises(UserError, match=rf"--resume never: \S+{judge} exists; choose another --out"):
        run_tiny(squares, out, iterations=1, precise_bn_batches=0, resume="never")
    outcome = run_tiny(squares, out, iterations=1, precise_bn_batches=0)
    assert outcome.details["resumed"].startswith("from iteration 1")


def test_a_checkpoint_of_an_older_version_goes_on(squares: Path, tmp_path: Path, tiny: None) -> None:
    """It says less of its run, and there is no note beside it."""
    out = tmp_path / "out"
    run_tiny(squares, out, iterations=1, precise_bn_batches=0)
    (out / NOTE).unlink()
    content = torch.load(out / "model_final.pth", weights_only=True)
    for name in ("engine", "detector", "arch"):
        del content["mocobench"]["run"][name]
    torch.save(content, out / "model_final.pth")
    outcome = run_tiny(squares, out, iterations=1, precise_bn_batches=0)
    assert outcome.details["resumed"].startswith("from iteration 1")


def test_a_damaged_checkpoint_is_one_line(squares: Path, tmp_path: Path, tiny: None) -> None:
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "model_final.pth"
    torch.save({"model": {}}, file)
    with pytest.raises(UserError, match=r"model_final\.pth: expected what `mocobench bench` wrote, found KeyError"):
        run_tiny(squares, tmp_path / "out")
    file.write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"model_final\.pth: expected what `mocobench bench` wrote"):
        run_tiny(squares, tmp_path / "out")


def save_on_a_full_disk(out: Path) -> None:
    """No file may grow past a hundred kilobytes; the weights have four hundred."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    save_checkpoint(out, {}, Checkpoint(3, {"weight": torch.zeros(100_000)}, {}, [], [], 0.0))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    (tmp_path / "detector_last.pth").write_text("before")
    ((_, said),) = in_processes(1, save_on_a_full_disk, tmp_path)
    assert said == f"UserError: cannot write {tmp_path}/detector_last.pth: File too large"
    assert (tmp_path / "detector_last.pth").read_text() == "before"
    assert not list(tmp_path.glob(".*"))


def test_detections_survive_the_file_to_the_last_bit(tmp_path: Path) -> None:
    images = [SimpleNamespace(image_id=name) for name in ("a b", 7, "c")]
    rle = {"size": [4, 5], "counts": b"04\\2`0"}
    boxes = np.random.default_rng(0).random((2, 4), dtype=np.float32) / 3
    scores, labels = np.float32([1 / 3, 1e-30]), np.array([4, 0])
    some = Detections("a b", boxes, scores, labels, masks=(rle, rle))
    none = Detections(7, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    path = tmp_path / "detections.jsonl"
    append_detections(path, [some])
    append_detections(path, [none])
    found = read_detections(path, images)
    assert_same_detections(tuple(found), (some, none))
    assert found[1].boxes.shape == (0, 4)
    with pytest.raises(UserError, match=r"detections\.jsonl: expected the test images in their order"):
        read_detections(path, images[1:])
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"^cannot write \S+/full: No space left on device; make room, then start"):
        append_detections(full, [some])
    path.write_text("[]\n")
    with pytest.raises(UserError, match=r"detections\.jsonl: expected detections of `mocobench bench`"):
        read_detections(path, images)


# What goes wrong


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    squares: Path, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = embedded_step.part_losses

    def losses(training: Any, *arguments: Any, **keywords: Any) -> dict[str, torch.Tensor]:
        found = original(training, *arguments, **keywords)
        return found if training.iteration < 3 else {name: loss * float("nan") for name, loss in found.items()}

    monkeypatch.setattr(embedded_step, "part_losses", losses)
    message = (
        r"^iteration 4, images \d, \d, \d, \d: expected finite losses, found loss_rpn_cls nan, .*"
        r"\(iteration 2 is kept in \S+detector_last\.pth\)$"
    )
    with pytest.raises(UserError, match=message):
        run_tiny(squares, tmp_path / "out")
    content = torch.load(tmp_path / "out" / "detector_last.pth", weights_only=True)
    assert content["mocobench"]["iteration"] == 2
    assert all(tensor.isfinite().all() for tensor in content["model"].values())


def test_a_loss_that_is_not_finite_in_a_later_pass_names_its_images(
    squares: Path, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, shown, looks = embedded_step.part_losses, [], []

    def losses(training: Any, batch: Any, *, number: int, **keywords: Any) -> dict[str, torch.Tensor]:
        found = original(training, batch, number=number, **keywords)
        if training.iteration < 2 or number != 1:
            return found
        shown.extend(example.image_id for example in batch)
        return {name: loss * float("inf") for name, loss in found.items()}

    def isfinite(tensor: torch.Tensor) -> torch.Tensor:
        looks.append(tuple(tensor.shape))
        return torch.isfinite(tensor)

    monkeypatch.setattr(embedded_step, "part_losses", losses)
    monkeypatch.setattr(torch.Tensor, "isfinite", isfinite)
    with pytest.raises(UserError) as caught:
        run_tiny(squares, tmp_path / "out", images_per_pass=1)
    assert str(caught.value).startswith(
        f"iteration 3, images {shown[0]}: expected finite losses, found loss_rpn_cls in"
    )
    assert looks.count((4,)) == 3  # once in each iteration, at its four passes
    content = torch.load(tmp_path / "out" / "detector_last.pth", weights_only=True)
    assert content["mocobench"]["iteration"] == 2


def test_what_is_found_leaves_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes, scores, labels and maps; however many masks are pasted, none of them does."""
    moved: list[tuple[int, ...]] = []
    original = torch.Tensor.cpu

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tuple(tensor.shape))
        return original(tensor)

    boxes = torch.tensor([[2.0, 2, 6, 6], [4, 0, 8, 8], [1, 1, 1, 9]])  # the last has no area
    found = Found(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]), torch.ones(3, 28, 28))
    record = LabelledImage("a", Path("a.png"), 20, 16, boxes.numpy(), *[np.zeros(3)] * 3)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    detections = to_detections(found, record, size=(8, 10))
    assert sorted(moved[:4]) == [(3,), (3,), (3, 4), (3, 28, 28)]  # before any of them is looked at
    assert detections.labels.tolist() == [0, 1]
    assert detections.boxes.tolist() == [[4, 4, 12, 12], [8, 0, 16, 16]]
    areas = [int(coco_mask.area(mask)) for mask in detections.masks or ()]
    assert areas == [64, 128]


def test_weights_that_explode_in_the_last_iteration_are_found_in_precise_bn(squares: Path, tiny: None) -> None:
    with pytest.raises(UserError, match=r"^precise BN, images \d, \d, \d, \d: expected finite losses, found proposals"):
        run_tiny(squares, None, iterations=1, learning_rate=1e30, warmup_iterations=0)


@pytest.mark.parametrize(
    ("where", "settings"),
    [("forward", "--images-per-pass.*--batch-size, --train-short-sides or --rois-per-image"), ("detect", "--test-sho")],
)
def test_out_of_memory_says_which_settings_to_lower(
    where: str, settings: str, squares: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(f"benchmarks.detection.embedded.rcnn.RCNN.{where}", fail)
    with pytest.raises(UserError, match=rf"expected enough memory, found CUDA out of memory.*; lower {settings}"):
        run_tiny(squares, None, iterations=1, precise_bn_batches=0)
