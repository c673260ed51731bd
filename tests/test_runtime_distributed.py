"""Ranks that work together, in two real processes over gloo, and the same functions in a single one."""

import pytest
import torch
from processes import in_processes
from torch import distributed, nn

from benchmarks.detection.embedded.precise_bn import set_precise_statistics
from mocobench.runtime.distributed import (
    barrier,
    copy_from_main,
    gather_objects,
    is_main,
    process_group,
    rank,
    sum_gradients,
    sum_over_ranks,
    world_size,
)
from mocobench.runtime.errors import UserError
from mocobench.runtime.memory import out_of_memory_means


def work_together() -> dict[str, object]:
    """What a rank sees: each has the number 1 + rank."""
    own = 1.0 + rank()
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, own)
    (layer(torch.tensor([[1.0, 2.0]])) * own).sum().backward()
    sum_gradients(layer.parameters())
    copy_from_main([layer.weight.data])
    barrier()
    return {
        "rank": (rank(), world_size(), is_main()),
        "sum": sum_over_ranks(torch.tensor(own)).item(),
        "gathered": gather_objects({"rank": rank()}),
        "gradient": layer.weight.grad.tolist(),
        "weight": layer.weight.tolist(),
    }


def test_one_process_is_rank_0_of_1() -> None:
    with process_group(torch.device("cpu")):
        assert not distributed.is_initialized()
        assert work_together() == {
            "rank": (0, 1, True),
            "sum": 1.0,
            "gathered": [{"rank": 0}],
            "gradient": [[1.0, 2.0]],
            "weight": [[1.0, 1.0]],
        }


def test_two_processes_by_hand() -> None:
    first, second = in_processes(2, work_together)
    # Gradients (1, 2) and 2 * (1, 2); weights of rank 0.
    shared = {"sum": 3.0, "gathered": [{"rank": 0}, {"rank": 1}], "gradient": [[3.0, 6.0]], "weight": [[1.0, 1.0]]}
    assert first == (0, {"rank": (0, 2, True), **shared})
    assert second == (0, {"rank": (1, 2, False), **shared})


def fail_on_rank_1() -> None:
    if rank() == 1:
        raise UserError("expected better, found this")
    barrier()


def test_the_process_that_fails_says_why_and_the_other_leaves_in_silence() -> None:
    (code, silent), (_, said) = in_processes(2, fail_on_rank_1)
    assert said == "UserError: expected better, found this"
    assert (code, silent) == (1, None)


# PreciseBN


def batches_of(part: int) -> list[torch.Tensor]:
    """Three batches of unequal sizes and means, different for each rank."""
    generator = torch.Generator().manual_seed(part)
    return [torch.randn(2 + part + i, 3, 2, 2, generator=generator) * (1 + part) + i for i in range(3)]


def precise_statistics(batches: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    norm = nn.BatchNorm2d(3)
    set_precise_statistics(norm, [lambda b=b: norm(b) for b in batches])
    assert norm.momentum == 0.1
    return norm.running_mean, norm.running_var


def precise_statistics_of_this_rank() -> list[list[float]]:
    return [values.tolist() for values in precise_statistics(batches_of(rank()))]


def test_precise_statistics_are_the_same_on_every_rank_and_those_of_all_batches() -> None:
    (_, first), (_, second) = in_processes(2, precise_statistics_of_this_rank)
    assert first == second
    values = torch.cat([batch.transpose(0, 1).flatten(1) for part in (0, 1) for batch in batches_of(part)], dim=1)
    torch.testing.assert_close(torch.tensor(first[0]), values.mean(dim=1))
    torch.testing.assert_close(torch.tensor(first[1]), values.var(dim=1, unbiased=False))
    alone = precise_statistics([*batches_of(0), *batches_of(1)])
    torch.testing.assert_close(torch.tensor(first), torch.stack(alone))


@pytest.mark.detectron2
def test_precise_statistics_equal_those_of_fvcore() -> None:
    precise_bn = pytest.importorskip("fvcore.nn.precise_bn", reason="fvcore, which Detectron2 uses, is not installed")
    norm = nn.BatchNorm2d(3)
    batches = [*batches_of(0), *batches_of(1)]
    precise_bn.update_bn_stats(norm, batches, len(batches))
    mean, variance = precise_statistics(batches)
    assert torch.equal(mean, norm.running_mean)
    assert torch.equal(variance, norm.running_var)


def fail_in_nccl(said: str) -> None:
    if is_main():
        raise distributed.DistBackendError(f"NCCL error in ProcessGroupNCCL.cpp:1, unhandled\n{said}")
    barrier()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "ncclSystemError\nLast error:\nError while creating /dev/shm/nccl-x, error: No space left on device (28)",
            "expected gloo to connect all of them, found Error while creating /dev/shm/nccl-x, error: No space left on",
        ),
        ("ncclRemoteError: a remote process exited", "expected all of them to stay until the end, found that another"),
    ],
)
def test_what_nccl_says_is_told(said: str, told: str) -> None:
    (_, first), _ = in_processes(2, fail_in_nccl, said)
    assert first.startswith(f"UserError: process 1 of 2: {told}")


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
        RuntimeError("CUDA error: out of memory\nSearch for it"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "driver", "cublas", "python"],
)
def test_out_of_memory_says_what_to_do(error: Exception) -> None:
    message = r"^a step: expected enough memory, found [^\n]+; lower --batch-size$"
    with pytest.raises(UserError, match=message), out_of_memory_means("a step", remedy="lower --batch-size"):
        raise error


def test_the_cpu_allocators_own_error_is_known() -> None:
    with pytest.raises(UserError, match="expected enough memory"), out_of_memory_means("a step", remedy="lower it"):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), out_of_memory_means("a step", remedy="lower it"):
        raise RuntimeError("shapes differ")
