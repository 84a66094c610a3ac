"""Drawing: what is drawn is what the plan does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ropewalk import draw
from ropewalk.methods import METHODS, parse
from ropewalk.rotary import RotarySpec, default_inv_freq

SPEC = RotarySpec(
    head_dim=16,
    rotary_dim=16,
    base=10_000.0,
    pretrained_length=64,
    num_heads=4,
    num_kv_heads=2,
    num_layers=2,
    inv_freq=tuple(default_inv_freq(10_000.0, 16).tolist()),
)


@pytest.mark.parametrize("name", ["none", "self-extend:group=3,window=7", "dpe:window=5,scales=1/2/4/8", "dca"])
def test_drawn_distance_is_the_effective_distance(name: str) -> None:
    plan = parse(name).plan(SPEC, 97)
    dense = plan.effective_distance(97)
    m, n = torch.tensor([0, 3, 50, 96]), torch.arange(0, 97, 5)
    for pair in range(SPEC.pairs):
        drawn = draw.equivalent_distance(plan, SPEC, m, n, pair=pair)
        expected = dense[0, :, :, min(pair, dense.shape[-1] - 1)][m][:, n]
        causal = n[None, :] <= m[:, None]
        assert torch.equal(drawn.isnan(), ~causal)
        assert torch.equal(drawn[causal], expected[causal])


def test_drawn_distance_of_a_table_is_measured_in_the_models_own_angles() -> None:
    plan = parse("pi:factor=4").plan(SPEC, 256)
    drawn = draw.equivalent_distance(plan, SPEC, torch.tensor([200]), torch.tensor([0]), pair=3)
    assert drawn.item() == pytest.approx(50)


def test_text_marks_what_lies_beyond_the_window() -> None:
    stock = draw.text(parse("none").plan(SPEC, 256), SPEC, 256)
    extended = draw.text(parse("rerope").plan(SPEC, 256), SPEC, 256)
    matrix = slice(1, 1 + draw.ROWS)
    assert any("#" in line for line in stock.splitlines()[matrix])
    assert not any("#" in line for line in extended.splitlines()[matrix])


def test_text_names_the_scales_of_each_group_of_pairs() -> None:
    drawing = draw.text(parse("dpe:window=8,scales=1/1/4/8").plan(SPEC, 256), SPEC, 256)
    assert "s2: 1 (pairs 0-3), 4 (pairs 4-5), 8 (pairs 6-7)" in drawing
    assert "m - n >= 8" in drawing
    assert "floor(m/s2)" in drawing


@pytest.mark.parametrize("length", [1, 5, 97])
def test_every_method_can_be_drawn(length: int) -> None:
    for name in METHODS:
        if name != "longrope":  # has no factors of its own
            plan = parse(name).resolve(SPEC, 97).plan(SPEC, length)
            assert draw.text(plan, SPEC, length).startswith("pair 7 of 8")


def test_figure_is_saved(tmp_path: Path) -> None:
    plan = parse("dpe+yarn").plan(SPEC, 256)
    draw.figure(plan, SPEC, 256, path=tmp_path / "plan.png", title="dpe + yarn")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_text_of_an_encoder_names_both_sides() -> None:
    spec = replace(SPEC, bidirectional=True)
    lines = draw.text(parse("rerope:window=7").plan(spec, 97), spec, 97).splitlines()
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["|m - n| < 7"][-1] == "6"
    assert rows["m - n >= 7"][-1] == rows["n - m >= 7"][-1] == "7"
    assert "queries times max(1, ln(N) / ln 64)" in lines
