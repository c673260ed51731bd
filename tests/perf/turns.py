"""Processes that take turns, so that all of them meet the same noise."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def take_turns(commands: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What `python -m ...` prints as JSON on its last line, by the command's name: each once a round, one at a time."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            done = subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def median_of(runs: Sequence[Mapping[str, Any]], kind: str) -> float:
    """The median of all rounds' values, such as seconds of steps."""
    return median(value for run in runs for value in run[kind])


def peak_of(runs: Sequence[Mapping[str, Any]]) -> int:
    """The largest peak of memory in bytes: on the device where it has memory of its own, else of the process."""
    return max(run["peak_memory_bytes"].get("device", run["peak_memory_bytes"]["host"]) for run in runs)
