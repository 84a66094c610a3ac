"""What a report sets against quality: time and memory of a document."""

from dataclasses import dataclass

from ropewalk.evaluate.report.data import Panel, Series
from ropewalk.evaluate.row import Row

CPU = "cpu"


@dataclass(frozen=True)
class Cost:
    """One series at one length on one device.

    Attributes:
        seconds: of a document, the mean: processor time on a CPU, wall time on a GPU.
        peak_bytes: the most that any document took, or None where it is not known.
        quality: the mean of the tasks' means.
    """

    series: Series
    length: int
    device: str
    seconds: float
    peak_bytes: int | None
    quality: float


def costs(panels: list[Panel]) -> dict[str, list[Cost]]:
    """By device, the cost of every series at every length, over tasks that share a metric.

    A series counts at a length where it has all the tasks that any series has there: else neither its time nor its
    score could be set beside another's.
    """
    lengths = sorted({length for panel in panels for length in panel.lengths})
    found: dict[str, list[Cost]] = {}
    for series in dict.fromkeys(series for panel in panels for series in panel.series):
        for length in lengths:
            asked = [panel for panel in panels if length in panel.lengths]
            cells = [panel.cells[series, length] for panel in asked if (series, length) in panel.cells]
            devices = {row.device for cell in cells for row in cell.rows}
            if len(cells) < len(asked) or len(devices) != 1:
                continue
            (device,) = devices
            rows = [row for cell in cells for row in cell.rows]
            quality = sum(cell.mean for cell in cells) / len(cells)
            found.setdefault(device, []).append(_cost(series, length, device, rows, quality))
    return found


def _cost(series: Series, length: int, device: str, rows: list[Row], quality: float) -> Cost:
    seconds = [row.cpu_seconds if device == CPU else row.seconds for row in rows]
    peaks = [row.peak_bytes for row in rows if row.peak_bytes is not None]
    return Cost(series, length, device, sum(seconds) / len(seconds), max(peaks, default=None), quality)
