"""Fixtures shared by the tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
