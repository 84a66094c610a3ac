"""The query heads that one of several tensor-parallel processes has, and the part of a plan that is theirs."""

from dataclasses import replace

from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ropewalk.errors import ModelError
from ropewalk.grid import Grid
from ropewalk.plan import Band, Plan, PositionMap

Share = tuple[int, int]  # rank and ranks: the rank-th of equal parts of the query heads
WHOLE: Share = (0, 1)


def share_of(model: PreTrainedModel, heads: int) -> Share:
    """The part of the query heads that this process was seen to have.

    Args:
        heads: query heads that arrived at the attention function here.

    Raises:
        ModelError: transformers split the model over processes, and the heads in another way than evenly.
    """
    ranks = model.tp_size or 1
    whole = getattr(model.config.get_text_config(), "num_attention_heads", heads)
    if ranks == 1 or heads == whole:
        return WHOLE
    if heads * ranks != whole:
        raise ModelError(
            f"{model.config.model_type} cannot be extended as it is split: {heads} of its {whole} query heads are on "
            f"one of {ranks} processes; take a number of processes that divides its heads"
        )
    mesh = next(weight.device_mesh for weight in model.parameters() if isinstance(weight, DTensor))
    return (mesh if mesh.ndim == 1 else mesh["tp"]).get_local_rank(), ranks


def own_heads(plan: Plan, share: Share) -> Plan:
    """The plan for one process's share of the query heads; parameters that all heads have in common stay."""
    rank, ranks = share

    def part(grid: Grid) -> Grid:
        heads = grid.array.shape[1]
        if heads == 1:
            return grid
        assert heads % ranks == 0, "heads are split evenly"
        own = heads // ranks
        return Grid(grid.array[:, rank * own : (rank + 1) * own])

    def of(to: PositionMap) -> PositionMap:
        return replace(to, scale=part(to.scale), offset=part(to.offset))

    if ranks == 1:
        return plan
    return replace(plan, bands=tuple(Band(band.region, of(band.query), of(band.key)) for band in plan.bands))
