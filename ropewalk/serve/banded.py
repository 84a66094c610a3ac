"""A vLLM attention backend with bands: un-rotated queries and keys arrive, pages hold what the bands ask for."""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.models.utils import extract_layer_index
from vllm.utils.torch_utils import get_dtype_size
from vllm.v1.attention.backend import AttentionImpl, AttentionMetadataBuilder, AttentionType, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheLayout

from ropewalk.attention.base import Backend
from ropewalk.attention.tables import Tables
from ropewalk.errors import ModelError
from ropewalk.models.heads import own_heads
from ropewalk.serve.batch import Batch, Layer, attend
from ropewalk.serve.pages import Pages, key_maps
from ropewalk.serve.plugin import require_same
from ropewalk.serve.served import Served

TABLES = Tables()  # cos and sin, shared by the layers of a process


def banded(now: Served, stock: type, core: Backend, name: str) -> type:
    """The backend class of the engine that is being built.

    Args:
        now: what it runs.
        stock: vLLM's own backend for the device, for all that is not said here.
        core: carries plans out.
        name: a member of vLLM's AttentionBackendEnum.
    """
    rotated = now.setting.keys == "rotated" and core.tables is not None
    said = {"now": now, "core": core, "rotated": rotated, "get_name": staticmethod(lambda: name)}
    return type("BandedBackend", (Banded, stock), said)


class Banded:
    """What vLLM asks of a backend, mixed in before one of its own.

    Attributes:
        now: what the engine runs.
        core: carries plans out.
        rotated: pages hold rotated keys, where that can be.
    """

    now: ClassVar[Served]
    core: ClassVar[Backend]
    rotated: ClassVar[bool]
    forward_includes_kv_cache_update = True
    supported_kv_cache_dtypes: ClassVar[list[Any]] = ["auto", "float16", "bfloat16", "float32"]

    @classmethod
    def copies(cls) -> int:
        """Copies of each key in a page."""
        return max(1, len(key_maps(cls.now.plan, rotated=cls.rotated)))

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> AttentionSpec:
        """As much room for each token as its copies and its value take."""
        width = get_dtype_size(spec.dtype) * spec.head_size
        return replace(spec, state_content_bytes=(cls.copies() + 1) * width)

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        """Preferred: a head's neighbouring blocks are one piece of memory, so that a request's keys are a view."""
        return (KVCacheLayout.LHBNC, KVCacheLayout.LBHNC)

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return bool(attn_type == AttentionType.DECODER)

    @classmethod
    def supports_non_causal(cls) -> bool:
        return False

    @classmethod
    def get_impl_cls(cls) -> type["BandedImpl"]:
        require_same(cls.now.setting)
        return type("BandedImpl", (BandedImpl,), {"engine": cls})

    @staticmethod
    def get_builder_cls() -> type["BatchBuilder"]:
        return BatchBuilder


class BatchBuilder(AttentionMetadataBuilder[Any]):
    """Makes the batch of a step, once for all layers."""

    def __init__(self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: Any, device: Any) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> Batch:
        common = common_attn_metadata
        return Batch.of(
            common.query_start_loc_cpu[: common.num_reqs + 1],
            common.seq_lens[: common.num_reqs],
            common.block_table_tensor,
            common.slot_mapping,
            self.kv_cache_spec.block_size,
        )


class BandedImpl(AttentionImpl[Any]):
    """Attention of one layer."""

    engine: ClassVar[type[Banded]]

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
    ) -> None:
        told = {
            "linear position biases (ALiBi)": alibi_slopes is not None,
            f"{attn_type} attention": attn_type != AttentionType.DECODER,
            "layers that share the keys of another": kv_sharing_target_layer_name is not None,
        }
        for reason, holds in told.items():
            if holds:
                raise ModelError(f"ropewalk's vLLM plug-in cannot run a model with {reason}; run it without ropewalk")
        if "sliding" not in self.engine.now.spec.layer_kinds:
            self.engine.now.require_reach(sliding_window)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.window = sliding_window
        self.softcap = logits_soft_cap or None
        self.sinks = sinks
        self.kv_cache_dtype = kv_cache_dtype
        self._layer: Layer | None = None

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Batch | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attention of a step's tokens, [T, H, D] into `output`; nothing while the engine warms up."""
        if attn_metadata is None:
            return output
        if self._layer is None:
            self._layer = self._read(extract_layer_index(layer.layer_name))
        new = attn_metadata.starts[-1]
        pages = Pages(kv_cache, self.head_size)
        output[:new] = attend(attn_metadata, self._layer, query[:new], key[:new], value[:new], pages, TABLES)
        return output

    def _read(self, number: int) -> Layer:
        engine = self.engine
        rank, ranks = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        plan = own_heads(engine.now.layer_plan(number, self.window), (rank, ranks))
        maps = key_maps(plan, rotated=engine.rotated)
        assert len(maps) <= engine.copies()
        return Layer(number, engine.core, plan, engine.now.spec, maps, self.scale, self.softcap, self.sinks)
