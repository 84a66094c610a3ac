"""The backends of variable-length kernels, over an emulator of what the kernels promise, against the reference."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.attention import BACKENDS, Inputs, base, choose
from ropewalk.attention.aten import Aten
from ropewalk.attention.caller import absent
from ropewalk.attention.calls import call_of, parts, window_of
from ropewalk.attention.ragged import Ragged
from ropewalk.attention.rotated import RotatedKeys
from ropewalk.attention.varlen import WANTED, TorchVarlen
from ropewalk.errors import BackendError
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Region
from tests.attention.test_gradients import METHODS, SPEC, error, plan_of
from tests.attention.varlen_emulator import (
    CONVENTIONS,
    EmulatedFlash,
    EmulatedVarlen,
    FlashModule,
    Operators,
    TorchModule,
)
from tests.attention.varlen_emulator import emulated as emulated_backends
from tests.contract.test_backends import cast, like, make_inputs
from tests.tolerances import assert_near

TOTAL = 333
EMULATED = emulated_backends()
CPU = torch.device("cpu")
every_name = pytest.mark.parametrize("name", METHODS)


@st.composite
def regions(draw) -> Region:
    chunk = draw(st.just(1) | st.integers(2, 12))
    lo = draw(st.just(0) | st.integers(0, 30 if chunk == 1 else 4))
    hi = draw(st.none() | st.integers(1, 30 if chunk == 1 else 4).map(lambda extra: lo + extra))
    return Region(lo, hi, chunk)


@given(region=regions(), past=st.integers(0, 40), new=st.integers(1, 40))
def test_parts_and_their_window_hold_each_pair_of_a_region_once(region, past, new) -> None:
    total = past + new
    count = torch.zeros(total, total, dtype=torch.int64)
    for part in parts(region, past, total):
        m, n = torch.arange(part.start, part.stop)[:, None], torch.arange(part.first, part.last)[None, :]
        place = m - part.stop + part.last  # the last query is at the last key
        left, right = window_of(region, single=part.stop - part.start == 1)
        inside = ((left < 0) | (n >= place - left)) & ((right < 0) | (n <= place + right))
        count[part.start : part.stop, part.first : part.last] += inside.long()
    m, n = torch.arange(total)[:, None], torch.arange(total)[None, :]
    assert torch.equal(count, (region.contains(m, n) & (m >= past)).long())


def assert_is_reference(backend: Ragged, inputs: Inputs, plan, spec=SPEC) -> None:
    wanted = BACKENDS.get("reference").attend(like(inputs, rows=None), plan, spec, 0)
    for left, right in zip(backend.attend(inputs, plan, spec, 0), wanted, strict=True):
        assert_near(left, right, "varlen", torch.float32)


@pytest.mark.parametrize("empty", CONVENTIONS.values(), ids=CONVENTIONS)
@pytest.mark.parametrize("new", [TOTAL, 77, 2, 1])
@pytest.mark.parametrize("library", EMULATED)
@every_name
def test_output_and_logsumexp_are_those_of_the_reference(name, library, new, empty) -> None:
    caller = EmulatedVarlen(TorchModule(empty)) if library == "varlen" else EmulatedFlash(FlashModule(empty))
    inputs = make_inputs(SPEC, total=TOTAL, new=new, batch=2, width=20, sinks=torch.linspace(-1, 2, 4))
    assert_is_reference(Ragged(library, caller), cast(inputs, torch.float32), plan_of(name, log_n=64))


@pytest.mark.parametrize("library", EMULATED)
@every_name
def test_gradients_are_those_of_the_reference(name, library) -> None:
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=200, batch=2, sinks=torch.linspace(-1, 2, 4)), torch.float32)
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]

    def gradients(backend):
        output, _ = backend.attend(inputs, plan_of(name, log_n=64), SPEC, 0)
        return torch.autograd.grad(output.double().sin().sum(), leaves)

    for left, right in zip(gradients(EMULATED[library]), gradients(BACKENDS.get("reference")), strict=True):
        assert error(left, right) < 1e-5


@pytest.mark.parametrize("new", [TOTAL, 3])
def test_soft_caps_are_those_of_the_reference_and_refused_by_torch(new) -> None:
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=new, softcap=2.0), torch.float32)
    assert_is_reference(EMULATED["flash"], inputs, plan_of("dpe"))
    assert EMULATED["varlen"].refuses(inputs) == "it caps no logits"


@pytest.mark.parametrize("new", [TOTAL, 1])
def test_masks_per_head_are_those_of_the_reference(new) -> None:
    mask = Grid(torch.rand(2, 4, 16, generator=torch.Generator().manual_seed(0)).numpy() < 0.5)
    plan = DPE(window=130, scales=(3.0, 1.0, 7.5, 9.0), mask=mask).plan(SPEC, 1024)
    assert_is_reference(EMULATED["varlen"], cast(make_inputs(SPEC, total=TOTAL, new=new), torch.float32), plan)


PADDED = {
    "left": ((40, 333), (0, 333), (299, 333)),
    "right": ((0, 333), (0, 60), (0, 290)),
    "both": ((3, 9), (100, 333)),
}


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("side", "new"), [("left", TOTAL), ("left", 40), ("left", 1), ("right", TOTAL), ("both", 300)])
@every_name
def test_padded_rows_in_one_call_are_the_rows_alone(name, side, new, grad) -> None:
    """Padding holds NaN, which must reach nothing."""
    rows, plan, backend = PADDED[side], plan_of(name, log_n=64), EMULATED["varlen"]
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=new, batch=len(rows)), torch.float32)
    past = TOTAL - new
    for row, (first, last) in enumerate(rows):
        for x, shift in ((inputs.key, 0), (inputs.value, 0), (inputs.query, past)):
            x[row, :, : max(0, first - shift)] = x[row, :, max(0, last - shift) :] = torch.nan
    leaves = [x.requires_grad_(grad) for x in (inputs.query, inputs.key, inputs.value)]
    output, lse = backend.attend(like(inputs, rows=rows), plan, SPEC, 0)
    for row, (first, last) in enumerate(rows):
        queries, keys = slice(max(0, first - past), max(0, last - past)), slice(first, last)
        seen = torch.zeros(new, dtype=torch.bool)
        seen[queries] = True
        assert not output[row, :, ~seen].any() and bool(torch.isneginf(lse[row, :, ~seen]).all())
        if not seen.any():
            continue
        alone = Inputs(
            inputs.query[row, None, :, queries],
            inputs.key[row, None, :, keys],
            inputs.value[row, None, :, keys],
            inputs.scaling,
        )
        wanted, wanted_lse = BACKENDS.get("reference").attend(alone, plan, SPEC, 0)
        assert_near(output[row, None, :, queries], wanted, "varlen", torch.float32)
        assert_near(lse[row, None, :, queries], wanted_lse, "varlen", torch.float32)
        if grad:
            ours, theirs = (
                torch.autograd.grad(x.sin().sum(), leaves, retain_graph=True) for x in (output[row, :, queries], wanted)
            )
            for left, right in zip(ours, theirs, strict=True):
                assert error(left[row].nan_to_num(), right[row].nan_to_num()) < 1e-5


@pytest.mark.parametrize("new", [60, 1])
@every_name
def test_keys_that_a_cache_holds_rotated_are_read_where_they_lie(name, new) -> None:
    plan, backend = plan_of(name), EMULATED["varlen"]
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=new, batch=2), torch.float32)
    held = RotatedKeys(inputs.key[:, :, :-new], 1, plan, spec=SPEC, layer=0, origins=[0, 0], tables=backend.tables)
    held.append(inputs.key[:, :, -new:])
    room = torch.full((2, 2, held.whole.size, 32), torch.nan)
    room[:, :, :TOTAL] = inputs.value
    given = like(
        inputs,
        key=torch.full_like(inputs.key, torch.nan),
        value=room[:, :, :TOTAL],
        rotated=held.part(slice(None), slice(0, TOTAL)),
    )
    wanted = BACKENDS.get("reference").attend(inputs, plan, SPEC, 0)
    for left, right in zip(backend.attend(given, plan, SPEC, 0), wanted, strict=True):
        assert_near(left, right, "varlen", torch.float32)


def test_a_step_of_decoding_copies_no_long_memory(monkeypatch) -> None:
    """Under one key map, keys and values of a cache are handed over as they lie."""
    plan, seen = plan_of("string"), []
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=1, batch=2), torch.float32)
    (to,) = {band.key for band in plan.bands}
    room = torch.randn(2, 2, 2, TOTAL + 50, 32)
    caller = EmulatedVarlen(TorchModule())
    forward = caller.forward
    monkeypatch.setattr(caller, "forward", lambda q, k, v, *rest: seen.append((k, v)) or forward(q, k, v, *rest))
    given = like(inputs, value=room[1, :, :, :TOTAL], rotated={to: room[0, :, :, :TOTAL]})
    Ragged("varlen", caller).attend(given, plan, SPEC, 0)
    assert len(seen) == len(plan.bands)
    assert all(x.data_ptr() == room[i].data_ptr() for pair in seen for i, x in enumerate(pair))


def test_places_are_exact_beside_a_row_without_queries() -> None:
    """Beyond 2^24 not every whole number is one of single precision."""
    gap = 2**24 + 1
    call = call_of(Region(), ((0, gap), (0, 0)), 1, gap, 3, gap, CPU, gap)
    assert call.starts_k.tolist() == [0, gap, 2 * gap, 6 * gap]
    assert call.used_k.tolist() == [gap] * 3 and call.longest_k == gap


def test_signatures_are_read_once(monkeypatch) -> None:
    read, backend = [], Ragged("varlen", EmulatedVarlen(TorchModule()))
    signature = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda x: read.append(x) or signature(x))
    for _ in range(3):
        assert backend.unsupported(plan_of("dpe"), device=CPU, dtype=torch.float32, grad=True) is None
    assert len(read) == 2  # forward and backward


def test_one_step_needs_one_call_for_all_layers() -> None:
    call_of.cache_clear()
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=1), torch.float32)
    for layer in range(5):
        EMULATED["varlen"].attend(inputs, plan_of("dpe"), SPEC, layer)
    assert call_of.cache_info().misses == 2


@pytest.mark.parametrize("heads_first", [True, False])
def test_logsumexp_is_read_in_the_order_that_is_found(heads_first) -> None:
    inputs = cast(make_inputs(SPEC, total=2, new=2), torch.float32)  # as many queries as heads: shapes tell nothing
    backend = Ragged("varlen", EmulatedVarlen(TorchModule(heads_first=heads_first)))
    assert_is_reference(backend, inputs, parse("none").plan(SPEC, 64))


def test_emulator_has_the_signature_of_torch() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="torch has no varlen_attn")
    if absent(varlen, "varlen_attn", WANTED) is not None:
        pytest.skip("this torch is called by its operators")
    ours = {"varlen_attn": TorchModule().varlen_attn, "backward": TorchModule()._varlen_attn_backward}
    theirs = {"varlen_attn": varlen.varlen_attn, "backward": varlen._varlen_attn_backward._init_fn}
    for name, function in ours.items():
        known = inspect.signature(theirs[name]).parameters
        assert list(inspect.signature(function).parameters) == list(known)
        assert [p.kind for p in inspect.signature(function).parameters.values()] == [p.kind for p in known.values()]


@pytest.mark.parametrize("name", ["dpe", "dca"])
def test_a_torch_of_less_is_called_by_its_operators(name) -> None:
    plan, backend = plan_of(name), Ragged("varlen", EmulatedVarlen(Aten(Operators())))
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=200, batch=2), torch.float32)
    assert backend.unsupported(plan, device=CPU, dtype=torch.float32, grad=True) is None
    assert_is_reference(backend, inputs, plan)
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]
    ours, theirs = (
        torch.autograd.grad(x.attend(inputs, plan, SPEC, 0)[0].double().sin().sum(), leaves)
        for x in (backend, BACKENDS.get("reference"))
    )
    assert all(error(left, right) < 1e-5 for left, right in zip(ours, theirs, strict=True))


def test_torch_is_searched_for_the_module_and_then_for_the_operators(monkeypatch) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="torch has no varlen_attn")
    for name in ("varlen_attn", "_varlen_attn_backward"):  # those of torch 2.12
        monkeypatch.setattr(varlen, name, getattr(TorchModule(), name), raising=False)
    found = TorchVarlen()
    assert found.missing(grad=True) is None and found._library is varlen

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux, scale, window_size): ...

    monkeypatch.setattr(varlen, "varlen_attn", older)
    found = TorchVarlen()
    assert found.missing(grad=True) is None and isinstance(found._library, Aten)
    monkeypatch.setattr(Aten, "lacking", lambda self: "_flash_attention_forward has no seqused_k")
    wanted = "varlen_attn has no enable_gqa, seqused_k, and _flash_attention_forward has no seqused_k; torch 2.12 has"
    assert wanted in TorchVarlen().missing(grad=False)


def test_what_operators_lack_is_said() -> None:
    class Nothing: ...

    assert Aten(Nothing()).lacking() == "there is no _flash_attention_forward"

    class Others:
        _flash_attention_forward = torch.ops.aten._flash_attention_backward

    assert Aten(Others()).lacking() == "_flash_attention_forward has no seqused_k"


def test_what_cannot_run_is_said() -> None:
    plan = plan_of("dpe")

    def reason(backend: Ragged, *, device=CPU, dtype=torch.float32, grad=False, of=plan):
        return backend.unsupported(of, device=device, dtype=dtype, grad=grad)

    for name in ("varlen", "flash"):
        assert reason(BACKENDS.get(name)) == "it runs on CUDA, not on 'cpu'"
        cuda = {"device": torch.device("cuda"), "dtype": torch.float32}
        assert reason(BACKENDS.get(name), **cuda) == "it computes in float16 and bfloat16, not in float32"
    assert reason(EMULATED["varlen"], of=plan.mirrored()) == "tokens see later ones"

    class Old:
        def varlen_attn(
            self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None
        ): ...

        def _flash_attn_varlen_forward(self, q, k, v, softmax_scale, causal, window_size_left, window_size_right): ...

    old = reason(Ragged("varlen", EmulatedVarlen(Old())))
    assert "varlen_attn has no scale, window_size, enable_gqa, seqused_k; torch 2.12 has what is wanted" in old
    old = reason(Ragged("flash", EmulatedFlash(Old())))
    assert old == "flash-attn: _flash_attn_varlen_forward has no softcap, seqused_k; flash-attn 2.7 has what is wanted"

    class Forward(TorchModule):
        _varlen_attn_backward = None

    forward = Ragged("varlen", EmulatedVarlen(Forward()))
    assert reason(forward) is None and "no _varlen_attn_backward" in reason(forward, grad=True)


def test_gpus_before_flash_attention_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    cuda = {"device": torch.device("cuda"), "dtype": torch.float16, "grad": False}
    assert "compute capability 8.0" in BACKENDS.get("varlen").unsupported(plan_of("dpe"), **cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert BACKENDS.get("varlen").unsupported(plan_of("dpe"), **cuda) is None


def test_what_is_refused_of_the_inputs_is_said() -> None:
    inputs, backend = make_inputs(SPEC, total=9, new=9), EMULATED["varlen"]
    assert backend.refuses(inputs) is None
    assert "gaps" in backend.refuses(like(inputs, positions=torch.arange(9)))
    assert "wider" in backend.refuses(make_inputs(SPEC, total=9, new=9, width=40))
    narrow, wide = (like(inputs, query=inputs.query.new_zeros(1, 4, 9, width)) for width in (36, 256))
    assert "36 columns, not a multiple of 8 up to 256" in backend.refuses(narrow)
    assert backend.refuses(wide) is None
    trained = like(wide, query=wide.query.requires_grad_(), sinks=torch.zeros(4))
    assert "256 columns, not a multiple of 8 up to 248" in backend.refuses(trained)


def test_auto_takes_the_next_backend_for_inputs_that_one_refuses(monkeypatch) -> None:
    monkeypatch.setattr(base, "ORDER", ("varlen", "blockwise"))
    monkeypatch.setattr(BACKENDS.get("varlen"), "_caller", EmulatedVarlen(TorchModule()))
    here = {"device": CPU, "dtype": torch.float32}
    plain = cast(make_inputs(SPEC, total=9, new=9), torch.float32)
    capped = like(plain, softcap=2.0)
    assert choose("auto", plan_of("dpe"), inputs=plain, **here).name == "varlen"
    assert choose("auto", plan_of("dpe"), inputs=capped, **here).name == "blockwise"
    with pytest.raises(BackendError, match="'varlen' cannot run this: it caps no logits"):
        choose("varlen", plan_of("dpe"), inputs=capped, **here)


def test_flash_attn_of_other_results_is_refused() -> None:
    inputs = cast(make_inputs(SPEC, total=9, new=9), torch.float32)
    with pytest.raises(BackendError, match=r"flash-attn returned 8 results, wanted the 4"):
        Ragged("flash", EmulatedFlash(FlashModule(results=8))).attend(inputs, plan_of("dpe"), SPEC, 0)
