"""Module-level functions of tests, called in processes of their own, as torchrun would start them.

The forkserver has imported PyTorch once; each process starts from there, so a test can afford several.
"""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import torch

from mocobench.runtime.distributed import process_group

PRELOAD = ["benchmarks.detection.embedded_engine", "benchmarks.classification.semi", "pretrain.train"]


def in_processes(count: int, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> list[tuple[int, Any]]:
    """Call a module-level function in `count` processes as torchrun would start them.

    Returns:
        For each rank its exit code and what the function returned, or the text of its error, or None when it died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    # As torchrun does it, the store by which the processes find each other outlives each of them.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = []
    for rank in range(count):
        there, here = context.Pipe()
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        process = context.Process(target=_call, args=(there, environment, function, arguments, keywords))
        process.start()
        there.close()
        started.append((process, here))
    answers = []
    for process, here in started:
        # Not until the pipe is closed: workers of a killed process keep it open for seconds.
        wait([here, process.sentinel])
        try:
            answer = here.recv() if here.poll() else None
        except EOFError:
            answer = None
        process.join()
        answers.append((process.exitcode, answer))
    return answers


def _call(
    there: Any, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Any
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    # Loader workers as a command has them: from a forkserver of its own they would outlive a process that is killed.
    multiprocessing.set_start_method("fork", force=True)
    try:
        with process_group(torch.device("cpu")):
            there.send(function(*arguments, **keywords))
    except Exception as error:
        there.send(f"{type(error).__name__}: {error}")
