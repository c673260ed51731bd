"""The plan for fewer devices: a smaller batch, and rate and schedule scaled with it (the linear rule).

A batch of 16 / K takes a learning rate K times smaller and K times the iterations, so that as many images are seen.
It is not the same run: the gradients are noisier and BatchNorm sees fewer images. So the protocol becomes custom.
"""

from dataclasses import replace

from benchmarks.detection.protocol import DetectionProtocol
from mocobench.runtime.errors import UserError


def plan_for_fewer_devices(protocol: DetectionProtocol, factor: int) -> DetectionProtocol:
    """The protocol with its batch divided by `factor`, its learning rate too, and its schedule as many times longer.

    Raises:
        UserError: the batch does not divide by the factor.
    """
    if factor < 1 or protocol.batch_size % factor:
        raise UserError(
            f"--fewer-devices {factor}: expected a divisor of the batch size, found {factor} for {protocol.batch_size}"
        )
    return replace(
        protocol,
        batch_size=protocol.batch_size // factor,
        learning_rate=protocol.learning_rate / factor,
        iterations=protocol.iterations * factor,
        decay_iterations=tuple(factor * iteration for iteration in protocol.decay_iterations),
        warmup_iterations=protocol.warmup_iterations * factor,
    )


def describe_scaling(factor: int) -> str:
    """The plan in words, for the start of a run and for its record."""
    return (
        f"{factor} times fewer devices: batch and learning rate divided by {factor}, "
        f"iterations, decays and warm-up times {factor} (linear scaling)"
    )
