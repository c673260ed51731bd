"""MoCo v2's step beside Lightly's, and our step beside its bare encoders: measured, and as a section of the page."""

from importlib import metadata, util
from statistics import median
from typing import Any

import torch

from mocobench.runtime.device import choose_precision
from tests.perf.one_pretraining import BATCH_SIZE, IMPLEMENTATIONS, RECIPE
from tests.perf.turns import median_of, peak_of, take_turns

BASE = "lightly-fp32"
LEAST_FP32, LEAST_AUTO = 1.6, 3.5
CONVOLUTIONS = "The last row is a step with nothing in it but the convolutions of both encoders.\n"


def measure_steps(*, rounds: int, steps: int, device: str) -> dict[str, Any]:
    """Median seconds, largest peak memory and, for ours, overhead over the bare encoders, by implementation."""
    lightly = metadata.version("lightly") if util.find_spec("lightly") else None
    auto = choose_precision("auto", torch.device(device))
    names = [name for name in IMPLEMENTATIONS if lightly or not name.startswith("lightly-")]
    if auto == "fp32":
        names.remove("mocobench-auto")  # the same computation
    options = ("--steps", str(steps), "--device", device)
    commands = {name: ("tests.perf.one_pretraining", name, *options) for name in names}
    measured = {}
    for name, runs in take_turns(commands, rounds=rounds).items():
        seconds = median_of(runs, "seconds")
        measured[name] = {
            "seconds": seconds,
            "images_per_second": BATCH_SIZE / seconds,
            "peak_memory_bytes": peak_of(runs),
        }
        if name.startswith("mocobench-"):
            pairs = [pair for run in runs for pair in zip(run["seconds"], run["bare_seconds"], strict=True)]
            measured[name]["overhead"] = median(full / bare for full, bare in pairs) - 1
        print(f"pretraining step: {name} {seconds:.3f} s", flush=True)
    return {
        "rounds": rounds,
        "steps": steps,
        "lightly": lightly,
        "auto": auto,
        "arch": RECIPE.arch,
        "image_size": RECIPE.image_size,
        "batch_size": BATCH_SIZE,
        "queue_size": RECIPE.queue_size,
        "implementations": measured,
    }


def pretraining_section(record: dict[str, Any]) -> str:
    """The section on the step."""
    titles = {
        BASE: f"Lightly {record['lightly']}, fp32",
        "lightly-kept": f"Lightly {record['lightly']}, fp32, freed memory kept",
        "mocobench-fp32": "mocobench, fp32" if record["auto"] != "fp32" else "mocobench, fp32, which auto is here",
        "mocobench-auto": f"mocobench, auto ({record['auto']})",
        "convolutions-fp32": "the convolutions alone, PyTorch, fp32",
    }
    implementations = record["implementations"]
    base = implementations.get(BASE)
    lines = [
        "| step | seconds | images/s | Lightly's speed | overhead | peak memory, GiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in implementations.items():
        ratio = f"{base['seconds'] / measured['seconds']:.2f}x" if base and name != BASE else ""
        overhead = f"{100 * measured['overhead']:.1f} %" if "overhead" in measured else ""
        speed, memory = f"{measured['images_per_second']:.2f}", f"{measured['peak_memory_bytes'] / 2**30:.2f}"
        lines.append(f"| {titles[name]} | {measured['seconds']:.3f} | {speed} | {ratio} | {overhead} | {memory} |")
    return (
        "## Pretraining step\n\n"
        f"One full step of MoCo v2, {record['arch']} at {record['image_size']} pixels, batch {record['batch_size']}, "
        f"a queue of {record['queue_size']} keys, one BN group: both\n"
        "encoders, momentum update, logits, loss, backward, SGD and queue. Ours starts from uint8 views, Lightly's\n"
        "from normalised ones; its step is that of its own MoCo v2 on ImageNet, written with its loss, head and\n"
        "helpers. On a CPU our training keeps the memory that a step frees for the next one; Lightly's step is\n"
        f"measured as it comes, and with that too. {record['rounds']} rounds; in each, every implementation runs in a\n"
        f"process of its own: one step that is not counted, then {record['steps']} that are. Seconds are the median of "
        "all\n"
        f"rounds. Wanted of Lightly's speed: {LEAST_FP32}x in fp32, {LEAST_AUTO}x in auto where that is bf16.\n"
        + (CONVOLUTIONS if "convolutions-fp32" in implementations else "")
        + "\n"
        "The overhead is what the step takes beyond both encoders' forward, the query encoder's backward and SGD,\n"
        "which take turns with it in the same process: normalising the views, shuffling, momentum update, logits,\n"
        "loss, queue and metrics. It is the median over pairs of steps that follow each other (bound 5 %).\n\n"
        + "\n".join(lines)
        + "\n"
    )
