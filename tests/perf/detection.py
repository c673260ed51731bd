"""The detection engines side by side: measured, and as a section of docs/performance.md."""

from typing import Any

from tests.perf.one_engine import ENGINES, MODELS
from tests.perf.turns import median_of, peak_of, take_turns

STEPS = ("train", "infer")
BASE = "detectron2-fp32"
MODEL_TITLES = {"c4": "R50-C4", "fpn-2fc": "R50-FPN `fpn-2fc`, masks"}
STEP_TITLES = {"train": "training step", "infer": "inference"}
ENGINE_TITLES = {
    "detectron2-fp32": "Detectron2, fp32",
    "embedded-fp32": "embedded, fp32",
    "embedded-bf16": "embedded, bf16",
}


def measure_engines(*, with_detectron2: bool, rounds: int, steps: int, device: str) -> list[dict[str, Any]]:
    """Median seconds and largest peak memory for every model, step and engine."""
    engines = [engine for engine in ENGINES if with_detectron2 or not engine.startswith("detectron2")]
    options = ("--rounds", str(steps), "--device", device)
    rows = []
    for model in MODELS:
        for what in STEPS:
            commands = {engine: ("tests.perf.one_engine", engine, model, what, *options) for engine in engines}
            measured = {
                engine: {"seconds": median_of(runs, "seconds"), "peak_memory_bytes": peak_of(runs)}
                for engine, runs in take_turns(commands, rounds=rounds).items()
            }
            print(f"{model} {what}: " + ", ".join(f"{e} {m['seconds']:.3f} s" for e, m in measured.items()), flush=True)
            rows.append({"model": model, "step": what, "engines": measured})
    return rows


def detection_section(record: dict[str, Any]) -> str:
    """The section on the engines, and that on the VOC evaluation where it was timed."""
    text = (
        "## Detection engines\n\n"
        "A training step (forward, backward, SGD) is on 2 images of 192x256 with 64 sampled regions each; inference\n"
        "is on one such image with 100 proposals. Both engines have the same weights, images and objects. "
        f"{record['rounds']} rounds; in\n"
        "each, every engine runs in a process of its own: one step that is not counted, then "
        f"{record['steps']} that are. Seconds are\n"
        "the median of all rounds, memory is the largest peak of resident memory while stepping.\n\n"
        f"{_table(record)}\n"
    )
    voc = record.get("voc_evaluation")
    if voc:
        text += (
            "\n## VOC evaluation\n\n"
            f"{voc['num_images']} images with {voc['detections_per_image']} detections each, ten IoU thresholds, the "
            "11-point metric: Detectron2's evaluator\n"
            f"{voc['detectron2_seconds']:.1f} s, ours {voc['our_seconds']:.2f} s, {voc['times_faster']:.0f} times "
            f"faster. The largest difference between the scores is {voc['largest_difference']:.1g} points.\n"
        )
    return text


def _table(record: dict[str, Any]) -> str:
    """A row for every model, step and engine; the ratio is to Detectron2's time in the same run."""
    lines = ["| model | step | engine | seconds | of Detectron2's | peak memory, GiB |", "|---|---|---|---|---|---|"]
    for row in record["engines"]:
        base = row["engines"].get(BASE)
        for engine, measured in row["engines"].items():
            ratio = f"{measured['seconds'] / base['seconds']:.2f}x" if base and engine != BASE else ""
            cells = (
                MODEL_TITLES[row["model"]],
                STEP_TITLES[row["step"]],
                ENGINE_TITLES[engine],
                f"{measured['seconds']:.3f}",
                ratio,
                f"{measured['peak_memory_bytes'] / 2**30:.2f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
