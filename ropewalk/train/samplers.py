"""The position samplers of the methods that train: PoSE, random positions, E2-LLM and CLEX."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ropewalk.errors import TrainingError
from ropewalk.train.positions import SAMPLERS, Drawn, Generator, Sampler, require_document, require_range

SINKS = 4  # tokens that E2-LLM does not shift


@SAMPLERS.register("contiguous")
@dataclass(frozen=True, kw_only=True)
class Contiguous(Sampler):
    """contiguous: 0, 1, 2, ... as in plain fine-tuning."""

    name: ClassVar[str] = "contiguous"
    paper: ClassVar[str] = "none"

    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        require_document(length, document)
        return Drawn(np.arange(length), np.arange(length, dtype=np.float64))


@SAMPLERS.register("pose")
@dataclass(frozen=True, kw_only=True)
class PoSE(Sampler):
    """pose: the sequence cut into chunks, each skipped ahead of the one before (arXiv 2309.10400, equations 3 to 5).

    Chunk i begins at place st_i of the sequence, at position u_i + st_i and at place v_i + st_i of the document, with
    u_i ~ U{u_{i-1}..L' - n}, v_i ~ U{v_{i-1}..document - n}, u_0 = v_0 = 0. Chunks are cut at places drawn without
    replacement; the authors' code, for two chunks, draws the first from 1..(n + 1) / 2 only, and freezes positions when
    the data is prepared.

    Attributes:
        target_length: L', tokens.
        chunks: N.
    """

    name: ClassVar[str] = "pose"
    paper: ClassVar[str] = "arXiv 2309.10400"
    stretch: ClassVar[int] = 5  # the authors' code cuts documents at five sequences

    target_length: int
    chunks: int = 2

    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        require_document(length, document)
        require_range(self.name, length, self.target_length)
        if not 1 <= self.chunks <= length:
            raise TrainingError(f"pose: {self.chunks} chunks cannot be cut from {length} tokens; take 1 to {length}")
        lengths = _chunks(generator, self.chunks, length)
        skip = np.repeat(_ascending(generator, self.chunks, self.target_length - length), lengths)
        content = np.repeat(_ascending(generator, self.chunks, document - length), lengths)
        place = np.arange(length)
        return Drawn(place + content, (place + skip).astype(np.float64), self.target_length / length)

    def spreads(self, length: int) -> bool:
        return self.target_length != length


def _chunks(generator: Generator, count: int, length: int) -> np.ndarray:
    """Lengths of chunks, cut at places drawn without replacement; int64 [count]."""
    cuts = np.sort(generator.choice(np.arange(1, length), count - 1, replace=False))
    return np.diff(cuts, prepend=0, append=length)


def _ascending(generator: Generator, count: int, most: int) -> np.ndarray:
    """0, then each drawn uniformly from the one before up to `most`; int64 [count]."""
    values = [0]
    for _ in range(count - 1):
        values.append(int(generator.integers(values[-1], most, endpoint=True)))
    return np.array(values)


@SAMPLERS.register("randpos")
@dataclass(frozen=True, kw_only=True)
class RandPos(Sampler):
    """randpos: sorted random positions, a subset of 0 .. L' - 1 (arXiv 2305.16843).

    Attributes:
        target_length: L', tokens.
    """

    name: ClassVar[str] = "randpos"
    paper: ClassVar[str] = "arXiv 2305.16843"

    target_length: int

    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        require_document(length, document)
        require_range(self.name, length, self.target_length)
        positions = np.sort(generator.choice(self.target_length, length, replace=False))
        return Drawn(np.arange(length), positions.astype(np.float64), self.target_length / length)

    def spreads(self, length: int) -> bool:
        return self.target_length != length


@SAMPLERS.register("e2-llm")
@dataclass(frozen=True, kw_only=True)
class E2LLM(Sampler):
    """e2-llm: one scale and one offset for the sequence, the first four tokens in their places (arXiv 2401.06951).

    Positions (p + o) / g of the model's own table, g ~ U{1..G}, o = 0 for p < 4 and else one o ~ U{0..g L - n}: the
    window of the scaled table less the sequence. At inference it is `pi:factor=g` for any g.

    Attributes:
        pretrained_length: L, tokens.
        max_scale: G; 20 in the paper.
    """

    name: ClassVar[str] = "e2-llm"
    paper: ClassVar[str] = "arXiv 2401.06951"

    pretrained_length: int
    max_scale: int = 20

    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        require_document(length, document)
        require_range(self.name, length, self.pretrained_length)
        scale = int(generator.integers(1, self.max_scale, endpoint=True))
        offset = int(generator.integers(0, scale * self.pretrained_length - length, endpoint=True))
        place = np.arange(length)
        return Drawn(place, np.where(place < SINKS, place, place + offset) / scale, float(scale))

    def spreads(self, length: int) -> bool:
        return self.max_scale > 1


@SAMPLERS.register("clex")
@dataclass(frozen=True, kw_only=True)
class Clex(Sampler):
    """clex: a length factor drawn for the sequence, its tokens spread over a text so much longer (arXiv 2310.16450).

    r ~ U[1, T L / n] is how many times longer the text is than the sequence: t = max(1, n r / L) is its table, and the
    tokens take n of its floor(n r) places. A sequence shorter than the window therefore sees every t up to T, and one
    longer than it those from n / L on.

    The authors draw a whole t up to T for the whole batch, and spread n tokens over n t positions also where n < L:
    with n = L / 4 and t = 4 nothing leaves the window. Their last position can lie before the one before it. Where
    n > L their positions are multiples of L / n, so that every t from 1 on is seen, with neighbours less than a token
    apart, which no text has: on the small trained model (300 steps of n = 2 L) copying from three tokens back fell to
    .09 of 1 within the window, and stays at 1.00 with whole positions. "random" and "even" have theirs.

    Attributes:
        pretrained_length: L, tokens.
        max_factor: T.
        whole: draw r from the whole numbers, as the authors.
        spacing: "chunks": two runs of neighbours with one skip, as PoSE; "random" places, the first and the last
            always, as the authors; "even" ones (the paper's uniform scaling, which it finds worse). Random places leave
            no neighbours: on the small trained model (300 steps, docs/training.md) copying from three tokens back fell
            to .21 of 1 at four times the window, and stayed at 1.00 with chunks.
    """

    name: ClassVar[str] = "clex"
    paper: ClassVar[str] = "arXiv 2310.16450"

    pretrained_length: int
    max_factor: int = 16
    whole: bool = False
    spacing: Literal["chunks", "random", "even"] = "chunks"

    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        require_document(length, document)
        require_range(self.name, length, self.max_factor * self.pretrained_length)
        dense = length if self.spacing == "chunks" else min(length, self.pretrained_length)
        most = self.max_factor * self.pretrained_length / dense
        ratio = float(generator.integers(1, int(most), endpoint=True)) if self.whole else generator.uniform(1, most)
        grid = math.floor(length * ratio)
        if self.spacing == "chunks" and length > 1:
            skip = np.repeat(_ascending(generator, 2, grid - length), _chunks(generator, 2, length))
            places = np.arange(length) + skip
        elif self.spacing == "even" or length < 3:
            places = np.linspace(0, grid - 1, length)
        else:
            inside = np.sort(generator.choice(grid - 2, length - 2, replace=False)) + 1
            places = np.concatenate(([0], inside, [grid - 1]))
        time = max(1.0, dense * ratio / self.pretrained_length)
        return Drawn(np.arange(length), places * (dense / length), time)

    def spreads(self, length: int) -> bool:
        return self.max_factor > 1
