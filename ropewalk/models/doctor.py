"""Does this model work with ropewalk, and which backends can run here?"""

from typing import Any

import torch
from transformers import PreTrainedModel

from ropewalk.attention import BACKENDS
from ropewalk.methods import Unchanged
from ropewalk.models.census import quietly
from ropewalk.models.executors import Banded
from ropewalk.models.huggingface import read_model
from ropewalk.models.identity import compare, run
from ropewalk.models.seam import name_of


def diagnose(model: PreTrainedModel, *, pretrained_length: int | None = None) -> dict[str, Any]:
    """Compare the model with itself through the seam, and try every backend with the identity plan.

    Returns:
        model, dtype, spec figures; `equal` and `max_abs_logit_difference` of the identity through the seam against
        stock eager attention; `backends`: per name `runs`, `reason`, and the largest logit difference of the identity
        plan against the stock model (angles are float64 there, so small differences are expected).
    """
    census, _, seam = read_model(model, pretrained_length, self_test=False)
    spec = census.spec
    plan = Unchanged().plan(spec, spec.pretrained_length)
    with quietly(model):
        stock = run(model, spec)
    backends: dict[str, Any] = {}
    seam.attach()
    try:
        comparison = compare(seam, census)
        for name in BACKENDS:
            reason = BACKENDS.get(name).unsupported(plan, device=model.device, dtype=model.dtype, grad=False)
            backends[name] = {"runs": reason is None, "reason": reason}
            if reason is None:
                seam.executor = Banded(census, lambda batch: [plan] * batch, name, lambda batch: None)
                with quietly(model):
                    difference = (run(model, spec) - stock).abs().max()
                backends[name]["max_abs_logit_difference"] = float(difference)
    finally:
        seam.executor = None
        seam.detach()
    return {
        "model": name_of(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "equal": comparison.equal,
        "max_abs_logit_difference": comparison.difference,
        "largest_logit": comparison.largest,
        "pretrained_length": spec.pretrained_length,
        "pairs": spec.pairs,
        "layout": spec.layout,
        "layers": {kind: spec.layer_kinds.count(kind) for kind in ("full", "sliding", "none")},
        "scaling": spec.scaling,
        "backends": backends,
        "torch": torch.__version__,
    }
