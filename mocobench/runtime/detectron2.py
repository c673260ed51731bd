"""Whether the real Detectron2 is here, and in which precision it runs. It is never installed by this package."""

import importlib
import importlib.util

from mocobench.runtime.errors import UserError

INSTALLATION = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def why_no_detectron2() -> str | None:
    """Why Detectron2 cannot be used, or None when it can: it is installed and its compiled part loads."""
    if importlib.util.find_spec("detectron2") is None:
        return "it is not installed"
    try:
        importlib.import_module("detectron2._C")
    except (ImportError, OSError, RuntimeError) as error:  # as torch itself raises them
        return f"it is installed but does not import: {' '.join(str(error).split())}"
    return None


def detectron2_precision(name: str) -> str:
    """fp32, which is what `auto` is for Detectron2: its RoIAlign takes the corners of regions in the features' type.

    Raises:
        UserError: another was asked for.
    """
    if name not in ("auto", "fp32"):
        raise UserError(
            f"--engine detectron2: expected --precision fp32, found {name}, in which it rounds the corners of regions "
            "by up to 4 pixels; use that, or --engine embedded, which keeps them in fp32"
        )
    return "fp32"
