"""A new file in transfer/sources and in transfer/targets joins the contract tests by itself, and they can fail it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = "tests/test_transfer_contract.py"
SOURCE = '''"""What the target `other` writes: net.*, and the metadata beside it."""

from transfer.layout import Layout
from transfer.metadata import with_metadata

SUMMARY = "a format that was not there"
LAYOUTS = (Layout(format="other", method="Other", sections=("other",), encoders={"backbone": "net."}),)


def finish(found, content, path):
    found.dropped.pop("metadata", None)
    return with_metadata(found, content.values["metadata"], path) if "metadata" in content.values else found
'''
TARGET = '''"""The tensors under `net.`, and the metadata beside them."""

import torch

from transfer.metadata import metadata_json

SUMMARY, SUFFIX = "a format that was not there", ".other"


def write(backbone, path):
    tensors = {f"net.{name}": tensor for name, tensor in backbone.tensors.items()}
    torch.save({"other": tensors, "metadata": metadata_json(backbone)}, path)
'''


def run_contract(folder: Path, *, target: str) -> tuple[int, str]:
    """The contract tests of a copy of the project with the new format, as far as their names have it."""
    for name in ("transfer", "mocobench"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for name in (CONTRACT, "tests/transfer_examples.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "transfer" / "sources" / "other.py").write_text(SOURCE)
    (folder / "transfer" / "targets" / "other.py").write_text(target)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", CONTRACT, "-k", "other"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_new_format_is_read_written_proved_and_refused_without_a_line(tmp_path: Path) -> None:
    returncode, output = run_contract(tmp_path, target=TARGET)
    assert returncode == 0, output
    passed = set(re.findall(r"::(\w+)\[.*\] PASSED", output))
    assert passed >= {
        "test_every_format_says_what_it_is",
        "test_exactly_one_layout_claims_an_example",
        "test_wrappers_names_do_not_matter",
        "test_every_source_to_every_target_and_back_is_the_identity",
        "test_every_source_and_every_target_is_proved",
        "test_the_input_convention_and_provenance_travel",
    }
    assert "[moco-0-other] PASSED" in output  # the target
    assert "[other-0-safetensors] PASSED" in output  # the source


@pytest.mark.slow
def test_a_new_target_that_changes_a_tensor_fails(tmp_path: Path) -> None:
    wrong = TARGET.replace(": tensor for", ": tensor * (2 if name == 'bn1.bias' else 1) for")
    returncode, output = run_contract(tmp_path, target=wrong)
    assert returncode == 1, output
    assert "expected weights with the digest" in output
