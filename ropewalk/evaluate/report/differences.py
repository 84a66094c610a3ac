"""Paired differences of every series against the stock model, by `ropewalk.evaluate.compare`."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from ropewalk.evaluate.compare import Comparison, compare
from ropewalk.evaluate.report.data import Panel, Series, Study
from ropewalk.evaluate.row import Row


@dataclass(frozen=True)
class Against:
    """A series against the stock model in one panel at one length."""

    panel: Panel
    series: Series
    comparison: Comparison

    @property
    def length(self) -> int:
        """Tokens asked for."""
        return self.comparison.length


def differences(study: Study, *, calibration: Collection[str] = ()) -> list[Against]:
    """Every series against stock wherever both were measured; p adjusted over the tasks of a length.

    Args:
        calibration: hashes of prompts that calibration saw, from `Store.calibration`.

    Returns:
        Panel by panel, then by length and series; empty without samples of the stock model.
    """
    found: dict[tuple[int, int, Series], Against] = {}
    stocks = [one for one in study.series if one.kind == "stock"]
    for series in (one for one in study.series if one.kind != "stock"):
        for stock in reversed(stocks):
            for against in _against(study, stock, series, calibration):
                found[study.panels.index(against.panel), against.length, series] = against
    order = {series: place for place, series in enumerate(study.series)}
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1], order[key[2]]))]


def _against(study: Study, stock: Series, series: Series, calibration: Collection[str]) -> list[Against]:
    """The comparisons of two series; they are told apart by series, whatever their rows are called."""
    pairs = [(panel, length) for panel in study.panels for length in panel.lengths]
    shared = [(panel, length) for panel, length in pairs if {(stock, length), (series, length)} <= set(panel.cells)]
    if not shared:
        return []
    rows = [
        _named(row, one) for panel, length in shared for one in (stock, series) for row in panel.cells[one, length].rows
    ]
    made = compare(rows, stock.ident, series.ident, calibration=calibration)
    # compare() answers in the order of its rows, one comparison for each cell that both have.
    return [Against(panel, series, one) for (panel, _), one in zip(shared, made, strict=True)]


def _named(row: Row, series: Series) -> Row:
    return replace(row, method=series.ident, key=replace(row.key, resolved=series.ident, control=""))
