"""A report's pictures: each is drawn where there is something to draw, as SVG and as PNG."""

from collections.abc import Callable, Sequence

from reports.document import in_order
from reports.formats.blocks import Picture
from reports.labels import backbone_labels
from reports.pictures.against import linear_against_detection
from reports.pictures.cost import cost_against_accuracy
from reports.pictures.figures import SETTINGS, saved
from reports.pictures.material import Drawn, Material
from reports.pictures.training import training_curves
from reports.pictures.trials import trials
from reports.pretraining_logs import PretrainingLog
from reports.published import Published
from reports.trials import Comparable

DRAWINGS: dict[str, Callable[[Material], Drawn | None]] = {
    "linear-against-detection": linear_against_detection,
    "training-curves": training_curves,
    "trials": trials,
    "cost-against-accuracy": cost_against_accuracy,
}


def draw_pictures(
    tables: Sequence[Comparable],
    published: Sequence[Published],
    logs: Sequence[PretrainingLog],
    *,
    place: str = "",
    with_png: bool = True,
) -> tuple[Picture, ...]:
    """Every picture that there is something for; `place` is the folder of their files as seen from the report."""
    import matplotlib as mpl

    labels = backbone_labels([trial for table in tables for trial in table.trials])
    material = Material(in_order(tables), published, logs, labels)
    pictures = []
    with mpl.rc_context(SETTINGS):
        for name, draw in DRAWINGS.items():
            drawn = draw(material)
            if drawn is not None:
                figure, caption = drawn
                svg, png = saved(figure, "svg"), saved(figure, "png") if with_png else b""
                pictures.append(Picture(name, caption, svg, png, f"{place}{'/' if place else ''}{name}.svg"))
    return tuple(pictures)
