"""What a run on position rows is."""

from dataclasses import dataclass

from ropewalk.train.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class TuneSettings(RunSettings):
    """A contrastive run on the new rows of a position table.

    Attributes:
        length: tokens that a text of a pair is cut at, within the trained length.
        batch: pairs in one forward; every other pair's passage is a wrong answer to a query.
        rate: 5e-4 with 100 steps of warm-up is the authors' for E5-Base (arXiv 2404.12096).
        temperature: cosine similarities are divided by it; 0.05 is sentence-transformers' own.
        pairs_and_table_sha256: what the run trains on and begins with; `tune` fills it in, so that no run goes on with
            others.
    """

    batch: int = 32
    rate: float = 5e-4
    temperature: float = 0.05
    pairs_and_table_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("temperature")
