"""The figure of training curves."""

import io
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from benchmarks.result import RecordError
from reports.pictures.loss_curves import draw_curves

CURVE = [
    {"iteration": 20, "learning_rate": 0.1, "total_loss": 2.0, "loss_cls": 1.5},
    {"iteration": 40, "learning_rate": 0.1, "total_loss": 1.0, "loss_cls": 0.5},
]


def test_a_panel_for_each_loss(make_result: Any) -> None:
    plain = make_result({"ap": 1.0})
    one = replace(plain, details={"loss_curve": CURVE})
    wide = replace(plain, details={"loss_curve": [{**point, "loss_mask": 1.0} for point in CURVE]})
    two, three = (Image.open(io.BytesIO(draw_curves(results))) for results in ([plain, one], [one, wide]))
    assert three.width == pytest.approx(two.width * 3 / 2, rel=0.02)


@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(make_result: Any) -> None:
    """A pair of $ is text, not mathematics, of which this one would be an error."""
    one = make_result({"ap": 1.0}, data="$\\frac$", backbone="中文 $x_$", engine={"name": "_$"})
    assert draw_curves([replace(one, details={"loss_curve": CURVE})])


def test_no_curve(make_result: Any) -> None:
    with pytest.raises(RecordError, match=r"expected a record with a loss curve, found none among 1; run a detection"):
        draw_curves([make_result({"top1": 1.0})])
