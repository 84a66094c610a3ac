"""The network of CLEX as a torch module: tables that gradients run through."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ropewalk.errors import MethodError, ModelError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX
from ropewalk.methods.dynamics import NETWORKS, Dynamics, rk4
from ropewalk.rotary import RotarySpec

Form = Literal["log", "authors"]
STEPS = 8  # 32 evaluations of the network; at t = 16 within 2e-5 of the trajectory at the weights that were measured
STEP = 0.01  # of t, the authors' `time_dt`: 6,000 evaluations to t = 16


class Network(nn.Module):
    """The weights of a network of CLEX, and the frequencies that follow from them at any length factor.

    The up-and-down projection of the authors: W_up [pairs, amplification x rotary_dim] uniform in +- 1 / sqrt(its
    width), which is kaiming_uniform with a = sqrt 5 on their layout, W_down zero, no biases. So an untrained network is
    Dynamic NTK. The other weights of the residual network begin as W_up does. Weights are float32; the equation is
    solved in float64 whatever the model's dtype.

    Args:
        method: what the network is trained for: T, gate, activation, base; and the weights to start from, if it has
            any.
        spec: the model's rotary embedding.
        amplification: the authors' `param_factor`, lambda: hidden units per rotary dimension. Not with given weights.
        form: "log" solves in log-time in 8 steps; "authors" in t-time with their step, the same trajectory at 190 times
            the cost.
        generator: of the initial W_up.

    Raises:
        MethodError: a method that does not fit the model, or an amplification below 1.
    """

    up: nn.Parameter
    down: nn.Parameter

    def __init__(
        self,
        method: CLEX,
        spec: RotarySpec,
        *,
        amplification: int = 1,
        form: Form = "log",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if amplification < 1:
            raise MethodError(f"clex: amplification must be at least 1, got {amplification}")
        self.spec = spec
        self.form = form
        self.settings = method.resolve(spec, spec.pretrained_length)
        hidden = amplification * spec.rotary_dim
        shapes = {
            "up": (spec.pairs, hidden),
            "middle": (hidden, hidden),
            "clock": (2, hidden),
            "down": (hidden, spec.pairs),
        }
        assert self.settings.network is not None
        self.names = NETWORKS[self.settings.network]
        for name in self.names:
            if self.settings.weights:
                start = torch.tensor(self.settings.weights[name].array[0]).float()
            elif name == "down":
                start = torch.zeros(shapes[name])
            else:
                start = torch.empty(shapes[name]).uniform_(-1, 1, generator=generator) / math.sqrt(hidden)
            self.register_parameter(name, nn.Parameter(start))

    @property
    def max_factor(self) -> int:
        """T, the longest text in trained windows."""
        assert self.settings.max_factor is not None
        return self.settings.max_factor

    def forward(self, time: Tensor) -> Tensor:
        """theta_i(t), radians per token.

        Args:
            time: t of every row, [B], at least 1.
        Returns: float64 [B, pairs]; rows at t = 1 have the model's own frequencies, exactly.
        Raises:
            ModelError: the weights were cast to a half type, in which a trajectory cannot be trained.
        """
        if self.up.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"the network of CLEX is in {self.up.dtype}; cast the model first and attach the network afterwards, "
                "or train with autocast"
            )
        dynamics = self._dynamics()
        time = time.to(dynamics.start)[:, None]
        still = torch.zeros(time.shape[0], self.spec.pairs).to(dynamics.start)
        if self.form == "log":
            moved = rk4(dynamics.in_log_time, still, torch.zeros_like(time), (2 * time - 1).log(), STEPS)
        else:
            steps = max(1, math.ceil(round((float(time.max()) - 1) / STEP, 6)))
            moved = rk4(dynamics.in_time, still, torch.ones_like(time), time, steps)
        theta = torch.tensor(self.spec.inv_freq, dtype=torch.float64).to(dynamics.start) * moved.exp()
        return theta.to(self.up.device) if self.up.device.type != "mps" else theta

    def _dynamics(self) -> Dynamics:
        """The equation over float64 torch tensors, on the CPU where the device has no float64."""
        device = torch.device("cpu") if self.up.device.type == "mps" else self.up.device
        fixed = self.settings.dynamics(self.spec)
        names = ("start", "exponent", "feature", "gate")
        constants = {name: torch.tensor(getattr(fixed, name), device=device) for name in names}
        weights = {name: self.get_parameter(name).to(device, torch.float64) for name in self.names}
        return Dynamics(**constants, **weights, activation=fixed.activation, library=torch)

    def method(self) -> CLEX:
        """The method with the weights of this moment, frozen: what inference, saving and export take.

        Where weights are sharded over processes, all of them have to call it.
        """
        named: dict[str, Any] = {name: whole(self.get_parameter(name).detach()) for name in self.names}
        named = {name: Grid(one.double().cpu().numpy()) for name, one in named.items()}
        return replace(self.settings, profile=None, **named)


def whole(weight: Tensor) -> Tensor:
    """A weight with all its shards."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
