"""A filled method that is packed into a folder gives the same plan when it is unpacked elsewhere."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ropewalk.errors import ProfileError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX, METHODS, parse
from ropewalk.models.method_files import pack, unpack
from ropewalk.models.spec import spec_from_config
from tests.architectures import WORKS
from tests.models.saved import TARGET

SPEC = spec_from_config(WORKS["llama"]().config)
GIVEN = {"longrope": "longrope:long=" + "/".join(str(1 + i / 3) for i in range(SPEC.pairs))}


@pytest.mark.parametrize("name", [*METHODS, "dpe+yarn", "string+pi:factor=2", "rerope+ntk:factor=1.7"])
def test_every_method_is_the_same_after_packing(tmp_path, name) -> None:
    length = TARGET
    method = parse(GIVEN.get(name, name)).resolve(SPEC, length)
    text = pack(method, tmp_path, {})
    again = unpack(text, tmp_path, {}).resolve(SPEC, length)
    assert again == method
    assert again.plan(SPEC, length) == method.plan(SPEC, length)


def test_file_of_a_method_is_copied_and_found_where_the_folder_is(tmp_path) -> None:
    factors = [1 + i / 7 for i in range(SPEC.pairs)]
    given = tmp_path / "factors, mine.json"
    given.write_text(json.dumps({"long_factor": factors}))
    method = parse("longrope")
    method = type(method)(file=given).resolve(SPEC, TARGET)
    plan = method.plan(SPEC, TARGET)
    folder = tmp_path / "saved"
    folder.mkdir()
    text = pack(method, folder, {})
    given.unlink()
    moved = folder.rename(tmp_path / "moved")
    again = unpack(text, moved, {}).resolve(SPEC, TARGET)
    assert again.file == moved / "longrope-file.json"
    assert again.plan(SPEC, TARGET) == plan


def test_file_that_is_gone_is_refused(tmp_path) -> None:
    given = tmp_path / "factors.json"
    given.write_text(json.dumps({"long_factor": [2.0] * SPEC.pairs}))
    method = parse(f"longrope:file={given}").resolve(SPEC, TARGET)
    given.unlink()
    with pytest.raises(ProfileError, match=r"factors\.json' of longrope is gone"):
        pack(method, tmp_path, {})


@pytest.mark.parametrize("path", ["/etc/passwd", "../profile.json", "deep/profile.json"])
def test_path_out_of_the_folder_is_refused(tmp_path, path) -> None:
    with pytest.raises(ProfileError, match="not a file of the sidecar"):
        unpack(f"dpe:profile={path}", Path(tmp_path), {})


@pytest.mark.parametrize("network", ["projection", "residual"])
def test_network_of_clex_travels_with_its_profile_and_without(tmp_path, network) -> None:
    rng = np.random.default_rng(0)
    weights = {"up": rng.normal(size=(SPEC.pairs, 3)), "down": rng.normal(0, 0.01, size=(3, SPEC.pairs))}
    if network == "residual":
        weights |= {"middle": rng.normal(size=(3, 3)), "clock": rng.normal(size=(2, 3))}
    weights = {name: Grid(one) for name, one in weights.items()}
    given = CLEX(network=network, gate=math.inf, **weights).resolve(SPEC, TARGET)
    given.to_profile(SPEC).save(tmp_path / "network.json")
    read = CLEX(profile=tmp_path / "network.json").resolve(SPEC, TARGET)
    for number, method in enumerate((given, read)):
        folder, arrays = tmp_path / str(number), {}
        folder.mkdir()
        text = pack(method, folder, arrays)
        assert str(tmp_path) not in text
        assert unpack(text, folder, arrays).plan(SPEC, TARGET) == given.plan(SPEC, TARGET)
