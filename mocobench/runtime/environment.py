"""What a run ran on: versions, device, threads, the code's own revision, and the memory it took."""

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import mocobench
from mocobench.runtime.distributed import world_size

STAMPED_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "simplejpeg", "pycocotools")


def environment_stamp(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, as plain values for a record."""
    versions = {name: metadata.version(name) for name in STAMPED_PACKAGES}
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
    }


def cpu_name() -> str:
    """The processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} x {os.cpu_count()}"


def code_version() -> dict[str, str]:
    """The package's version and, in a git checkout, the commit (`+changes` when files differ from it)."""
    root = Path(mocobench.__file__).resolve().parents[1]
    version = {"version": mocobench.__version__}
    if not (root / ".git").exists():
        return version
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return version
    return {**version, "commit": commit + ("+changes" if changed else "")}


def _git(root: Path, *arguments: str) -> str:
    # Without locks: a look at the checkout leaves its index alone, also where the disk is full.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def reset_peak_memory(device: torch.device) -> None:
    """Start counting this process's peak memory anew (Linux and CUDA; elsewhere the count is the whole process's)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """Peak resident memory of this process, without data-loading workers, and of the CUDA device if one is used."""
    peak = {"host": _peak_resident_bytes()}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def _peak_resident_bytes() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
