"""Whether the real Detectron2 is here. It is never installed by this package."""

import importlib
import importlib.util

INSTALLATION = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def why_no_detectron2() -> str | None:
    """Why Detectron2 cannot be used, or None when it can: it is installed and its compiled part loads."""
    if importlib.util.find_spec("detectron2") is None:
        return "it is not installed"
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        return f"it is installed but does not import: {' '.join(str(error).split())}"
    return None
