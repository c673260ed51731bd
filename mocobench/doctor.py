"""What this machine can do, what is missing, and what each missing thing costs the user."""

import json
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from mocobench import __version__
from mocobench.runtime.detectron2 import INSTALLATION, why_no_detectron2
from mocobench.runtime.workers import MORE_SHARED_MEMORY, SHARED_MEMORY

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "matplotlib",
    "msgspec",
    "pandas",
    "tabulate",
    "pycocotools",
    "safetensors",
    "scikit-learn",
    "scipy",
    "simplejpeg",
    "tensorboard",
    "tqdm",
    "webdataset",
)
# What importing an ill package raises: a part is missing, a library does not load, operators are another release's.
ILLNESSES = (ImportError, OSError, RuntimeError)
# A MoCo v2 ResNet-50 checkpoint holds two encoders, the queue and SGD's momentum: about 0.4 GB, two at a time.
CHECKPOINTS_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what was looked at, whether it is fine, what was found, and what it costs if not."""

    topic: str
    is_fine: bool
    found: str
    cost: str = ""


def examine() -> list[Finding]:
    """Look at versions, devices, precision, engines and disk. Changes nothing."""
    return [
        Finding("mocobench", True, f"{__version__}, Python {platform.python_version()}"),
        *(_package(name) for name in PACKAGES),
        *_torch(),
        _embedded(),
        _detectron2(),
        _disk(Path.cwd()),
        _shared_memory(SHARED_MEMORY),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"mocobench needs it: pip install {name}")


def _torch() -> list[Finding]:
    """The processor, devices and precisions, which are looked at through torch."""
    try:
        import torch

        from mocobench.runtime.environment import cpu_name
    except ILLNESSES as error:
        return [
            Finding("torch loads", False, _in_one_line(error), "nothing but this examination runs; install it anew")
        ]
    processor = Finding("processor", True, f"{cpu_name()}, torch uses {torch.get_num_threads()} threads")
    return [processor, _cuda(), *_precisions()]


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _cuda() -> Finding:
    import torch

    if not torch.cuda.is_available():
        cost = "every stage runs on the processor; the paper's schedules would take months, use the smoke protocols"
        return Finding("cuda", False, "no CUDA device", cost)
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = ", ".join(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in devices)
    return Finding("cuda", True, f"{names}; each process uses one")


def _precisions() -> list[Finding]:
    import torch

    from mocobench.runtime.device import has_native_bf16

    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    return [
        Finding(f"bf16 on {device.type}", True, "in hardware; --precision auto takes it")
        if has_native_bf16(device)
        else Finding(
            f"bf16 on {device.type}",
            False,
            "not in hardware",
            "--precision auto takes fp32: about half the speed of bf16",
        )
        for device in devices
    ]


def _embedded() -> Finding:
    try:
        import torch
        from torchvision import ops

        ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except ILLNESSES as error:
        cost = "no benchmark runs; install torch and torchvision of the same release"
        return Finding("engine embedded", False, f"torchvision's operators do not load: {_in_one_line(error)}", cost)
    return Finding("engine embedded", True, "R50-C4 and R50-FPN, boxes and masks, on torch and torchvision")


def _detectron2() -> Finding:
    why_not = why_no_detectron2()
    if why_not is None:
        version = metadata.version("detectron2")
        return Finding("engine detectron2", True, f"{version}; --engine auto takes it for detection")
    cost = f"detection runs on the embedded engine, which is the same model; to install Detectron2: {INSTALLATION}"
    return Finding("engine detectron2", False, why_not, cost)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    cost = "two ResNet-50 pretraining checkpoints need about 1 GiB; choose --out on another disk"
    return Finding("disk", True, found) if free >= CHECKPOINTS_BYTES else Finding("disk", False, found, cost)


def _shared_memory(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("shared memory", True, f"no {folder} on this system; workers use files")
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**20:.0f} MiB free in {folder}"
    cost = f"loading workers pass batches through it, and a run ends where one does not fit; {MORE_SHARED_MEMORY}"
    return Finding("shared memory", True, found) if free >= 1 << 28 else Finding("shared memory", False, found, cost)


def to_text(findings: list[Finding]) -> str:
    """For people: one line a finding, the cost below it."""
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'ok' if finding.is_fine else '--'}  {finding.topic:<{width}}  {finding.found}")
        if finding.cost:
            lines.append(f"    {'':<{width}}  costs: {finding.cost}")
    return "\n".join(lines)


def to_json(findings: list[Finding]) -> str:
    """For machines: a list of {topic, is_fine, found, cost}."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)
