"""A step of decoding by a Triton kernel of our own, for plans whose query heads turn a shared key differently.

Other kernels want such keys once for every query head, four times as many bytes for Llama-3. This one reads un-rotated
keys and values once, which is the floor of a step, and turns keys where it reads them. It takes any plan of distance
and chunk bands with steady positions (`stepped.unsteady`), one key map or two, and a few new tokens at once.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import e, log, log2

import torch
from torch import Tensor

from ropewalk.attention.base import BACKENDS, Backend, Inputs, Rows
from ropewalk.attention.stepped import TILE
from ropewalk.attention.triton_bands import Preparer
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

DTYPES = (torch.float16, torch.bfloat16)
MOST_QUERIES = 32  # of one key head: query heads that share it, times new tokens
MOST_SPLITS = 64
WIDEST = 128  # columns of a head; wider ones leave too little shared memory to read ahead
OLDEST = (8, 0)  # compute capability


@dataclass(frozen=True)
class Chip:
    """What the work of a step is cut for.

    Attributes:
        processors: that run programs beside one another.
        shared: bytes of shared memory that one program may have.
    """

    processors: int
    shared: int

    @classmethod
    @cache
    def of(cls, device: torch.device) -> "Chip":
        from triton.runtime import driver

        index = torch.cuda.current_device() if device.index is None else device.index
        properties = driver.active.utils.get_device_properties(index)
        return cls(properties["multiprocessor_count"], properties["max_shared_mem"])

    @property
    def stages(self) -> int:
        """Of reading ahead: two tiles where there is room for them (112 KiB at a width of 128), else one."""
        return 4 if self.shared >= 120 * 1024 else 3

    def splits(self, heads: int, total: int, warps: int) -> tuple[int, int]:
        """How many splits every key head has, and tiles of a split.

        As many programs as run at once: registers leave room for eight warps of a processor.
        """
        tiles = -(-total // TILE)
        wanted = max(1, min(tiles, MOST_SPLITS, self.processors * (8 // warps) // heads))
        of_split = -(-tiles // wanted)
        return -(-tiles // of_split), of_split


class TritonDecode(Backend):
    """Decode on CUDA where triton is installed; float16 and bfloat16.

    Args:
        chip: what work is cut for; None: the device that the queries are on.
    """

    name = "triton"
    ragged = True

    def __init__(self, chip: Chip | None = None) -> None:
        self._chip = chip
        self._preparer = Preparer()
        self._tokens: tuple[Rows, Tensor] | None = None

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        if device.type != "cuda":
            return f"it runs on CUDA, not on {device.type!r}"
        if torch.version.hip is not None:
            return "it is made for NVIDIA's GPUs"
        if dtype not in DTYPES:
            return f"it computes in float16 and bfloat16, not in {str(dtype).removeprefix('torch.')}"
        if grad:
            return "it has no gradients"
        if not any(band.key.per_head for band in plan.bands):
            return "query heads that share a key turn it alike, and other kernels read it rotated"
        if not _is_there():
            return "triton is not installed"
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST:
            return f"it wants compute capability 8.0 or later, not {capability[0]}.{capability[1]}"
        return self._preparer.refused(plan)

    def refuses(self, inputs: Inputs) -> str | None:
        queries = inputs.query.shape[1] // inputs.key.shape[1] * inputs.query.shape[2]
        if queries > MOST_QUERIES:
            return f"{queries} queries share a key head, more than {MOST_QUERIES}: it is for decoding"
        if inputs.positions is not None:
            return "there are gaps between positions"
        widest = max(inputs.query.shape[3], inputs.value.shape[3])
        if widest > WIDEST:
            return f"heads have {widest} columns, more than {WIDEST}"
        return "it caps no logits" if inputs.softcap is not None else None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        from ropewalk.attention import triton_kernel  # triton is no dependency, and takes a second to load

        chip = self._chip or Chip.of(inputs.query.device)
        query, key, value = (_dense(x) for x in (inputs.query, inputs.key, inputs.value))
        batch, heads, new, _ = query.shape
        kv_heads, total, width = key.shape[1], key.shape[2], value.shape[3]
        group = heads // kv_heads
        warps = 4 if max(spec.head_dim, width) <= 64 else 8
        splits, tiles = chip.splits(batch * kv_heads, total, warps)
        half = spec.layout == "half"
        partial = query.new_empty(batch, kv_heads, splits, group * new, width, dtype=torch.float32)
        partial_lse = query.new_empty(batch, kv_heads, splits, group * new, dtype=torch.float32)
        output, lse = query.new_empty(batch, heads, new, width), partial_lse.new_empty(batch, heads, new)
        with torch.cuda.device_of(query):  # triton launches on the current device
            triton_kernel.decode[batch * kv_heads, splits](
                query,
                key,
                value,
                self._slots(inputs.rows or ((0, total),) * batch, query.device),
                partial,
                partial_lse,
                self._preparer.bands(plan, layer, total, query.device),
                inputs.scaling * plan.logit_scale * log2(e),
                plan.table.attention_scaling**2,
                0.0 if plan.log_n is None else 1 / log(plan.log_n),
                kv_heads,
                total,
                tiles,
                *query.stride()[:3],
                *key.stride()[:3],
                *value.stride()[:3],
                GROUP=group,
                NEW=new,
                START=spec.rotary_start,
                PAIRS=spec.pairs,
                APART=spec.pairs if half else 1,
                EVERY=1 if half else 2,
                STILL=spec.head_dim - spec.rotary_dim,
                WIDTH=width,
                ROWS=_wide(group * new),
                TILE=TILE,
                WIDE_PAIRS=_wide(spec.pairs),
                WIDE_STILL=_wide(spec.head_dim - spec.rotary_dim),
                WIDE=_wide(width),
                num_warps=warps,
                num_stages=chip.stages,
                enable_fp_fusion=True,
            )
            triton_kernel.merge[batch * kv_heads, group * new](
                partial,
                partial_lse,
                output,
                lse,
                splits,
                GROUP=group,
                NEW=new,
                WIDTH=width,
                SPLITS=1 << (splits - 1).bit_length(),
                WIDE=_wide(width),
            )
        if inputs.sinks is not None:
            output = (output * torch.sigmoid(lse - inputs.sinks.float()[:, None])[..., None]).to(query.dtype)
        return output, lse

    def _slots(self, rows: Rows, device: torch.device) -> Tensor:
        """The rows on the device, int32 [B, 2]; copied once for all layers of a step."""
        if self._tokens is None or self._tokens[0] != rows or self._tokens[1].device != device:
            self._tokens = (rows, torch.tensor(rows, dtype=torch.int32, device=device))
        return self._tokens[1]


@cache
def _is_there() -> bool:
    return find_spec("triton") is not None


def _wide(count: int) -> int:
    """The power of two that holds them, at least 16: what a matrix product takes."""
    return max(16, 1 << max(0, count - 1).bit_length())


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


BACKENDS.register("triton")(TritonDecode())
