"""The norms of rotary pairs as a heat map."""

from pathlib import Path

import numpy as np

from ropewalk.rotary import RotarySpec


def draw_norms(norms: np.ndarray, mask: np.ndarray, spec: RotarySpec, path: str | Path, *, title: str = "") -> None:
    """Save a picture of what `pair_norms` found and `select_keys` made of it.

    Left: the share of every pair in the norms of its layer and head, one row each. Right: in how many of the heads of a
    layer a pair is a key dimension. Layers that are not extended are left out.

    Args:
        norms: [layers, heads, pairs].
        mask: bool [layers, heads or 1, pairs].
        path: file to write; its ending chooses the format (png, pdf, svg).
    """
    from matplotlib.figure import Figure

    layers = [layer for layer, kind in enumerate(spec.layer_kinds) if kind == "full"]
    heads, pairs = norms.shape[1:]
    shares = norms[layers] / norms[layers].sum(-1, keepdims=True)
    chosen = mask[layers].mean(1)
    figure = Figure(figsize=(11, 6), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    # One head with a single strong pair would leave all others black.
    limit = float(np.quantile(shares, 0.99))
    image = left.imshow(shares.reshape(-1, pairs), aspect="auto", cmap="viridis", vmin=0, vmax=limit)
    left.set_yticks([heads * row for row in range(len(layers))], [str(layer) for layer in layers], fontsize=7)
    left.set(title="share of the norms |q||k|", ylabel=f"layer ({heads} heads each)")
    figure.colorbar(image, ax=left, extend="max", location="bottom", shrink=0.7, label="share of a head's norms")
    image = right.imshow(chosen, aspect="auto", cmap="magma", vmin=0, vmax=1)
    right.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=7)
    right.set(title="key dimensions", ylabel="layer")
    figure.colorbar(image, ax=right, location="bottom", shrink=0.7, label="share of the layer's heads")
    beyond = int((spec.wavelengths <= spec.pretrained_length).sum())
    for axis in (left, right):
        axis.set_xlabel("rotary pair, fastest first (dashed: wavelength = trained window)")
        axis.axvline(beyond - 0.5, color="white", ls="--", lw=1)
    figure.suptitle(title or f"{len(layers)} layers, {heads} heads, {pairs} pairs")
    figure.savefig(path)
