import pytest

from ropewalk.evaluate.tasks import TASKS
from tests.calibrate import trained
from tests.evaluate.conftest import model, tokenizer  # noqa: F401  (fixtures)


@pytest.fixture
def needles(monkeypatch):
    """The fixture's task, registered for one test."""
    task = trained.FixtureNeedles()
    monkeypatch.setitem(TASKS._entries, task.name, task)
    return task.name


@pytest.fixture(scope="session")
def fixture_model():
    return trained.load()
