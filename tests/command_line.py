"""The command in a process of its own, as a user starts it."""

import subprocess
import sys


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mocobench ARGUMENTS`; its status and what it printed are in the answer."""
    command = [sys.executable, "-m", "mocobench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
