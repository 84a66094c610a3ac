"""Which endpoint is asked, how hard, and for how much."""

import hashlib
import json
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from ropewalk.errors import EvaluationError

KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and one model of it.

    Attributes:
        base_url: up to and with its version, such as http://127.0.0.1:8000/v1.
        model: as the server calls it.
        name: method's name in rows, tables and figures.
        api_key_env: environment variable that holds the key, which is nowhere stored or printed. Without OPENAI_API_KEY
            the word "none" is sent: servers of one's own want no key.
        concurrency: most requests under way at once.
        requests_per_minute, tokens_per_minute: limits kept within any minute, retries included; a request counts its
            prompt and the most that it may generate. None: no limit.
        timeout: seconds for which the server may be silent.
        max_retries: of one request, after 408, 409, 429, 5xx, time-outs and broken connections: after the seconds of
            the server's Retry-After (up to 120), else after 0.5, 1, 2, 4, 8, 8... seconds less up to a quarter.
        max_failures: when so many samples have failed, no other one is begun.
        temperature: 0 is greedy, as the local model answers; None sends none, for models that refuse 0.
        seed: sent where the server takes one; None sends none.
        extra_tokens: that may be generated beyond the question's own room, for models that think before they answer.
        prompt_price, completion_price: of a million tokens, both or neither, in any currency.
        max_cost: in the same currency; no document is begun that could take this run beyond it.

    Raises:
        EvaluationError: a value out of range, or a URL that is none, or that holds what is not to be stored.
    """

    base_url: str
    model: str
    name: str = "endpoint"
    api_key_env: str = KEY_VARIABLE
    concurrency: int = 4
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float = 600.0
    max_retries: int = 5
    max_failures: int = 3
    temperature: float | None = 0.0
    seed: int | None = 0
    extra_tokens: int = 0
    prompt_price: float | None = None
    completion_price: float | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        for name in ("model", "name", "api_key_env"):
            if not getattr(self, name).strip():
                raise EvaluationError(f"the endpoint's {name} is empty; give one")
        least = {"concurrency": 1, "requests_per_minute": 1, "tokens_per_minute": 1, "max_retries": 0}
        least |= {"max_failures": 1, "temperature": 0, "extra_tokens": 0, "prompt_price": 0, "completion_price": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise EvaluationError(f"the endpoint's {name} is {value}; wanted {lowest} or more")
        for name in ("timeout", "max_cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise EvaluationError(f"the endpoint's {name} is {value}; wanted more than 0")
        if (self.prompt_price is None) != (self.completion_price is None):
            raise EvaluationError("one price is given without the other; give those of prompt and completion tokens")
        if self.max_cost is not None and self.prompt_price is None:
            raise EvaluationError(f"a limit of {self.max_cost:g} needs prices; give those of a million tokens")

    @property
    def resolved(self) -> str:
        """The name, with all that makes its answers others than those of a greedy model in the question's own room."""
        options = []
        if self.temperature != 0:
            options.append(f"temperature={'default' if self.temperature is None else format(self.temperature, 'g')}")
            options.append(f"seed={'none' if self.seed is None else self.seed}")
        if self.extra_tokens:
            options.append(f"extra_tokens={self.extra_tokens}")
        return f"{self.name}:{','.join(options)}" if options else self.name

    @property
    def sha256(self) -> str:
        """Stands for the model's fingerprint: of the URL and the model's name, all that is known of an endpoint."""
        return hashlib.sha256(json.dumps(["endpoint", self.base_url, self.model]).encode()).hexdigest()

    def api_key(self) -> str:
        """The key, or "" where none is set.

        Raises:
            EvaluationError: the variable was named on purpose and is not set.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.api_key_env != KEY_VARIABLE:
            raise EvaluationError(f"the environment variable {self.api_key_env} holds no API key; set it")
        return key

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Of so many tokens; None without prices."""
        if self.prompt_price is None or self.completion_price is None:
            return None
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # read from the text only now, and refused when it is no number
    except ValueError:
        usable = False
    # What is refused is not shown: it may hold a key.
    if not usable:
        raise EvaluationError("the endpoint's base URL is no http or https URL; give one such as http://host:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise EvaluationError(
            "the endpoint's base URL holds a user, a query or a fragment, and URLs are stored with every sample; "
            "leave that out, and put a key into the environment variable"
        )
