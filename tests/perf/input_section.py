"""The measurements of the input pipeline as a section of docs/performance.md."""

from typing import Any

STEPS = ("read", "decode", "crop", "views", "workers", "total")
TITLES = {"official": "official, PIL", "batch views": "mocobench, batch views"}


def input_section(record: dict[str, Any]) -> str:
    """Milliseconds of one core per image, by pipeline and step."""
    lines = ["| pipeline | " + " | ".join(STEPS) + " | images/s per core |", "|---" * (len(STEPS) + 2) + "|"]
    for name, milliseconds in record["milliseconds"].items():
        speed = record["images_per_second_per_core"][name]["total"]
        cells = (TITLES[name], *(f"{milliseconds[step]:.2f}" for step in STEPS), f"{speed:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    ours = record["milliseconds"]["batch views"]
    return (
        "## Input pipeline\n\n"
        f"From a {record['image']} to two MoCo v2 views ({record['view']}): milliseconds of one core per image. The\n"
        "official pipeline is torchvision's transforms on PIL images, as the authors' code composes them. In ours the\n"
        "workers read, decode and crop (`workers`), and the rest of a view is done on the batch, by a GPU where there\n"
        f"is one; here all of it is on one core. The median of {record['rounds']} rounds over {record['num_images']} "
        "images.\n\n" + "\n".join(lines) + "\n\n"
        f"Workers' share: {ours['workers']:.2f} ms. With no GPU, {record['times_faster']:.2f} times the official "
        "pipeline's speed per core.\n"
    )
