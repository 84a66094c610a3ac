import pytest

from ropewalk.evaluate.store import Store
from tests.embedders import tiny_embedder, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def embedder(tmp_path_factory):
    """A pipeline that reads 48 tokens and finds texts by their words; whoever extends it leaves it as it was."""
    return tiny_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results.db") as opened:
        yield opened
