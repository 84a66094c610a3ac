import anyio
import pytest

from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.endpoint.settings import KEY_VARIABLE, Endpoint
from ropewalk.evaluate.store import Store
from tests.evaluate.endpoint.server import Server


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No key, no proxy and no other setting of the library's from whoever runs the tests."""
    for name in (KEY_VARIABLE, "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def serve():
    """Start a server that answers as it is told."""
    servers = []

    def start(*answer):
        servers.append(Server(*answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shut()


@pytest.fixture
def endpoint():
    """Settings for a server."""

    def make(server, **settings):
        url = server if isinstance(server, str) else server.url
        return Endpoint(url, **{"model": "tiny", "timeout": 20, "max_retries": 0, **settings})

    return make


@pytest.fixture
def delays(monkeypatch):
    """The seconds that the library would have waited before its retries; it waits no time at all."""
    waited = []
    sleep = anyio.sleep

    async def at_once(seconds):
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(anyio, "sleep", at_once)
    return waited


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A short running text: the bundled ones take longer to unpack than these tests to run."""
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(corpora.load("sotu")[:50_000], encoding="utf-8")
    return str(path)
