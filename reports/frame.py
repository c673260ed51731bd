"""Results as a pandas table, for whoever goes on from them in a notebook or a spreadsheet."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from benchmarks.result import Result
from reports.formats.comma_separated import no_formula

if TYPE_CHECKING:
    import pandas as pd


def results_frame(results: Iterable[Result]) -> "pd.DataFrame":
    """One row for each metric of each result, in the unit that `unit` says; what a record does not say is missing."""
    return _frame(_rows(results))


def results_csv(results: Iterable[Result]) -> str:
    """The same as CSV, in which no text is a formula."""
    rows = [
        {name: no_formula(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in _rows(results)
    ]
    text: str = _frame(rows).to_csv(index=False)
    return text


def _frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd  # loading it takes longer than most reports

    return pd.DataFrame(rows).convert_dtypes()  # a missing epoch leaves the others whole numbers


def _rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    return [
        {
            "task": result.task,
            "protocol": result.protocol.id,
            "differs": "; ".join(result.protocol.differs),
            "data": result.data.name,
            "backbone": result.backbone.name,
            "arch": result.backbone.arch,
            "digest": result.backbone.digest,
            "method": result.backbone.provenance.get("method"),
            "recipe": result.backbone.provenance.get("recipe"),
            "epochs": result.backbone.provenance.get("epochs"),
            "encoder": result.backbone.provenance.get("encoder"),
            "engine": result.engine.get("name"),
            "engine_version": result.engine.get("version"),
            "precision": result.precision,
            "batch_norm": result.details.get("batch_norm"),
            "seed": result.seed,
            "metric": metric,
            "value": value,
            "unit": result.metric_info[metric].unit,
            "wall_seconds": result.wall_seconds,
            "created": result.created,
        }
        for result in results
        for metric, value in result.metrics.items()
    ]
