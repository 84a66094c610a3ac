"""The frequencies of CLEX by an integrator of other people's, in the authors' time, one pair of numbers at a time.

dz/dt = sigma((z + nu(t)) W_up) W_down + dnu/dt with nu_i(t) = -(2i / d) ln b - (2i / (d - 2)) ln(2t - 1) and z(1) =
ln theta: the right-hand side of the authors' `ODELinear`, solved by torchdiffeq (dopri8, float64). A residual network
gives dz / d ln(2t - 1), which is (2t - 1) / 2 times as much as dz / dt.
"""

import math

import torch
from torch import Tensor
from torchdiffeq import odeint

SIGMA = {"tanh": torch.tanh, "silu": torch.nn.functional.silu}


def frequencies(
    inv_freq: Tensor,
    up: Tensor,
    down: Tensor,
    time: float,
    *,
    base: float = 10000.0,
    activation: str = "tanh",
    closed: frozenset[int] = frozenset(),
    middle: Tensor | None = None,
    clock: Tensor | None = None,
    solver: str = "dopri8",
    step: float | None = None,
) -> Tensor:
    """theta_i(t), float64 [pairs], radians per token.

    Args:
        inv_freq: theta_i(1), [pairs].
        up, down: W_up [pairs, hidden] and W_down [hidden, pairs].
        base: b of nu; the authors' code has 10,000 for every model.
        closed: pairs that the network does not move.
        middle, clock: of the residual network, [hidden, hidden] and [2, hidden].
        solver, step: the integrator, and its step where that is fixed.
    """
    pairs = len(inv_freq)
    share = torch.tensor([2 * i / (2 * pairs) for i in range(pairs)], dtype=torch.float64)  # 2i / d
    slowing = torch.tensor([2 * i / (2 * pairs - 2) for i in range(pairs)], dtype=torch.float64)  # 2i / (d - 2)
    free = torch.tensor([0.0 if i in closed else 1.0 for i in range(pairs)], dtype=torch.float64)

    def rate(t: Tensor, z: Tensor) -> Tensor:
        alpha = 2 * t - 1
        if middle is not None and clock is not None:
            first = SIGMA[activation]((z - inv_freq.log()) @ up + clock[0] + clock[1] * torch.log(alpha))
            second = first + SIGMA[activation](first @ middle)
            return (second @ down * free - slowing) * 2 / alpha
        nu = -share * math.log(base) - slowing * torch.log(alpha)
        return SIGMA[activation]((z + nu) @ up) @ down * free - slowing * 2 / alpha

    if time <= 1:
        return inv_freq
    grid = torch.tensor([1.0, time], dtype=torch.float64)
    # an adaptive method would step over the end and interpolate, which costs five digits
    options = {"step_t": grid[1:]} if step is None else {"step_size": step}
    path = odeint(rate, inv_freq.log(), grid, method=solver, rtol=1e-12, atol=1e-13, options=options)
    return path[-1].exp()
