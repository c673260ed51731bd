"""`mocobench inspect` and `convert` on a ResNet-50: seconds after torch is imported, and peak memory beyond it."""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torchvision import models

MOST_INSPECT_SECONDS, MOST_CONVERT_SECONDS, MOST_TIMES_WEIGHTS = 1.0, 5.0, 3.0
# Runs a command line, or imports only, and prints its seconds and the peak that the kernel has seen of this process
# alone: what wait4 says of a process includes its parent's.
PROGRAM = """
import re, sys, time
import torch, torchvision
started = time.perf_counter()
from mocobench.cli import main
if sys.argv[1:] and main(sys.argv[1:]):
    sys.exit(1)
print(time.perf_counter() - started, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def measure_transfer(*, rounds: int = 3) -> dict[str, Any]:
    """Median seconds, and the least peak, since noise only adds to it, over processes that take turns.

    A MoCo checkpoint has two encoders and an optimizer's state.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _write_checkpoints(Path(folder))
        commands: dict[str, list[str]] = {"import": []}
        for name, path in files.items():
            commands[f"inspect {name}"] = ["inspect", str(path)]
            target = str(Path(folder) / "out.pkl")
            commands[f"convert {name}"] = ["convert", str(path), target, "--to", "detectron2"]
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                runs[name].append(_run(command))
    weights = sum(tensor.nbytes for tensor in _trunk("resnet50").values())
    seconds = {name: median(run[0] for run in of_command) for name, of_command in runs.items()}
    peaks = {name: min(run[1] for run in of_command) for name, of_command in runs.items()}
    return {
        "rounds": rounds,
        "weights_bytes": weights,
        "commands": {
            name: {
                "seconds": seconds[name],
                "peak_bytes_beyond_import": peaks[name] - peaks["import"],
            }
            for name in commands
            if name != "import"
        },
    }


def transfer_section(record: dict[str, Any]) -> str:
    """The part of docs/performance.md about conversion."""
    lines = ["| command | seconds | peak memory, times the weights |", "|---|---|---|"]
    lines += [
        f"| `{name.split()[0]}`, {name.split(' ', 1)[1]} | {found['seconds']:.1f} "
        f"| {found['peak_bytes_beyond_import'] / record['weights_bytes']:.1f} |"
        for name, found in record["commands"].items()
    ]
    return (
        "## Inspect and convert\n\n"
        "A ResNet-50, to Detectron2's format with the proof; each command in a process of its own, once torch and\n"
        f"torchvision are imported (medians of {record['rounds']}; least peaks). The bounds are "
        f"{MOST_INSPECT_SECONDS:.0f} s, {MOST_CONVERT_SECONDS:.0f} s and {MOST_TIMES_WEIGHTS:.0f} times the weights,\n"
        "which are {:.0f} MB.\n\n".format(record["weights_bytes"] / 1e6)
        + "\n".join(lines)
        + "\n"
    )


def _trunk(arch: str) -> dict[str, torch.Tensor]:
    state = models.get_model(arch, weights=None).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def _write_checkpoints(folder: Path) -> dict[str, Path]:
    trunk = _trunk("resnet50")
    state = {f"module.encoder_{which}.{name}": t.clone() for which in "qk" for name, t in trunk.items()}
    state |= {"module.queue": torch.zeros(128, 65536), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    momenta = {number: {"momentum_buffer": t.clone()} for number, t in enumerate(trunk.values())}
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {"state": momenta}}
    contents: dict[str, Any] = {"bare weights": trunk, "MoCo checkpoint": content}
    paths = {name: folder / f"{number}.pth" for number, name in enumerate(contents)}
    for name, path in paths.items():
        torch.save(contents[name], path)
    return paths


def _run(command: list[str]) -> tuple[float, int]:
    """Seconds, and the largest resident memory in bytes."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *command], check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), 1024 * int(peak)


if __name__ == "__main__":
    print(transfer_section(measure_transfer()))
