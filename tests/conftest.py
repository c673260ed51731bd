"""Fixtures shared by the tests."""

import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from benchmarks.result import (
    BackboneRecord,
    DataIdentity,
    Metric,
    ProtocolRecord,
    Result,
    SplitIdentity,
)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real data sets that are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets in ../shared/data are not here")
    return SHARED_DATA


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started with it turned off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def bright_and_dark(tmp_path: Path) -> Path:
    """An image folder of two classes that any network tells apart: six training and three validation images each."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, low in (("bright", 180), ("dark", 0)):
            folder = tmp_path / "world" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(low, low + 70, size=(40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "world"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A year folder of VOC: bright images show a cat, dark ones a dog; one of each split shows a bird too."""
    generator = np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for split, count in (("trainval", 12), ("test", 6)):
        names = [f"{split}{index}" for index in range(count)]
        (tmp_path / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))
        for index, name in enumerate(names):
            low = 180 * (index % 2)
            Image.fromarray(generator.integers(low, low + 70, (40, 40, 3), dtype=np.uint8)).save(
                tmp_path / "JPEGImages" / f"{name}.jpg"
            )
            shown = [("dog", "cat")[index % 2]] + (["bird"] if index == 0 else [])
            box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
            objects = "".join(f"<object><name>{thing}</name>{box}</object>" for thing in shown)
            size = "<size><width>40</width><height>40</height></size>"
            (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return tmp_path


@pytest.fixture(scope="session")
def make_result() -> Callable[..., Result]:
    """A whole result record from the few things a test is about; `digest` and `created` default to something valid."""

    def make(metrics: dict[str, float], *, protocol: str = "imagenet-linear/smoke@1", **changes: Any) -> Result:
        seed, name = changes.get("seed", 0), changes.get("backbone", "demo")
        base, differs = changes.get("base", protocol), changes.get("differs", ())
        provenance = {"source": "checkpoint.pth.tar", "format": "moco", "method": "MoCo v2", "epochs": 20}
        if name == "random":
            provenance = {"source": "random", "format": "random", "method": "random", "epochs": 0, "seed": seed}
        splits = {"train": SplitIdentity(60, "ab" * 32), "val": SplitIdentity(20, "cd" * 32)}
        return Result(
            task=protocol.split("/")[0],
            protocol=ProtocolRecord(protocol, base, differs, changes.get("settings", {"learning_rate": 30.0})),
            backbone=BackboneRecord(name, "resnet50", changes.get("digest", f"{name}-{seed}"), {}, provenance),
            seed=seed,
            engine=changes.get("engine", {"name": "torch", "version": "2.6"}),
            precision="fp32",
            metrics=metrics,
            metric_info={metric: Metric(metric) for metric in metrics},
            data=DataIdentity(changes.get("data", "photos"), 10, splits, changes.get("skipped", ())),
            code={"version": "0.1.0", "commit": "0123456789ab"},
            environment={"device": "a processor x 2"},
            wall_seconds=changes.get("wall_seconds", 90.0),
            peak_memory_bytes={"host": 2**31},
            created=changes.get("created", "2026-01-01T00:00:00+00:00"),
            command=("mocobench", "bench"),
        )

    return make


@pytest.fixture(scope="session")
def resnet_state() -> Callable[..., dict[str, torch.Tensor]]:
    """The state dict of a ResNet in which no two BN tensors are alike, as after training; `arch`, `seed`, classes."""

    @cache
    def make(arch: str = "resnet18", seed: int = 0, num_classes: int = 10) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = models.get_model(arch, weights=None, num_classes=num_classes).state_dict()
            for name, tensor in state.items():
                if name.endswith(".num_batches_tracked"):
                    tensor.fill_(100 + seed)
                elif tensor.ndim == 1:
                    tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith((".weight", "_var")) else -0.5))
        return state

    return lambda *args, **kwargs: {name: tensor.clone() for name, tensor in make(*args, **kwargs).items()}


@pytest.fixture(scope="session")
def moco_content(resnet_state: Callable[..., dict[str, torch.Tensor]]) -> Callable[..., dict[str, Any]]:
    """What a MoCo v2 checkpoint in the authors' layout holds: two encoders with MLP heads, a queue of 32 keys."""

    def make(arch: str = "resnet18") -> dict[str, Any]:
        state = {}
        for seed, encoder in enumerate(("encoder_q", "encoder_k")):
            trunk = {name: t for name, t in resnet_state(arch, seed).items() if not name.startswith("fc.")}
            size = 2048 if arch == "resnet50" else 512
            head = {"fc.0.weight": torch.ones(size, size), "fc.0.bias": torch.ones(size)}
            head |= {"fc.2.weight": torch.ones(128, size), "fc.2.bias": torch.ones(128)}
            state |= {f"module.{encoder}.{name}": tensor for name, tensor in (trunk | head).items()}
        state |= {"module.queue": torch.ones(128, 32), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
        optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.03}]}
        return {"epoch": 200, "arch": arch, "state_dict": state, "optimizer": optimizer}

    return make
