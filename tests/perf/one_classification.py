"""One part of classification in one process: what is compared takes turns, and seconds are printed as JSON.

    python -m tests.perf.one_classification features --rounds 5 --device cpu

features  ResNet-50 at 224 pixels in eval mode: the official loop (fp32, contiguous), ours in fp32 and in `auto`
sweep     the linear probe on a batch of the protocol `sweep`: the network on 64 images, one head, and all 32 heads
knn       200 neighbours of 10,000 queries in a bank of 50,000 x 2048, and the bare matrix products of the same blocks
lbfgs     logistic regression on 10,000 x 2048 features of 100 classes, ours and scikit-learn's, at three strengths
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.classification.features import FrozenBackbone, freeze
from benchmarks.classification.heads import LinearHeads, Solver, make_classifier
from benchmarks.classification.logistic import LogisticFit, fit_logistic, objective, principal_axes
from benchmarks.classification.probe import grid
from benchmarks.classification.protocol import LINEAR_PROTOCOLS, LinearProtocol, LogisticProtocol
from mocobench.runtime.device import choose_device, choose_precision
from mocobench.runtime.environment import peak_memory_bytes, reset_peak_memory
from mocobench.runtime.neighbors import BANK_BLOCK, QUERY_BLOCK, half_precision_bank, nearest
from transfer.network import random_backbone

NUM_IMAGES, IMAGE_SIZE, FEATURE_SIZE = 64, 224, 2048
BANK_SIZE, NUM_QUERIES, NUM_NEIGHBORS = 50_000, 10_000, 200
REGRESSION_IMAGES, REGRESSION_CLASSES, STRENGTHS = 10_000, 100, (1e-3, 1e-4, 1e-5)
SAME_OBJECTIVE = 1e-6  # relative
PEER_TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7)


def seconds_in_turns(
    what: dict[str, Callable[[], object]], *, rounds: int, device: torch.device, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each in every round, after one that is not counted if there is to be a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds + warm_up):
        for name, call in what.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    return {name: values[warm_up:] for name, values in seconds.items()}


def measure_features(*, rounds: int, device: torch.device) -> dict[str, Any]:
    """The official loop gets normalised images, ours uint8 ones. `difference` is relative, of fp32."""
    backbone = random_backbone("resnet50", 0)
    auto = choose_precision("auto", device)
    ours = {name: freeze(backbone, device=device, precision=name) for name in dict.fromkeys(("fp32", auto))}
    official = freeze(backbone, device=device, precision="fp32").network.to(memory_format=torch.contiguous_format)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, device=device)
    prepared = backbone.input.prepare(images.float() / 255)

    @torch.no_grad()
    def official_loop() -> torch.Tensor:
        features: torch.Tensor = official(prepared)
        return features

    calls: dict[str, Callable[[], object]] = {"official": official_loop}
    for name, frozen in ours.items():
        calls[name] = lambda frozen=frozen: frozen.features(images)
    expected, found = official_loop(), ours["fp32"].features(images)
    difference = ((found - expected).norm() / expected.norm()).item()
    seconds = seconds_in_turns(calls, rounds=rounds, device=device)
    return {"seconds": seconds, "num_images": NUM_IMAGES, "auto": auto, "difference": difference}


def measure_sweep(*, rounds: int, device: torch.device) -> dict[str, Any]:
    """The network's pass over `num_images` random views, and a step of the heads on a batch of them, for 1000 classes.

    The heads' weights move once a batch, however many images it has, so the batch is the protocol's.
    """
    protocol = LINEAR_PROTOCOLS["sweep"]
    assert isinstance(protocol, LinearProtocol)
    rates, decays = zip(*grid(protocol), strict=True)
    precision = choose_precision("auto", device)
    frozen: FrozenBackbone = freeze(random_backbone("resnet50", 0), device=device, precision=precision)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    passes = protocol.batch_size // NUM_IMAGES
    features, labels = frozen.features(images).repeat(passes, 1), torch.arange(protocol.batch_size, device=device)
    classifier = make_classifier(FEATURE_SIZE, 1000, init_std=protocol.init_std, seed=0)

    def step_of(num_heads: int) -> Callable[[], object]:
        solver = Solver(rates[:num_heads], decays[:num_heads], protocol.momentum, protocol.optimizer)
        heads = LinearHeads(classifier, solver, device=device)
        return lambda: heads.step(features, labels, rate_factor=1.0)

    calls = {"network": lambda: frozen.features(images), "one head": step_of(1), "all heads": step_of(len(rates))}
    seconds = seconds_in_turns(calls, rounds=rounds, device=device)
    sizes = {"num_images": NUM_IMAGES, "batch_size": protocol.batch_size, "num_heads": len(rates)}
    return {"seconds": seconds, **sizes, "precision": precision}


def measure_knn(*, rounds: int, device: torch.device) -> dict[str, Any]:
    """The bank is in half precision, as the task's; the bare products have it in float32 already.

    Peak memory is that of the first search, above what the process had before it made bank and queries.
    """
    reset_peak_memory(device)
    before = peak_memory_bytes(device)["host"]
    generator = torch.Generator().manual_seed(0)
    bank = torch.empty(BANK_SIZE, FEATURE_SIZE, dtype=torch.float16)
    for part in bank.split(BANK_BLOCK):
        part.copy_(half_precision_bank(torch.randn(len(part), FEATURE_SIZE, generator=generator)))
    queries = torch.randn(NUM_QUERIES, FEATURE_SIZE, generator=generator)
    nearest(queries[:QUERY_BLOCK], bank[:QUERY_BLOCK], k=NUM_NEIGHBORS, device=device)

    def search() -> None:
        nearest(queries, bank, k=NUM_NEIGHBORS, device=device)

    search()
    peak = peak_memory_bytes(device)["host"] - before
    whole = bank.float()

    def bare() -> None:
        on_device = queries.to(device)
        for block in whole.split(BANK_BLOCK):
            block_on_device = block.to(device)
            for part in on_device.split(QUERY_BLOCK):
                part @ block_on_device.T

    seconds = seconds_in_turns({"products": bare, "search": search}, rounds=rounds, device=device, warm_up=False)
    return {"seconds": seconds, "bank_bytes": bank.nbytes, "peak_bytes": peak}


def regression_features() -> tuple[torch.Tensor, torch.Tensor]:
    """Non-negative features with a falling spectrum, of mean norm 1, in classes that overlap: (N, C) and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(REGRESSION_IMAGES) % REGRESSION_CLASSES
    scale = torch.arange(1, FEATURE_SIZE + 1).float().pow(-0.75)
    centres = torch.randn(REGRESSION_CLASSES, FEATURE_SIZE, generator=generator)
    latent = (centres[labels] + torch.randn(REGRESSION_IMAGES, FEATURE_SIZE, generator=generator)) * scale
    mixed = latent @ torch.randn(FEATURE_SIZE, FEATURE_SIZE, generator=generator) / scale.norm()
    features = F.relu(mixed - 0.5)
    return features / features.norm(dim=1).mean(), labels


