"""The measurements of `make perf` as a table, and as the page docs/performance.md."""

from typing import Any

BASE = "detectron2-fp32"
MODEL_TITLES = {"c4": "R50-C4", "fpn-2fc": "R50-FPN `fpn-2fc`, masks"}
STEP_TITLES = {"train": "training step", "infer": "inference"}
ENGINE_TITLES = {
    "detectron2-fp32": "Detectron2, fp32",
    "embedded-fp32": "embedded, fp32",
    "embedded-bf16": "embedded, bf16",
}


def table(record: dict[str, Any]) -> str:
    """Markdown: a row for every model, step and engine; the ratio is to Detectron2's time in the same run."""
    lines = ["| model | step | engine | seconds | of Detectron2's | peak memory, GiB |", "|---|---|---|---|---|---|"]
    for row in record["detection"]:
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


def page(record: dict[str, Any]) -> str:
    """docs/performance.md."""
    environment, packages = record["environment"], record["environment"]["packages"]
    parts = [
        "# Performance\n\n"
        "Made by `make perf`; the figures behind it are in [performance.json](performance.json). To compare with\n"
        "Detectron2, run it with a Python that has both: `make perf PERF_PYTHON=/path/to/python`.\n\n"
        f"On {environment['device']}, {environment['threads']} threads, Python {environment['python']}, "
        f"torch {packages['torch']}, torchvision {packages['torchvision']}.\n",
        "## Detection engines\n\n"
        "A training step (forward, backward, SGD) is on 2 images of 192x256 with 64 sampled regions each; inference\n"
        "is on one such image with 100 proposals. Both engines have the same weights, images and objects. "
        f"{record['rounds']} rounds; in\n"
        "each, every engine runs in a process of its own: one step that is not counted, then "
        f"{record['steps']} that are. Seconds are\n"
        "the median of all rounds, memory is the largest peak of resident memory while stepping.\n\n"
        f"{table(record)}\n",
    ]
    voc = record.get("voc_evaluation")
    if voc:
        parts.append(
            "## VOC evaluation\n\n"
            f"{voc['num_images']} images with {voc['detections_per_image']} detections each, ten IoU thresholds, the "
            "11-point metric: Detectron2's evaluator\n"
            f"{voc['detectron2_seconds']:.1f} s, ours {voc['our_seconds']:.2f} s, {voc['times_faster']:.0f} times "
            f"faster. The largest difference between the scores is {voc['largest_difference']:.1g} points.\n"
        )
    return "\n".join(parts)
