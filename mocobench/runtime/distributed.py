"""One run in several processes: torchrun's process group, and the few things that its ranks do together.

Everything here works in a single process too, where there is no group: rank 0 of 1.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from mocobench.runtime.errors import UserError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, for the body: gloo for CPU tensors, NCCL for CUDA tensors.

    On CUDA each process gets the device of its local rank as the current one. The process that fails first raises
    its error; the others, which fail with it or because of it, exit in silence.

    Raises:
        UserError: there are more processes on this machine than CUDA devices, or another process died without a word.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        _take_cuda_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(rendezvous("env://"))
    # A group that torchrun starts again may find its first attempt's addresses in the store.
    store = dist.PrefixStore(f"attempt {_attempt()}", store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield
    except Exception as error:
        if not _is_first_failure(store):
            raise SystemExit(1) from error
        if _says_that_a_process_is_gone(error):
            raise UserError(
                f"process {rank + 1} of {size}: expected all of them to stay until the end, found that another one "
                "died without an error of its own (killed, or out of memory?); start the same command again to go "
                "on from the last checkpoint"
            ) from error
        if isinstance(error, dist.DistBackendError):
            raise UserError(
                f"process {rank + 1} of {size}: expected {backend} to connect all of them, found "
                f"{_last_line(error)}; NCCL_DEBUG=INFO in the environment says more"
            ) from error
        raise
    # Not after an error: the others may be in the middle of a collective operation.
    dist.destroy_process_group()


def _is_first_failure(store: Any) -> bool:
    try:
        return bool(store.add("failures", 1) == 1)
    except RuntimeError:  # the process that kept the store is the one that died
        return True


def _says_that_a_process_is_gone(error: Exception) -> bool:
    if isinstance(error, RuntimeError) and "gloo" in str(error):
        return True
    if isinstance(error, dist.DistBackendError):  # what NCCL finds wrong may be on this machine, such as no memory
        return "ncclRemoteError" in str(error)
    return isinstance(error, dist.DistError)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")


def _take_cuda_device(local_rank: int) -> None:
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise UserError(
            f"torchrun: expected a CUDA device for each process of this machine, found {found} and process "
            f"{local_rank + 1}; use --nproc-per-node {found}"
        )
    torch.cuda.set_device(local_rank)


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is rank 0, which alone prints and writes files."""
    return rank() == 0


def is_restarted() -> bool:
    """Whether torchrun started these processes again, after one of them had failed (--max-restarts)."""
    return _attempt() != "0"


def _attempt() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Replace the tensor's values by their sum over all ranks, the same on each of them; returns the tensor."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradient of every parameter by its sum over all ranks, in one operation."""
    gradients = []
    for parameter in parameters:
        assert parameter.grad is not None, "every parameter takes part in every loss"
        gradients.append(parameter.grad)
    _sum_together(gradients)


def average_over_ranks(tensors: list[torch.Tensor]) -> None:
    """Replace the tensors' values by their mean over all ranks, in one operation."""
    _sum_together(tensors)
    if world_size() > 1:
        for tensor in tensors:
            tensor.div_(world_size())


def _sum_together(tensors: list[torch.Tensor]) -> None:
    if world_size() == 1:
        return
    together = sum_over_ranks(torch.cat([tensor.flatten() for tensor in tensors]))
    for tensor, part in zip(tensors, together.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def gather_tensors(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors (n, ...) of all ranks one after the other (ranks * n, ...), on every rank and without gradient."""
    if world_size() == 1:
        return tensor.detach()
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def part_sizes(total: int) -> list[int]:
    """How many of `total` things each rank has, as `torch.tensor_split` divides them."""
    size, rest = divmod(total, world_size())
    return [size + (one < rest) for one in range(world_size())]


def gather_parts(part: torch.Tensor, total: int) -> torch.Tensor:
    """The parts (n, ...) of all ranks, of `part_sizes(total)`, one after the other (total, ...), on every rank."""
    sizes = part_sizes(total)
    assert len(part) == sizes[rank()], (len(part), sizes)
    padded = part.new_zeros(max(sizes), *part.shape[1:])
    padded[: len(part)] = part
    shares = gather_tensors(padded).split(max(sizes))
    return torch.cat([share[:size] for share, size in zip(shares, sizes, strict=True)])


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """As `gather_tensors`; a rank's own tensor gets the gradients of what all ranks have computed from it, summed."""
    gathered: torch.Tensor = _GatherWithGradient.apply(tensor) if world_size() > 1 else tensor
    return gathered


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        del context
        return gather_tensors(tensor)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        del context
        return own_part(sum_over_ranks(gradient.contiguous().clone()))


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part (n, ...) of a tensor (ranks * n, ...): what `gather_tensors` puts together, taken apart."""
    size = len(tensor) // world_size()
    return tensor[rank() * size : (rank() + 1) * size]


def copy_from_main(tensors: list[torch.Tensor]) -> None:
    """Replace the tensors' values by those of rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def gather_objects(value: Any) -> list[Any]:
    """The values of all ranks in their order, on every rank; anything that pickle carries."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values
