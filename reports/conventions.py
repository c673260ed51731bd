"""Input conventions and stride of the weights behind published rows, by the recipe they were trained with."""

from dataclasses import dataclass

from benchmarks.result import InputRecord
from reports.published import Published

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Convention:
    """What weights were trained with. `mean` and `std` are for values from 0 to 1, in the order of the channels."""

    mean: Channels
    std: Channels
    channel_order: str = "RGB"
    stride_in_1x1: bool = False


IMAGENET = Convention((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIMCLR = Convention((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # values as they are
# MSRA's R-50, the supervised baseline of the papers' detection: mean 103.53, 116.28, 123.675 and std 1 of 255.
MSRA = Convention((0.406, 0.456, 0.485), (1 / 255, 1 / 255, 1 / 255), channel_order="BGR", stride_in_1x1=True)

# How the names of recipe and task begin and end, and the conventions expected there; the first that fits counts.
# PROTOCOLS section 3 names MSRA's weights for supervised detection, and calls the convention the weights' side, not
# the benchmark's: torchvision's supervised weights with their own are no fault.
EXPECTED: tuple[tuple[str, str, tuple[Convention, ...]], ...] = (
    ("simclr", "", (SIMCLR,)),
    ("supervised", "-detection", (MSRA, IMAGENET)),
    ("", "", (IMAGENET,)),
)
ROUNDING = 1e-4


def expected_convention(given: InputRecord, twin: Published) -> Convention:
    """Of the conventions that a published row's weights may have, the one that a record's input is nearest to."""
    conventions = next(
        found for begin, end, found in EXPECTED if twin.recipe.startswith(begin) and twin.task.endswith(end)
    )
    return min(conventions, key=lambda one: len(departures(given, one)))


def departures(given: InputRecord, expected: Convention) -> list[str]:
    """In words, where a record's input differs from a convention, whatever the range of values; not its stride."""
    scale = given.get("max_value") or 1.0
    kinds = (("mean", given.get("mean"), expected.mean), ("std", given.get("std"), expected.std))
    order = given.get("channel_order", "RGB")
    wrong = [f"channel order {order}"] if order != expected.channel_order else []
    return wrong + [
        f"{name} {found}{'' if scale == 1.0 else f' of {scale}'}"
        for name, found, values in kinds
        if found is not None and any(abs(a / scale - b) > ROUNDING for a, b in zip(found, values, strict=False))
    ]
