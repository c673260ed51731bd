"""CUDA graphs: what a GPU does in a call of a function, recorded once and replayed."""

from collections.abc import Callable

import torch

CALLS_BEFORE = 3  # calls that are run as they are, in which libraries prepare themselves and memory is found


class Replayed:
    """A function of CUDA tensors that is replayed from a recording from its fourth call on.

    A network of small layers on a GPU waits for Python, which starts its thousands of kernels one by one; a replay
    starts them all at once. What a call computes does not change.

    The function always gets tensors of the same shapes and types. It never waits for the GPU, and what else it reads
    and writes stays in its place. What it returns is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self._function, self._num_calls = function, 0
        self._graph = torch.cuda.CUDAGraph()
        self._arguments: tuple[torch.Tensor, ...] = ()
        self._result = torch.empty(0)

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        self._num_calls += 1
        if self._num_calls <= CALLS_BEFORE:
            return self._function(*arguments)
        if self._num_calls == CALLS_BEFORE + 1:
            self._arguments = tuple(argument.clone() for argument in arguments)
            # Other threads may use the GPU meanwhile, as those do that pin batches. Recording computes nothing yet.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = self._function(*self._arguments)
        for place, argument in zip(self._arguments, arguments, strict=True):
            place.copy_(argument, non_blocking=True)
        self._graph.replay()
        return self._result
