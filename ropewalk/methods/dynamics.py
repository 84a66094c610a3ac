"""The dynamics of CLEX: how ln theta_i moves with the length factor, and a solver for it.

Written with the operators that numpy arrays and torch tensors share, so that the table which is baked for inference and
the one that is trained through are one formula.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.errors import MethodError
from ropewalk.rotary import RotarySpec

ACTIVATIONS = ("tanh", "silu")
NETWORKS = {"projection": ("up", "down"), "residual": ("up", "down", "middle", "clock")}  # and their weights
Array = Any  # np.ndarray or torch.Tensor, one kind throughout


@dataclass(frozen=True)
class Dynamics:
    """The right-hand side of the ordinary differential equation of CLEX (arXiv 2310.16450, and the authors' code).

    Let t be the length factor (1: the trained window), a = 2t - 1, u = ln a and w_i(t) = ln theta_i(t) - ln theta_i,
    which is 0 at t = 1. With sigma the activation and c_i = 2i / (d - 2),

        g(w, u)   = gate_i [ sigma((ln theta + w + ln phi - c u) W_up) W_down ]_i
        dw_i / dt = g_i - 2 c_i / a            the authors' form
        dw_i / du = g_i a / 2 - c_i            the same trajectory in log-time

    and with the residual network, which is ours,

        h         = sigma(w W_up + (1, u) W_clock)
        dw_i / du = gate_i [ (h + sigma(h W_middle)) W_down ]_i - c_i

    phi_i = b^(-2i / d) are the frequencies of a base b, so that ln phi - c u is NTK-aware scaling at factor a. With
    W_down = 0 the trajectory itself is NTK-aware scaling at a, which is Dynamic NTK with factor 2.

    The - 1 of a is not in the paper (equation 14), nor is the input ln phi - c u; the authors' code has both, and every
    published checkpoint was trained with them. Their code takes phi with base 10,000 whatever the model's base is.

    What the authors' network reads lies far from 0 (ln theta_i phi_i goes down to -2 ln b) and changes little with t:
    untrained, its hidden units at t = 16 and at t = 1 have a cosine of .998 or more (head_dim 32, 64, 128), so that g
    is nearly a constant, which a / 2 makes grow with the length. The residual one reads how far it has moved and u, has
    biases, and learns the exponents themselves: c_i - g_i at every u.

    Attributes:
        start: ln theta_i of the model, [pairs].
        exponent: c_i, [pairs].
        feature: ln phi_i, [pairs].
        gate: 1 where the network may move a pair, 0 where it may not, [pairs].
        up: W_up, [pairs, hidden].
        down: W_down, [hidden, pairs].
        activation: "tanh" or "silu".
        library: numpy or torch: whose exp, log and tanh are used.
        middle: W_middle, [hidden, hidden], and
        clock: W_clock, [2, hidden], of the residual network; None: the authors'.
    """

    start: Array
    exponent: Array
    feature: Array
    gate: Array
    up: Array
    down: Array
    activation: str
    library: Any
    middle: Array = None
    clock: Array = None

    def network(self, moved: Array, log_alpha: Array) -> Array:
        """What the network adds to dw / du, [..., pairs]."""
        if self.middle is None:
            seen = self.start + moved + self.feature - self.exponent * log_alpha
            return self._sigma(seen @ self.up) @ self.down * self.gate * self.library.exp(log_alpha) / 2
        hidden = self._sigma(moved @ self.up + self.clock[0] + log_alpha * self.clock[1])
        return (hidden + self._sigma(hidden @ self.middle)) @ self.down * self.gate

    def _sigma(self, value: Array) -> Array:
        if self.activation == "tanh":
            return self.library.tanh(value)
        return value * (1 + self.library.tanh(value / 2)) / 2  # silu in a form that does not overflow

    def in_log_time(self, log_alpha: Array, moved: Array) -> Array:
        """dw / du at u = ln(2t - 1)."""
        return self.network(moved, log_alpha) - self.exponent

    def in_time(self, time: Array, moved: Array) -> Array:
        """dw / dt at t >= 1."""
        alpha = 2 * time - 1
        return self.in_log_time(self.library.log(alpha), moved) * 2 / alpha


def exponents(pairs: int) -> np.ndarray:
    """c_i = 2i / (d - 2): 0 for the fastest pair, 1 for the slowest, float64 [pairs]."""
    return np.arange(pairs) / max(1, pairs - 1)


def open_pairs(spec: RotarySpec, gate: float) -> np.ndarray:
    """1 for pairs that make fewer than `gate` full turns in the trained window, 0 for the others, float64 [pairs]."""
    return (spec.pretrained_length / spec.wavelengths < gate).astype(np.float64)


def feature_of(spec: RotarySpec, base: float) -> np.ndarray:
    """ln phi_i = -(2i / d) ln b, float64 [pairs]."""
    return -np.log(base) * np.arange(spec.pairs) / spec.pairs


def rk4(rate: Callable[[Array, Array], Array], state: Array, start: Array, stop: Array, steps: int) -> Array:
    """The classical Runge-Kutta method of order 4 in `steps` equal steps, 4 evaluations of `rate` each.

    start and stop are numbers or arrays that broadcast against the state: rows may have intervals of their own.
    """
    size = (stop - start) / steps
    for step in range(steps):
        now = start + step * size
        first = rate(now, state)
        second = rate(now + size / 2, state + size / 2 * first)
        third = rate(now + size / 2, state + size / 2 * second)
        fourth = rate(now + size, state + size * third)
        state = state + size / 6 * (first + 2 * second + 2 * third + fourth)
    return state


def settled(dynamics: Dynamics, time: float, *, tolerance: float = 1e-12, most: int = 2**12) -> np.ndarray:
    """w_i(t) in float64, with steps halved in log-time until it stands still; [pairs].

    Args:
        dynamics: over float64 numpy arrays.
        time: t >= 1.
        tolerance: largest change of w_i by the last halving; what is left is about a fifteenth of it.
        most: steps at which it gives up.

    Raises:
        MethodError: the trajectory is not finite, or has not settled after `most` steps.
    """
    still, stop, steps = np.zeros(len(dynamics.start)), float(np.log(2 * time - 1)), 8
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        before = rk4(dynamics.in_log_time, still, 0.0, stop, steps)
        while steps < most:
            steps *= 2
            after = rk4(dynamics.in_log_time, still, 0.0, stop, steps)
            change = np.abs(after - before)
            if (change <= tolerance * np.maximum(1, np.abs(after))).all():
                return np.asarray(after)
            before = after
    raise MethodError(
        f"clex: ln theta does not settle at t = {time:g}; the network's weights are too large: train it again with a "
        "smaller learning rate, or lower max_factor"
    )
