"""What several files of this folder share: a tiny model, and caches that meet with short texts what long ones meet."""

import pytest
from transformers import PreTrainedModel

from ropewalk.attention import rotated
from tests.architectures import build


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return build("llama")


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short texts meet what long ones meet: buffers that move, crops beyond what was spared."""
    monkeypatch.setattr(rotated, "SPARE", 3)
    monkeypatch.setattr(rotated, "ROOM", 2)
