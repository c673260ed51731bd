"""Which device and which precision a run uses: asked for by name, never fallen back from in silence."""

import os
import shutil
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec

import torch

from mocobench.runtime.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA when there is a CUDA device, else the CPU; any other name must exist.

    On CUDA, fp32 is from then on what it says, not TF32, and convolutions compute the same bits each time.

    Raises:
        UserError: `cuda` was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: expected a CUDA device, found none; use --device cpu")
    if name == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return torch.device(name)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, so that bf16 is faster and not slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check)() for check in checks if hasattr(torch.cpu, check))


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is `bf16` where the hardware has it, else `fp32`.

    Raises:
        UserError: `bf16` was asked for on a device without it.
    """
    if name == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if name == "bf16" and not has_native_bf16(device):
        raise UserError(f"--precision bf16: expected bfloat16 hardware, found none on {device}; use --precision fp32")
    return name


def check_compiler(device: torch.device) -> None:
    """See that `torch.compile` has what it makes code with: Triton for a CUDA device, a C++ compiler for the CPU.

    Raises:
        UserError: it has not.
    """
    if device.type == "cuda":
        is_there, needed, remedy = find_spec("triton") is not None, "Triton", "install it"
    else:
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # PyTorch's own choice
        is_there, needed, remedy = shutil.which(compiler) is not None, f"the C++ compiler {compiler}", "install it"
    if not is_there:
        raise UserError(f"--compile: expected {needed}, found none; {remedy}, or leave --compile out")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Matrix products and convolutions in bfloat16 when `precision` is `bf16`; otherwise nothing changes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
