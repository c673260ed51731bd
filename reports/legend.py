"""How to read a report's tables: values, marks and where published numbers come from."""

from collections.abc import Sequence

from reports.cells import BEST, MARKS, SECOND
from reports.formats.blocks import Note
from reports.published import Source


def report_legend(cited: Sequence[Source]) -> tuple[Note, ...]:
    """How to read a report, and what the short names of its sources stand for."""
    return (
        Note("Values", "percent; mean ± sample standard deviation (number of trials)"),
        Note("Best", f"{BEST} best and {SECOND} second best of a table's measured backbones, each by its best row"),
        Note(
            "− random",
            "difference in points to the random backbone of the same protocol, data and seeds, "
            "± half of Welch's 95 % interval; without it where a side has a single trial; custom rows have none",
        ),
        Note("Smoke", "a protocol sized for two CPU cores: it shows that the chain works, and has no published rows"),
        Note("above random", "columns in which the mean is above the random backbone's: a sign, not a test"),
        Note("Custom", "a protocol with a changed value or other data: never compared with a published row"),
        Note(
            "Claims",
            "decided by one-sided tests at p <= 0.05 on runs of the paper's own protocol; the difference has Welch's "
            "95 % interval; more trials: on each measured side, if difference and spread stay as seen",
        ),
        *published_legend(cited),
    )


def published_legend(cited: Sequence[Source]) -> tuple[Note, ...]:
    """How to read published rows, and what the short names of these sources stand for."""
    marks = (
        f"{MARKS['original']} in the authors' own text or code; {MARKS['transcription']} in a transcription of it; "
        f"{MARKS['unchecked']} not checked; several marks: one per column, in order"
    )
    sources = "; ".join(f"{s.short} = {s.title}" + (f" (arXiv {s.arxiv})" if s.arxiv else "") for s in cited)
    return (
        Note("Published rows", "ResNet-50; a width, such as 2x, is said where it is not 1x"),
        Note("source", "re-run by: measured again by others; printed by: in the text of others"),
        Note("read", f"where the published number was read: {marks}"),
        *([Note("Sources", sources)] if sources else []),
    )
