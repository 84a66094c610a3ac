"""The plug-in's entry point where vLLM is not what it was written for."""

import sys
from types import ModuleType

import pytest

from ropewalk.errors import BackendError
from ropewalk.serve.plugin import register


def test_a_vllm_without_the_places_to_register_is_refused_with_a_way_out(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    with pytest.raises(BackendError, match=r"tested on \(0\.32\), or start vLLM without plug-ins: VLLM_PLUGINS=''"):
        register()
