"""`mocobench report` over thousands of records: seconds and peak memory of the whole command."""

import copy
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
MOST_SECONDS, MOST_BYTES = 3.0, 500e6
NUM_SEEDS, NUM_BACKBONES = 5, 100
# Prints the peak that the kernel has seen of this process alone: what wait4 says of a process includes its parent's.
PROGRAM = """
import re, sys
from mocobench.cli import main
if main(sys.argv[1:]):
    sys.exit(1)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def measure_report(num_records: int = 10_000, *, rounds: int = 3) -> dict[str, Any]:
    """The command's median wall seconds and largest resident memory, over records made from those of docs/results."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        write_records(results, num_records)
        runs = [_run(results, Path(folder) / "report.md") for _ in range(rounds)]
    return {
        "records": num_records,
        "rounds": rounds,
        "seconds": median(seconds for seconds, _ in runs),
        "peak_memory_bytes": max(peak for _, peak in runs),
    }


def write_records(folder: Path, num_records: int) -> None:
    """Copies of the real records under so many backbones and seeds, their metrics moved a little, each content once."""
    originals = [json.loads(path.read_text()) for path in sorted((DOCS / "results").glob("*.json"))]
    folder.mkdir(parents=True)
    for number in range(num_records):
        record = copy.deepcopy(originals[number % len(originals)])
        turn = number // len(originals)
        record["seed"] = turn % NUM_SEEDS
        record["metrics"] = {name: value + number / num_records for name, value in record["metrics"].items()}
        if record["backbone"]["provenance"]["format"] != "random":
            backbone = turn // NUM_SEEDS % NUM_BACKBONES
            record["backbone"] |= {"name": f"backbone-{backbone}", "digest": f"{backbone:064x}"}
        (folder / f"{number}.json").write_text(json.dumps(record, indent=2))


def reports_section(record: dict[str, Any]) -> str:
    """The part of docs/performance.md about reports."""
    return (
        "## Reports\n\n"
        f"`mocobench report` over {record['records']} records, each the size of a real one, in a process of its own: "
        f"{record['seconds']:.1f} s\n(the median of {record['rounds']}), at most "
        f"{record['peak_memory_bytes'] / 1e6:.0f} MB. The bounds are {MOST_SECONDS:.0f} s and {MOST_BYTES / 1e6:.0f} "
        "MB.\n"
    )


def _run(results: Path, out: Path) -> tuple[float, int]:
    started = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, "report", str(results), "--out", str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, 1024 * int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(reports_section(measure_report()))