def measure_lbfgs(*, rounds: int, device: torch.device) -> dict[str, Any]:
    """By strength: both objectives, and scikit-learn's largest tolerance, a power of ten, whose objective is the same.

    `axes` are the principal axes, which all strengths share; every fit starts from zero.
    """
    features, labels = regression_features()
    protocol = LINEAR_PROTOCOLS["lbfgs"]
    assert isinstance(protocol, LogisticProtocol)
    on_device, labels_on_device = features.to(device), labels.to(device)
    axes = principal_axes(on_device)

    def fit(l2: float) -> LogisticFit:
        settings = {"num_classes": REGRESSION_CLASSES, "l2": l2, "max_steps": protocol.max_steps}
        return fit_logistic(axes, labels_on_device, tolerance=protocol.tolerance, **settings)

    calls: dict[str, Callable[[], object]] = {"axes": lambda: principal_axes(on_device)}
    strengths = []
    for l2 in STRENGTHS:
        ours = objective(fit(l2), (features, labels), l2=l2)
        tolerance, theirs = _peer_tolerance(features, labels, l2, ours)
        strengths.append({"l2": l2, "objective": ours, "peer_objective": theirs, "peer_tolerance": tolerance})
        calls[f"ours {l2:g}"] = lambda l2=l2: fit(l2)
        calls[f"peer {l2:g}"] = lambda l2=l2, tolerance=tolerance: _peer_fit(features, labels, l2, tolerance)
    seconds = seconds_in_turns(calls, rounds=rounds, device=device, warm_up=False)
    return {"seconds": seconds, "strengths": strengths}


def _peer_fit(features: torch.Tensor, labels: torch.Tensor, l2: float, tolerance: float) -> LogisticFit:
    """scikit-learn's, in float32 as it takes the features."""
    from sklearn.linear_model import LogisticRegression

    peer = LogisticRegression(C=1 / (len(labels) * l2), tol=tolerance, max_iter=10_000)
    peer.fit(features.numpy(), labels.numpy())
    weight, bias = torch.from_numpy(peer.coef_).double(), torch.from_numpy(peer.intercept_).double()
    return LogisticFit(weight, bias, float("nan"), int(peer.n_iter_[0]))


def _peer_tolerance(features: torch.Tensor, labels: torch.Tensor, l2: float, ours: float) -> tuple[float, float]:
    """scikit-learn's loosest tolerance that comes to our objective, and its own; or the tightest one."""
    for tolerance in PEER_TOLERANCES:
        theirs = objective(_peer_fit(features, labels, l2, tolerance), (features, labels), l2=l2)
        if theirs <= ours * (1 + SAME_OBJECTIVE):
            break
    return tolerance, theirs


PARTS = {"features": measure_features, "sweep": measure_sweep, "knn": measure_knn, "lbfgs": measure_lbfgs}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    print(json.dumps(PARTS[args.part](rounds=args.rounds, device=choose_device(args.device))))


if __name__ == "__main__":
    main()
