"""These tests run where vLLM is installed: `make test-vllm`."""

from pathlib import Path

import pytest

from tests.vllm.models import save_model

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them start engines."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def vllm_is_installed() -> None:
    pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    """A tiny Llama in a folder."""
    return save_model(tmp_path_factory.mktemp("llama") / "model")
