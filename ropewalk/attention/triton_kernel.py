"""A step of decoding as Triton kernels: un-rotated keys, turned where they are read, and a merge of the splits.

Keys are cut into tiles. With n0 the first token of a tile, theta (a(m) - b(n)) = theta (a(m) - b(n0)) - theta (b(n) -
b(n0)). The first term turns the queries, once for a tile; the second one turns the keys, by a table of `TILE` rows for
all tiles. Which of them a key takes is read from a table of bytes (`stepped.Stepped`), because b(n) = floor(n / s) is
no sum of a part for the tile and a part within it.

Where query heads of a group turn their key differently, every rotary pair has one of two turns. The key is turned by
both, and each head's query is zero where the other one holds; the two dot products add up.

Names in capitals are known when a kernel is compiled.
"""

# Arguments of kernels are pointers, scalars and blocks of their language, which have no annotations but `constexpr`.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, misc"

import triton
import triton.language as tl

NO_BAND = tl.constexpr(2**30)  # beyond all tokens


@triton.jit
def _turn(first, second, cos, sin):
    return first * cos - second * sin, second * cos + first * sin


@triton.jit
def _band_query(q1, q2, m, turns, cols, real, TILE: tl.constexpr, PAIRS: tl.constexpr):
    """Turn queries [ROWS, pairs] by their positions m [ROWS]."""
    base_cos, base_sin, turn_cos, turn_sin, steps = turns
    at = (m // TILE)[:, None] * PAIRS + cols[None, :]
    q1, q2 = _turn(q1, q2, tl.load(base_cos + at, real[None, :], 0.0), tl.load(base_sin + at, real[None, :], 0.0))
    if steps is None:
        row = (m % TILE)[:, None]
    else:
        row = tl.load(steps + m[:, None].to(tl.int64) * PAIRS + cols[None, :], real[None, :], 0).to(tl.int32)
    at = row * PAIRS + cols[None, :]
    return _turn(q1, q2, tl.load(turn_cos + at, real[None, :], 0.0), tl.load(turn_sin + at, real[None, :], 0.0))


@triton.jit
def _scores(
    scores,
    q1,
    q2,
    k1,
    k2,
    turns,
    tile,
    n,
    inside,
    cols,
    real,
    TILE: tl.constexpr,
    PAIRS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Add the dot products of queries [ROWS, pairs] with the keys [TILE, pairs] of tokens n, turned by their places."""
    base_cos, base_sin, turn_cos, turn_sin, steps = turns
    at = tile * PAIRS + cols
    q1, q2 = _turn(q1, q2, tl.load(base_cos + at, real, 0.0)[None, :], -tl.load(base_sin + at, real, 0.0)[None, :])
    if steps is None:
        row = (n - tile * TILE)[:, None]
    else:
        known = inside[:, None] & real[None, :]
        row = tl.load(steps + n[:, None].to(tl.int64) * PAIRS + cols[None, :], known, 0).to(tl.int32)
    at = row * PAIRS + cols[None, :]
    k1, k2 = _turn(k1, k2, tl.load(turn_cos + at, real[None, :], 0.0), tl.load(turn_sin + at, real[None, :], 0.0))
    scores = tl.dot(q1.to(DTYPE), tl.trans(k1.to(DTYPE)), scores, input_precision="ieee")
    return tl.dot(q2.to(DTYPE), tl.trans(k2.to(DTYPE)), scores, input_precision="ieee")


@triton.jit(do_not_specialize=["total", "tiles"])
def decode(
    query,
    key,
    value,
    tokens,
    partial,
    partial_lse,
    bands,
    scaling,
    turned_scaling,
    log_n,
    kv_heads,
    total,
    tiles,
    query_batch,
    query_head,
    query_token,
    key_batch,
    key_head,
    key_token,
    value_batch,
    value_head,
    value_token,
    GROUP: tl.constexpr,
    NEW: tl.constexpr,
    START: tl.constexpr,
    PAIRS: tl.constexpr,
    APART: tl.constexpr,
    EVERY: tl.constexpr,
    STILL: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE_PAIRS: tl.constexpr,
    WIDE_STILL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One key head of one row of the batch against one split of its tokens.

    Args:
        query: [B, H, NEW, D], un-rotated, D contiguous; NEW the last of `total` slots.
        key: [B, K, S, D], un-rotated, D contiguous.
        value: [B, K, S, WIDTH], contiguous in its last axis.
        tokens: slots [first, last) of every row, int32 [B, 2].
        partial: output over the keys of a split, float32 [B, K, splits, GROUP * NEW, WIDTH].
        partial_lse: its logsumexp to base 2, float32 [B, K, splits, GROUP * NEW]; -inf where no key was seen.
        bands: for each band (lo, hi, chunk); one or two pairs of turns, of the query and of the key; and where the
            second pair holds, int8 [H, PAIRS], or None.
        scaling: of the logits, times log2(e).
        turned_scaling: what the turned columns' part of a logit is multiplied by besides.
        log_n: 1 / ln L for queries that are multiplied by max(1, ln(m + 1) / ln L), else 0.
        tiles: of a split.
        GROUP: query heads that share a key head.
        START: first turned column.
        APART, EVERY: columns from the first to the second one of a pair, and from pair to pair.
        STILL: columns that are not turned.
        ROWS: queries of a program, at least GROUP * NEW.
        WIDE_PAIRS, WIDE_STILL, WIDE: PAIRS, STILL and WIDTH, or the next power of two.
    """
    dtype: tl.constexpr = key.dtype.element_ty
    program, split = tl.program_id(0), tl.program_id(1)
    batch, head = (program // kv_heads).to(tl.int64), (program % kv_heads).to(tl.int64)
    first, last = tl.load(tokens + 2 * batch), tl.load(tokens + 2 * batch + 1)
    length = last - first
    cols, outs = tl.arange(0, WIDE_PAIRS), tl.arange(0, WIDE)
    real, given = cols < PAIRS, outs < WIDTH

    row = tl.arange(0, ROWS)
    new = row % NEW
    query_of = head * GROUP + row // NEW
    m = total - NEW + new - first
    asks = (row < GROUP * NEW) & (m >= 0) & (m < length)
    m = tl.where(asks, m, 0)
    queries = (query + batch * query_batch + query_of * query_head + new * query_token)[:, None]
    here = asks[:, None] & real[None, :]
    factor = tl.maximum(tl.log(m + 1.0) * log_n, 1.0)[:, None]
    pairs = START + cols * EVERY
    q1 = tl.load(queries + pairs[None, :], here, 0.0).to(tl.float32) * (factor * turned_scaling)
    q2 = tl.load(queries + pairs[None, :] + APART, here, 0.0).to(tl.float32) * (factor * turned_scaling)
    if STILL:
        still = tl.arange(0, WIDE_STILL)
        kept = still < STILL
        still = tl.where(still < START, still, still + 2 * PAIRS)
        q3 = (tl.load(queries + still[None, :], asks[:, None] & kept[None, :], 0.0).to(tl.float32) * factor).to(dtype)

    keys = key + batch * key_batch + head * key_head + first.to(tl.int64) * key_token
    values = value + batch * value_batch + head * value_head + first.to(tl.int64) * value_token
    top = tl.full([ROWS], -float("inf"), tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDE], tl.float32)
    for i in tl.static_range(len(bands)):
        region, variants, mask = bands[i]
        lo, hi, chunk = region
        own = m // chunk
        start = tl.where(asks, tl.maximum((own - hi + 1) * chunk, 0), NO_BAND)
        stop = tl.where(asks, tl.minimum((own - lo + 1) * chunk, m + 1), 0)
        begin = tl.maximum(split * tiles, tl.min(start) // TILE)
        end = tl.minimum((split + 1) * tiles, tl.cdiv(tl.max(stop), TILE))
        a1, a2 = _band_query(q1, q2, m, variants[0][0], cols, real, TILE, PAIRS)
        if mask is not None:
            b1, b2 = _band_query(q1, q2, m, variants[1][0], cols, real, TILE, PAIRS)
            second = tl.load(mask + query_of[:, None] * PAIRS + cols[None, :], here, 0) != 0
            a1, a2 = tl.where(second, 0.0, a1), tl.where(second, 0.0, a2)
            b1, b2 = tl.where(second, b1, 0.0), tl.where(second, b2, 0.0)
        for tile in range(begin, end):
            n = tile * TILE + tl.arange(0, TILE)
            inside = n < length
            of_key = keys + n[:, None].to(tl.int64) * key_token
            k1 = tl.load(of_key + pairs[None, :], inside[:, None] & real[None, :], 0.0).to(tl.float32)
            k2 = tl.load(of_key + pairs[None, :] + APART, inside[:, None] & real[None, :], 0.0).to(tl.float32)
            of_value = values + n[:, None].to(tl.int64) * value_token + outs[None, :]
            v = tl.load(of_value, inside[:, None] & given[None, :], 0.0)
            scores = tl.zeros([ROWS, TILE], tl.float32)
            if STILL:
                k3 = tl.load(of_key + still[None, :], inside[:, None] & kept[None, :], 0.0)
                scores = tl.dot(q3, tl.trans(k3), scores, input_precision="ieee")
            scores = _scores(scores, a1, a2, k1, k2, variants[0][1], tile, n, inside, cols, real, TILE, PAIRS, dtype)
            if mask is not None:
                scores = _scores(
                    scores, b1, b2, k1, k2, variants[1][1], tile, n, inside, cols, real, TILE, PAIRS, dtype
                )
            sees = (n[None, :] >= start[:, None]) & (n[None, :] < stop[:, None])
            scores = tl.where(sees, scores * scaling, -float("inf"))
            higher = tl.maximum(top, tl.max(scores, 1))
            level = tl.where(higher == -float("inf"), 0.0, higher)
            weights = tl.exp2(scores - level[:, None])
            faded = tl.exp2(top - level)
            mass = mass * faded + tl.sum(weights, 1)
            out = tl.dot(weights.to(v.dtype), v, out * faded[:, None], input_precision="ieee")
            top = higher

    seen = mass > 0.0
    at = (program * tl.num_programs(1) + split).to(tl.int64) * (GROUP * NEW) + row
    held = row < GROUP * NEW
    out = tl.where(seen[:, None], out / tl.where(seen, mass, 1.0)[:, None], 0.0)
    tl.store(partial + at[:, None] * WIDTH + outs[None, :], out, held[:, None] & given[None, :])
    tl.store(partial_lse + at, tl.where(seen, top + tl.log2(tl.where(seen, mass, 1.0)), -float("inf")), held)


@triton.jit(do_not_specialize=["splits"])
def merge(
    partial,
    partial_lse,
    output,
    lse,
    splits,
    GROUP: tl.constexpr,
    NEW: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One query of one row: output [B, H, NEW, WIDTH] and natural logsumexp [B, H, NEW] over all splits.

    SPLITS is `splits` or the next power of two.
    """
    program, row = tl.program_id(0), tl.program_id(1)
    split, outs = tl.arange(0, SPLITS), tl.arange(0, WIDE)
    at = (program * splits + split).to(tl.int64) * (GROUP * NEW) + row
    parts = tl.load(partial_lse + at, split < splits, -float("inf"))
    top = tl.max(parts)
    level = tl.where(top == -float("inf"), 0.0, top)
    weights = tl.exp2(parts - level)
    mass = tl.sum(weights)
    seen = mass > 0.0
    here = (split < splits)[:, None] & (outs < WIDTH)[None, :]
    each = tl.load(partial + at[:, None] * WIDTH + outs[None, :], here, 0.0)
    out = tl.sum(each * weights[:, None], 0) / tl.where(seen, mass, 1.0)
    place = program.to(tl.int64) * GROUP * NEW + row
    tl.store(output + place * WIDTH + outs, out.to(output.dtype.element_ty), outs < WIDTH)
    total = (level + tl.log2(tl.where(seen, mass, 1.0))) * 0.6931471805599453
    tl.store(lse + place, tl.where(seen, total, -float("inf")))
