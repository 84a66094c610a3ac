import dataclasses

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.settings import Endpoint

URL = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "no http or https URL"),
        ({"base_url": "http:///v1"}, "no http or https URL"),
        ({"base_url": "http://host:port/v1"}, "no http or https URL"),
        ({"base_url": "https://me:secret@host/v1"}, "holds a user"),
        ({"base_url": "https://host/v1?key=secret"}, "holds a user, a query"),
        ({"model": " "}, "model is empty"),
        ({"concurrency": 0}, "concurrency is 0; wanted 1 or more"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0"),
        ({"tokens_per_minute": -5}, "tokens_per_minute is -5"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"max_failures": 0}, "max_failures is 0"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"timeout": 0}, "timeout is 0; wanted more than 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"prompt_price": 1.0}, "one price is given without the other"),
        ({"max_cost": 1.0}, "a limit of 1 needs prices"),
        ({"max_cost": 0.0, "prompt_price": 1.0, "completion_price": 1.0}, "max_cost is 0.0; wanted more than 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line_without_secrets(settings, message):
    with pytest.raises(EvaluationError, match=message) as error:
        Endpoint(**{"base_url": URL, "model": "tiny", **settings})
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_fingerprint_is_of_url_and_model_only():
    one = Endpoint(URL, "tiny")
    assert Endpoint(URL + "/", "tiny").sha256 == one.sha256
    assert dataclasses.replace(one, concurrency=9, name="other", timeout=1.0).sha256 == one.sha256
    assert len({one.sha256, Endpoint(URL, "small").sha256, Endpoint("http://127.0.0.1:9000/v1", "tiny").sha256}) == 3


def test_resolved_name_says_what_changes_answers():
    assert Endpoint(URL, "tiny").resolved == "endpoint"
    assert Endpoint(URL, "tiny", name="mine", concurrency=9, seed=5).resolved == "mine"
    assert Endpoint(URL, "tiny", temperature=None, seed=None, extra_tokens=100).resolved == (
        "endpoint:temperature=default,seed=none,extra_tokens=100"
    )
    assert Endpoint(URL, "tiny", temperature=0.7, seed=5).resolved == "endpoint:temperature=0.7,seed=5"


def test_key_comes_only_from_its_variable(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "general")
    assert Endpoint(URL, "tiny").api_key() == "general"
    own = Endpoint(URL, "tiny", api_key_env="OWN_KEY")
    monkeypatch.delenv("OWN_KEY", raising=False)
    with pytest.raises(EvaluationError, match="OWN_KEY holds no API key; set it"):
        own.api_key()
    monkeypatch.setenv("OWN_KEY", "own")
    assert own.api_key() == "own"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert Endpoint(URL, "tiny").api_key() == ""


def test_cost_is_of_millions_of_tokens():
    assert Endpoint(URL, "tiny").cost(10, 10) is None
    assert Endpoint(URL, "tiny", prompt_price=2.0, completion_price=8.0).cost(3_000_000, 500_000) == 10.0
