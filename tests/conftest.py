"""What every test runs under: one thread, fixed examples, and fresh memory full of NaN."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

_SLOW_DRAWS = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=30, derandomize=True, deadline=None, database=None)
settings.register_profile("long", max_examples=500, deadline=None, suppress_health_check=_SLOW_DRAWS)
settings.load_profile("long" if os.environ.get("ROPEWALK_LONG") == "1" else "ci")


@pytest.fixture(autouse=True, scope="session")
def poisoned_memory():
    """`torch.empty` holds NaN, so that a number which nobody wrote shows in the result."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch fills fresh memory in this mode only
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
