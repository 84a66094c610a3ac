"""The effective relative distance p_i(m, n) of every position method, as the dense float64 array its paper draws.

Query position m runs down the rows, key position n along the columns, d = m - n. Every function returns a tensor
[heads or 1, T, T, pairs or 1] that is zero above the diagonal (d < 0, never attended).

Where the authors' prefill and decode disagree, the self-consistent form stands: the remote offset is w - floor(w / s),
the local region is d < w and the remote region d >= w. floor(x / s) is the floor of the float64 quotient, so that
floor(11 / 1.1) = 10 (the operator `//` says 9, because 1.1 is stored slightly too large).
"""

import torch
from torch import Tensor

Number = int | float


def _rows_and_columns(T: int) -> tuple[Tensor, Tensor]:
    """m [1, T, 1, 1] and n [1, 1, T, 1], float64."""
    tokens = torch.arange(T, dtype=torch.float64)
    return tokens.view(1, T, 1, 1), tokens.view(1, 1, T, 1)


def _causal(p: Tensor, d: Tensor) -> Tensor:
    return torch.where(d >= 0, p, torch.zeros((), dtype=torch.float64))


def plain(T: int) -> Tensor:
    """Plain RoPE: p = m - n. Shape [1, T, T, 1]."""
    m, n = _rows_and_columns(T)
    return _causal(m - n, m - n)


def retained(T: int, tokens: int, factors: Tensor) -> Tensor:
    """LongRoPE's start tokens under a table theta_i / lambda_i (arXiv 2402.13753, section 3.2). Shape [1, T, T, pairs].

    A token before `tokens` has angle n theta_i, any other n theta_i / lambda_i: in units of theta_i / lambda_i, n
    lambda_i and n.
    """
    m, n = _rows_and_columns(T)
    at = [torch.where(one < tokens, one * factors.double(), one) for one in (m, n)]
    return _causal(at[0] - at[1], m - n)


def self_extend(T: int, group: Number, window: Number) -> Tensor:
    """Self-Extend (arXiv 2401.01325), group G and neighbour window w. Shape [1, T, T, 1].

    d < w: p = d.  d >= w: p = floor(m / G) - floor(n / G) + w - floor(w / G).
    """
    m, n = _rows_and_columns(T)
    d = m - n
    remote = torch.floor(m / group) - torch.floor(n / group) + window - int(window / group)
    return _causal(torch.where(d < window, d, remote), d)


def rerope(T: int, window: Number) -> Tensor:
    """ReRoPE (bojone/rerope), window w: p = min(d, w). Shape [1, T, T, 1]."""
    m, n = _rows_and_columns(T)
    return _causal(torch.minimum(m - n, torch.tensor(float(window), dtype=torch.float64)), m - n)


def leaky_rerope(T: int, window: Number, slope: Number) -> Tensor:
    """Leaky ReRoPE (bojone/rerope), window w and divisor k = slope; no floor. Shape [1, T, T, 1].

    d < w: p = d.  d >= w: p = w + (d - w) / k.
    """
    m, n = _rows_and_columns(T)
    d = m - n
    return _causal(torch.where(d < window, d, window + (d - window) / slope), d)


def dpe(T: int, scales: Tensor, window: Number) -> Tensor:
    """DPE, window w and one scale s per rotary pair (a pair that a head's key-dimension mask leaves out has s = 1).

    d < w: p_i = d.  d >= w: p_i = floor(m / s_i) - floor(n / s_i) + w - floor(w / s_i).

    Args:    scales: [pairs] or [heads, pairs], may be fractional.
    Returns: [1, T, T, pairs] or [heads, T, T, pairs].
    """
    m, n = _rows_and_columns(T)
    d = m - n
    s = scales.to(torch.float64)
    s = s.view(1, 1, 1, -1) if s.dim() == 1 else s[:, None, None, :]
    remote = torch.floor(m / s) - torch.floor(n / s) + window - torch.floor(window / s)
    return _causal(torch.where(d < window, d, remote), d)


def string(T: int, shift: Number, window: Number) -> Tensor:
    """STRING (arXiv 2410.18745), shift S and local value W. Shape [1, T, T, 1].

    d < S: p = d.  d >= S: p = d - S + W.
    The authors' prefill counts d = S twice; here it is counted once, in the shifted region.
    """
    m, n = _rows_and_columns(T)
    d = m - n
    return _causal(torch.where(d < shift, d, d - shift + window), d)


def dca(T: int, chunk: int, window: int) -> Tensor:
    """Dual Chunk Attention (arXiv 2402.17463), chunk s (modulus of the key positions), window w. Shape [1, T, T, 1].

    Keys stand at n mod s everywhere. With D = floor(m / s) - floor(n / s) and C = s + w, the cap of the authors' code
    (the paper's is one less):
    D = 0 (intra):      p = m mod s - n mod s
    D = 1 (successive): p = min(s + m mod s, C) - n mod s
    D >= 2 (inter):     p = min(2 s - 1, C) - n mod s
    """
    p = torch.zeros(T, T, dtype=torch.float64)
    cap = chunk + window
    for m in range(T):
        for n in range(m + 1):
            apart = m // chunk - n // chunk
            if apart == 0:
                query_position = m % chunk
            elif apart == 1:
                query_position = min(chunk + m % chunk, cap)
            else:
                query_position = min(2 * chunk - 1, cap)
            p[m, n] = query_position - n % chunk
    return p.view(1, T, T, 1)
