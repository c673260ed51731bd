"""Classification: features, heads, neighbours and regression, measured, and as sections of docs/performance.md."""

from statistics import median
from typing import Any

from tests.perf.one_classification import (
    BANK_SIZE,
    FEATURE_SIZE,
    IMAGE_SIZE,
    NUM_NEIGHBORS,
    NUM_QUERIES,
    REGRESSION_CLASSES,
    REGRESSION_IMAGES,
    SAME_OBJECTIVE,
)
from tests.perf.turns import take_turns

LEAST_AUTO, LEAST_FP32, MOST_DIFFERENCE = 2.5, 1.4, 1e-4
MOST_SWEEP, MOST_KNN, MOST_KNN_GIB_BEYOND_BANK, LEAST_LBFGS = 1.15, 1.3, 1.0, 2.0


def measure_part(part: str, *, rounds: int, device: str) -> dict[str, Any]:
    """In a process of its own; `seconds` are the medians of the rounds."""
    command = ("tests.perf.one_classification", part, "--rounds", str(rounds), "--device", device)
    (run,) = take_turns({part: command}, rounds=1)[part]
    seconds = {name: median(values) for name, values in run["seconds"].items()}
    print(f"{part}: " + ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()), flush=True)
    return run | {"rounds": rounds, "seconds": seconds}


def _turns(record: dict[str, Any]) -> str:
    return f"Medians of {record['rounds']} rounds, in turns in one process."


def features_section(record: dict[str, Any]) -> str:
    """Frozen features, as a part of docs/performance.md."""
    seconds, auto = record["seconds"], record["auto"]
    times = {name: seconds["official"] / seconds[name] for name in dict.fromkeys(("fp32", auto))}
    in_auto = f"**{times[auto]:.2f}x** in auto, which is {auto} here" if auto != "fp32" else "auto is fp32 here"
    listed = ", ".join(f"{name} {seconds[name]:.2f} s" for name in times)
    return (
        "## Frozen features\n\n"
        f"{record['num_images']} images through a ResNet-50 at {IMAGE_SIZE} pixels: the official loop "
        "(eval, no_grad, fp32,\n"
        f"contiguous) {seconds['official']:.2f} s, ours in {listed}. {_turns(record)}\n\n"
        f"- **{times['fp32']:.2f}x** the official loop's speed in fp32 (bound {LEAST_FP32}x), features apart by a "
        f"relative {record['difference']:.0e} (bound {MOST_DIFFERENCE:.0e})\n"
        f"- {in_auto} (bound {LEAST_AUTO}x)\n"
    )


def sweep_section(record: dict[str, Any]) -> str:
    """Many heads on one pass, as a part of docs/performance.md."""
    seconds = record["seconds"]
    network = seconds["network"] * record["batch_size"] / record["num_images"]
    one, every = (network + seconds[name] for name in ("one head", "all heads"))
    return (
        "## Many heads on one pass\n\n"
        f"The linear probe on a batch of {record['batch_size']} random views, 1000 classes: "
        f"the network {network:.2f} s, then a step of one\n"
        f"head {seconds['one head']:.3f} s or of {record['num_heads']} heads {seconds['all heads']:.3f} s. "
        f"The network\nis measured on {record['num_images']} of them. {_turns(record)}\n\n"
        f"- {record['num_heads']} heads cost **{every / one:.3f}x** a single one (bound {MOST_SWEEP}x), reading images "
        f"not counted; the heads alone {seconds['all heads'] / seconds['one head']:.1f}x\n"
    )


def knn_section(record: dict[str, Any]) -> str:
    """Nearest neighbours, as a part of docs/performance.md."""
    seconds = record["seconds"]
    beyond = (record["peak_bytes"] - record["bank_bytes"]) / 2**30
    return (
        "## Nearest neighbours\n\n"
        f"The {NUM_NEIGHBORS} nearest of {BANK_SIZE} x {FEATURE_SIZE} for {NUM_QUERIES} queries: "
        f"{seconds['search']:.1f} s, the bare matrix products\nof the same blocks {seconds['products']:.1f} s. "
        f"{_turns(record)}\n\n"
        f"- **{seconds['search'] / seconds['products']:.2f}x** the products (bound {MOST_KNN}x)\n"
        f"- memory: the bank and **{beyond:.2f} GiB**, the queries included (bound {MOST_KNN_GIB_BEYOND_BANK:.0f} GiB)"
        "\n"
    )


def lbfgs_section(record: dict[str, Any]) -> str:
    """Logistic regression, as a part of docs/performance.md."""
    seconds = record["seconds"]
    lines = [
        "| l2 | ours, s | scikit-learn, s | its tol | objective | scikit-learn's, relative |",
        "|---|---|---|---|---|---|",
    ]
    ours_total, peer_total = seconds["axes"], 0.0
    for found in record["strengths"]:
        ours, peer = seconds[f"ours {found['l2']:g}"], seconds[f"peer {found['l2']:g}"]
        ours_total, peer_total = ours_total + ours, peer_total + peer
        apart = found["peer_objective"] / found["objective"] - 1
        cells = (f"{found['l2']:g}", f"{ours:.2f}", f"{peer:.2f}", f"{found['peer_tolerance']:g}")
        lines.append("| " + " | ".join((*cells, f"{found['objective']:.6f}", f"{apart:+.0e}")) + " |")
    return (
        "## Logistic regression\n\n"
        f"{REGRESSION_IMAGES} x {FEATURE_SIZE}, {REGRESSION_CLASSES} classes, by strength; ours "
        f"takes the principal axes once, {seconds['axes']:.2f} s.\nscikit-learn's tolerance is the largest power of "
        f"ten whose objective is above ours by at most a relative {SAME_OBJECTIVE:.0e}.\n"
        f"{_turns(record)}\n\n"
        + "\n".join(lines)
        + f"\n\n- **{peer_total / ours_total:.2f}x** scikit-learn's speed over all strengths, the axes counted "
        f"(bound {LEAST_LBFGS}x)\n"
    )
