"""Fixtures shared by the tests."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real data sets that are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets in ../shared/data are not here")
    return SHARED_DATA
