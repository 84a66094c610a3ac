"""The method that changes nothing: the stock model, or the stock model with a logit or log-n query scale."""

from dataclasses import dataclass
from typing import ClassVar

from ropewalk.methods.base import METHODS, Method


@METHODS.register("none")
@dataclass(frozen=True, kw_only=True)
class Unchanged(Method):
    """none: the model as it is, the baseline of every comparison.

    p = m - n and the model's own table. With `logit_scale` or `log_n` only the logits change.
    """

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = "arXiv 2104.09864"
    bibtex = """@article{su2021roformer, title={{RoFormer}: Enhanced Transformer with Rotary Position Embedding},
  author={Su, Jianlin and Lu, Yu and Pan, Shengfeng and others}, journal={arXiv:2104.09864}, year={2021}}"""
    kind = "both"
