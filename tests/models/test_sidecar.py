"""An extension that is saved comes back the same, in another process too; without ropewalk only a table runs."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM

import ropewalk
from ropewalk.errors import ModelError
from ropewalk.grid import Grid
from ropewalk.methods import DPE
from ropewalk.models import sidecar
from ropewalk.models.loading import load_model
from ropewalk.profile import Fingerprint, Profile
from tests.architectures import PRETRAINED_LENGTH, WORKS
from tests.models.saved import FAMILIES, TARGET, content, logits, save_base

METHODS = ("dpe", "yarn", "self-extend+yarn-paper", "dynamic-ntk")
KINDS = ("sidecar", "full")

READ = """
import sys
from pathlib import Path
import ropewalk, safetensors.torch
from tests.models.saved import logits
found = {}
for folder in map(Path, sys.argv[2:]):
    model, tokenizer, extension = ropewalk.from_pretrained(folder)
    found[f"{folder.parent.name}/{folder.name}"] = logits(model).contiguous()
    assert tokenizer.convert_tokens_to_ids("b") == 2
safetensors.torch.save_file(found, sys.argv[1])
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny Llama in a folder."""
    return save_base(tmp_path_factory.mktemp("llama") / "base", "llama")


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """Logits of every family, method and kind of folder: as saved here, and as read in one other process."""
    root = tmp_path_factory.mktemp("round-trip")
    here, folders = {}, []
    for family in FAMILIES:
        place = save_base(root / family / "base", family)
        model, tokenizer = load_model(str(place))
        for number, method in enumerate(METHODS):
            with ropewalk.extend(model, method, target_length=TARGET) as extension:
                expected = logits(model)
                for kind in KINDS:
                    folder = root / family / f"{kind}-{number}"
                    ropewalk.save(extension, folder, full=kind == "full", tokenizer=tokenizer)
                    folders.append(folder)
                    here[f"{family}/{folder.name}"] = expected
    file = root / "logits.safetensors"
    command = [sys.executable, "-c", READ, str(file), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return root, here, safetensors.torch.load_file(file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(METHODS)), ids=METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_second_process_gives_equal_logits(round_trip, family, number, kind) -> None:
    _, here, there = round_trip
    name = f"{family}/{kind}-{number}"
    assert torch.equal(here[name], there[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_sidecar_holds_no_model_and_leaves_the_base_alone(round_trip, family) -> None:
    root, _, _ = round_trip
    assert set(content(root / family / "sidecar-0")) == {"ropewalk_config.json", "plan.json"}
    fresh = save_base(root / f"{family}-again", family)
    assert content(fresh) == content(root / family / "base")


@pytest.mark.parametrize("family", FAMILIES)
def test_full_folder_of_a_table_runs_in_stock_transformers(round_trip, family) -> None:
    root, here, _ = round_trip
    folder = root / family / f"full-{METHODS.index('yarn')}"
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = here[f"{family}/{folder.name}"]
    assert (logits(stock) - expected).norm() < 1e-5 * expected.norm()  # 256 tokens of angles in float32
    assert stock.config.max_position_embeddings == TARGET
    written = json.loads((folder / "config.json").read_text())
    assert written["rope_parameters"]["rope_type"] == written["rope_scaling"]["type"] == "yarn"
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == TARGET


@pytest.mark.parametrize("number", [0, 2, 3], ids=[METHODS[0], METHODS[2], METHODS[3]])
@pytest.mark.parametrize("family", FAMILIES)
def test_full_folder_of_another_method_is_refused_without_ropewalk(round_trip, family, number) -> None:
    root, _, _ = round_trip
    folder = root / family / f"full-{number}"
    own_class = getattr(transformers, type(WORKS[family]()).__name__)
    for loader in (AutoModelForCausalLM, AutoModel, own_class):
        with pytest.raises(KeyError, match=r"load this folder with ropewalk\.from_pretrained"):
            loader.from_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    assert written["max_position_embeddings"] == PRETRAINED_LENGTH
    assert written["architectures"] == [f"Ropewalk{own_class.__name__}"]
    assert written["rope_scaling"]["type"] == sidecar.REFUSAL


@pytest.mark.parametrize("family", WORKS)
def test_no_family_is_built_from_a_refusing_configuration(family) -> None:
    config = WORKS[family]().config
    with pytest.raises((KeyError, huggingface_hub.errors.StrictDataclassError)), torch.device("meta"):
        AutoModelForCausalLM.from_config(type(config).from_dict(sidecar.refusing(config.to_dict())))


def test_family_that_would_run_quietly_is_not_saved_in_full(base, tmp_path, monkeypatch) -> None:
    model, tokenizer = load_model(str(base))
    monkeypatch.setattr(sidecar, "refusing", lambda config: config | {"architectures": ["Other"]})
    with (
        ropewalk.extend(model, "dpe", target_length=TARGET) as extension,
        pytest.raises(ModelError, match="save it without full=True"),
    ):
        ropewalk.save(extension, tmp_path / "full", full=True, tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_full_folder_of_a_method_that_changes_nothing_keeps_the_configuration(base, tmp_path) -> None:
    model, tokenizer = load_model(str(base))
    with ropewalk.extend(model, "none") as extension:
        ropewalk.save(extension, tmp_path / "full", full=True, tokenizer=tokenizer)
    left, right = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "full"))
    assert left == right


def test_full_folder_loads_over_another_base_when_asked(round_trip) -> None:
    root, here, _ = round_trip
    model, _, _ = ropewalk.from_pretrained(root / "llama" / "full-0", base=str(root / "llama" / "base"))
    assert torch.equal(logits(model), here["llama/full-0"])


def masked(spec) -> np.ndarray:
    """Key dimensions that differ by layer, head and pair."""
    shape = (spec.num_layers, spec.num_heads, spec.pairs)
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float64)


@pytest.mark.parametrize("given", ["profile", "mask"])
def test_profile_and_mask_travel_with_the_folder(base, tmp_path, given) -> None:
    model, _ = load_model(str(base))
    spec = ropewalk.extend(model, "none").spec
    model._ropewalk_extension.remove()
    scales = (1.0, 2.0, 4.0, 8.0)
    method = DPE(scales=scales, window=8, mask=Grid(masked(spec)))
    if given == "profile":
        values = {"scales": list(scales), "window": 8}
        profile = Profile("dpe", Fingerprint.of(spec), values, {"mask": masked(spec)})
        (tmp_path / "made").mkdir()
        profile.save(tmp_path / "made" / "mine.json")
        method = DPE(profile=tmp_path / "made" / "mine.json")
    with ropewalk.extend(model, method, target_length=TARGET) as extension:
        plan, expected = extension.plan, logits(model)
        ropewalk.save(extension, tmp_path / "first")
    if given == "profile":
        (tmp_path / "made").rename(tmp_path / "gone")
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    again, _, extension = ropewalk.from_pretrained(moved)
    assert extension.plan == plan
    assert torch.equal(logits(again), expected)
    ropewalk.save(extension, tmp_path / "second")  # what was loaded can be saved
    assert content(tmp_path / "second").keys() == content(moved).keys()
    assert not [name for name in content(moved) if Path(name).suffix not in (".json", ".safetensors")]


def test_backend_and_window_come_back_as_they_were_asked_for(base, tmp_path) -> None:
    model, _ = load_model(str(base))
    with ropewalk.extend(
        model, "self-extend", target_length=TARGET, backend="reference", pretrained_length=32
    ) as extension:
        method = extension.method
        ropewalk.save(extension, tmp_path / "saved")
    _, _, extension = ropewalk.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    assert (extension.backend, extension.spec.pretrained_length, extension.method) == ("reference", 32, method)
    assert extension.model.dtype == torch.float64
    assert ropewalk.from_pretrained(tmp_path / "saved", backend="blockwise")[2].backend == "blockwise"


def test_model_is_on_its_device_before_a_backend_is_chosen(base, tmp_path, monkeypatch) -> None:
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    order, attach = [], sidecar.extend
    monkeypatch.setattr(type(model), "to", lambda self, device: order.append(device))
    monkeypatch.setattr(sidecar, "extend", lambda *given, **named: (order.append("extend"), attach(*given, **named))[1])
    ropewalk.from_pretrained(tmp_path / "saved", device="cuda:1")
    assert order == ["cuda:1", "extend"]


def test_sidecar_is_read_from_the_hub(base, tmp_path, monkeypatch) -> None:
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "dca", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", {"me/extension": str(tmp_path / "saved")}.__getitem__)
    assert ropewalk.from_pretrained("me/extension")[2].method.name == "dca"
