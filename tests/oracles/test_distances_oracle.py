"""The distance oracles against numbers worked out by hand, and against one another."""

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from . import distances

T = 41


def row(p: Tensor, m: int) -> list[float]:
    return p[0, m, : m + 1, 0].tolist()


def test_oracles_import_nothing_that_they_check() -> None:
    for file in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "ropewalk" for name in names), file.name


def test_self_extend_is_the_row_worked_by_hand() -> None:
    # G = 2, w = 4, m = 9: floor(9/2) = 4, offset 4 - 2 = 2; keys 0..5 remote, 6..9 local.
    assert row(distances.self_extend(10, 2, 4), 9) == [6, 6, 5, 5, 4, 4, 3, 2, 1, 0]
    # G = 3 does not divide w = 4: offset 4 - 1 = 3, m = 7: floor(7/3) = 2.
    assert row(distances.self_extend(10, 3, 4), 7) == [5, 5, 5, 4, 3, 2, 1, 0]


def test_rerope_leaky_and_string_are_the_rows_worked_by_hand() -> None:
    assert row(distances.rerope(8, 3), 7) == [3, 3, 3, 3, 3, 2, 1, 0]
    assert row(distances.leaky_rerope(8, 3, 2), 7) == [5, 4.5, 4, 3.5, 3, 2, 1, 0]
    assert row(distances.string(8, 5, 2), 7) == [4, 3, 2, 4, 3, 2, 1, 0]


def test_dpe_is_the_row_worked_by_hand() -> None:
    p = distances.dpe(10, torch.tensor([1.0, 2.0, 2.5]), 4)
    assert p.shape == (1, 10, 10, 3)
    assert p[0, 9, :, 0].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert p[0, 9, :, 1].tolist() == [6, 6, 5, 5, 4, 4, 3, 2, 1, 0]
    # s = 2.5: floor(9 / 2.5) = 3, floor(n / 2.5) = 0 0 0 1 1 2, offset 4 - floor(1.6) = 3.
    assert p[0, 9, :, 2].tolist() == [6, 6, 6, 5, 5, 4, 3, 2, 1, 0]


def test_dpe_takes_scales_per_head() -> None:
    scales = torch.tensor([[1.0, 3.0], [2.0, 1.5]])
    p = distances.dpe(T, scales, 7)
    assert p.shape == (2, T, T, 2)
    for head in range(2):
        assert torch.equal(p[head : head + 1], distances.dpe(T, scales[head], 7))


def test_dca_is_the_figure_worked_by_hand() -> None:
    # chunk 6, window 4, cap 10: successive queries stand at 6 7 8 9 10 10, inter queries at 10; keys at n mod 6.
    p = distances.dca(18, 6, 4)[0, :, :, 0]
    assert p[3, :4].tolist() == [3, 2, 1, 0]
    assert [float(p[m, 5]) for m in range(6, 12)] == [1, 2, 3, 4, 5, 5]
    assert p[11, :12].tolist() == [10, 9, 8, 7, 6, 5, 5, 4, 3, 2, 1, 0]
    assert p[12, :6].tolist() == [10, 9, 8, 7, 6, 5]
    assert p[17, :6].tolist() == [10, 9, 8, 7, 6, 5]


def test_dca_neighbours_within_the_window_keep_their_distance() -> None:
    p = distances.dca(T, 9, 5)[0, :, :, 0]
    for m in range(T):
        for n in range(max(0, m - 5), m + 1):
            assert p[m, n] == m - n


@pytest.mark.parametrize("window", [1, 6, 13, T + 3])
def test_reductions_between_methods(window: int) -> None:
    for group in (1, 2, 3, 2.5):
        equal = torch.full((4,), float(group))
        assert torch.equal(distances.dpe(T, equal, window), distances.self_extend(T, group, window).expand(1, T, T, 4))
    rerope = distances.rerope(T, window)
    assert torch.equal(distances.self_extend(T, T + window, window), rerope)
    assert torch.equal(distances.leaky_rerope(T, window, float("inf")), rerope)
    plain = distances.plain(T)
    assert torch.equal(distances.self_extend(T, 1, window), plain)
    assert torch.equal(distances.leaky_rerope(T, window, 1), plain)
    assert torch.equal(distances.dpe(T, torch.ones(1), window), plain)
    assert torch.equal(distances.string(T, T, window), plain)
    assert torch.equal(distances.dca(T, T, window), plain)
    if window >= T:
        assert torch.equal(distances.self_extend(T, 4, window), plain)
        assert torch.equal(rerope, plain)


@pytest.mark.parametrize(
    "p",
    [
        distances.self_extend(T, 3, 5),
        distances.rerope(T, 5),
        distances.leaky_rerope(T, 5, 1.5),
        distances.dpe(T, torch.tensor([1.5, 4.0]), 5),
        distances.string(T, 12, 5),
        distances.dca(T, 7, 3),
    ],
    ids=["self-extend", "rerope", "leaky-rerope", "dpe", "string", "dca"],
)
def test_distance_is_zero_above_the_diagonal_and_float64(p: Tensor) -> None:
    assert p.dtype == torch.float64
    above = torch.ones(T, T, dtype=torch.bool).triu(1)
    assert torch.equal(p[:, above], torch.zeros_like(p[:, above]))
    assert (p >= 0).all()
