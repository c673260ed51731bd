"""Who may import whom, read off the files (DESIGN: import directions)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("mocobench", "pretrain", "transfer", "benchmarks", "reports")


def allowed(file: Path, imported: str) -> bool:
    """Whether `file` (relative to the root) may import the module `imported` of this project."""
    own, other = file.parts[0], imported.split(".")[0]
    if imported == "mocobench" and own in ("transfer", "benchmarks") and file.name != "result.py":
        return True  # the package's root holds the version and nothing else
    if file.parts[:2] == ("mocobench", "runtime"):
        return imported == "mocobench" or imported.startswith("mocobench.runtime")
    if file.parts[:2] == ("benchmarks", "result.py"):
        return False
    if own == "reports":
        return other == "reports" or imported == "benchmarks.result"
    if own == "mocobench":
        return file.parts[1] in ("cli.py", "commands") or other == "mocobench"
    if other == "mocobench":
        return imported.startswith("mocobench.runtime")
    if own == "benchmarks":
        return other in ("benchmarks", "transfer")
    return other == own


def imports_of(file: Path) -> list[tuple[str, bool]]:
    """(module, whether it is imported at the file's top level) for every import of this project's modules."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = set(ast.iter_child_nodes(tree))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.append((node.module or "", node in top))
    return [(name, at_top) for name, at_top in found if name.split(".")[0] in STAGES]


def source_files() -> list[Path]:
    return sorted(file.relative_to(ROOT) for stage in STAGES for file in (ROOT / stage).rglob("*.py"))


@pytest.mark.parametrize("file", source_files(), ids=str)
def test_imports_follow_the_arrows(file: Path) -> None:
    for imported, _ in imports_of(ROOT / file):
        assert allowed(file, imported), f"{file} imports {imported}"


def test_the_rules_can_fail() -> None:
    assert not allowed(Path("pretrain/train.py"), "benchmarks.run")
    assert not allowed(Path("benchmarks/run.py"), "pretrain.train")
    assert not allowed(Path("reports/tables.py"), "benchmarks.run")
    assert not allowed(Path("transfer/load.py"), "mocobench.cli")
    assert not allowed(Path("mocobench/runtime/files.py"), "transfer.load")
    assert allowed(Path("benchmarks/run.py"), "transfer.load")


@pytest.mark.parametrize("file", ["cli.py", *sorted(path.name for path in (ROOT / "mocobench/commands").glob("*.py"))])
def test_commands_import_stages_inside_functions_only(file: str) -> None:
    folder = ROOT / "mocobench" / ("" if file == "cli.py" else "commands")
    at_top = {name for name, top in imports_of(folder / file) if top}
    assert {name for name in at_top if not name.startswith("mocobench.commands")} <= {
        *("mocobench", "mocobench.runtime.errors", "benchmarks.result")
    }


@pytest.mark.parametrize(
    "module", ["mocobench.cli", "reports", "reports.report", "benchmarks.result", "pretrain.recipes"]
)
def test_light_modules_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_package_is_listed_for_installation() -> None:
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for stage in STAGES:
        for package in (ROOT / stage).rglob("__init__.py"):
            name = ".".join(package.parent.relative_to(ROOT).parts)
            assert f'"{name}"' in listed, f"{name} is not in [tool.setuptools] packages"
