"""Memory that is freed is kept: the next large tensor costs no page faults."""

import platform
import subprocess
import sys

import pytest

BYTES_OF_FAULTS = """
import resource
import torch
from mocobench.runtime.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

{call}
torch.zeros(2 ** 25)
before = faults()
torch.zeros(2 ** 25 - 1024)
print((faults() - before) * resource.getpagesize())
"""


def faulted_bytes(call: str) -> int:
    code = BYTES_OF_FAULTS.format(call=call)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_there_for_the_next_tensor() -> None:
    size = 4 * 2**25
    assert faulted_bytes("keep_freed_memory()") < size / 100
