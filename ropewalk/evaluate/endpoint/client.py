"""Put one prompt to an endpoint, through the openai library, and read what it said or why it did not."""

import json
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.answer import EndpointError, Reader, Said
from ropewalk.evaluate.endpoint.pace import Pace
from ropewalk.evaluate.endpoint.settings import Endpoint

try:
    import openai
except ModuleNotFoundError as error:  # an optional extra: only who asks endpoints needs it
    raise EvaluationError(
        "an endpoint is asked by the package openai; run: pip install 'ropewalk[endpoint]'"
    ) from error

# Answers that say that no other prompt will fare better.
_FATAL = (401, 403, 404, 429)


@dataclass
class _Request:
    """One request with its retries.

    Attributes:
        tokens: that it may use; `sent`: how often it went out.
    """

    tokens: int
    sent: int = 0

    @property
    def retries(self) -> int:
        return max(0, self.sent - 1)


@dataclass
class _Dialect:
    """What this server was found to take.

    Attributes:
        seed: whether it takes one.
        limit: what it calls the most tokens to generate; OpenAI's newer models know only the longer name.
    """

    seed: bool = True
    limit: str = "max_tokens"

    def learn(self, sent: dict[str, Any], refused: str | None) -> bool:
        """Whether the request can be put another way, now that the server refused a parameter of it."""
        if refused not in sent:
            return False
        if refused == "seed":
            self.seed = False
        elif refused == "max_tokens":
            self.limit = "max_completion_tokens"
        return refused in ("seed", "max_tokens")


# The request that the current task puts: the library sends its retries from within one call.
_current: ContextVar[_Request] = ContextVar("_current")


class Client:
    """Asks an endpoint; an async context manager, for one event loop.

    Args:
        chat: send a prompt as one user message of a chat; else as a text to be continued.
    """

    def __init__(self, endpoint: Endpoint, *, chat: bool, pace: Pace) -> None:
        self.endpoint = endpoint
        self.chat = chat
        self._pace = pace
        self._key = endpoint.api_key()
        self._dialect = _Dialect()
        self._reader = Reader(endpoint, chat=chat, key=self._key)
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            # The library wants one, and would else take OPENAI_API_KEY, whatever variable was asked for.
            api_key=self._key or "none",
            timeout=endpoint.timeout,
            max_retries=endpoint.max_retries,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [self._before_sending]}),
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, prompt: str, *, new_tokens: int, tokens: int) -> Said:
        """The answer to a prompt.

        Args:
            new_tokens: most that are generated.
            tokens: that the prompt is counted for.

        Raises:
            EndpointError: refused, timed out, or answered by nonsense, retries included.
        """
        request = _Request(tokens + new_tokens)
        token = _current.set(request)
        try:
            while True:
                settings = self._settings(new_tokens)
                try:
                    body = await self._send(prompt, settings)
                    return self._reader.read(body, settings, retries=request.retries)
                except openai.BadRequestError as error:
                    if not self._dialect.learn(settings, error.param):
                        raise
        except openai.APIError as error:
            told = self._explained(error, request)
            told.retries = request.retries
            raise told from error
        except EndpointError as error:
            error.retries = request.retries
            raise
        finally:
            _current.reset(token)

    async def _before_sending(self, _: object) -> None:
        """Called by the HTTP client before a request goes out, each retry too."""
        request = _current.get()
        await self._pace.wait(request.tokens)
        request.sent += 1

    def _settings(self, new_tokens: int) -> dict[str, Any]:
        settings: dict[str, Any] = {self._dialect.limit: new_tokens}
        if self.endpoint.temperature is not None:
            settings["temperature"] = self.endpoint.temperature
        if self.endpoint.seed is not None and self._dialect.seed:
            settings["seed"] = self.endpoint.seed
        return settings

    async def _send(self, prompt: str, settings: dict[str, Any]) -> bytes:
        # Raw: the library builds its objects from any JSON, and fields that are missing show only where they are used.
        model = self.endpoint.model
        if self.chat:
            messages: list[Any] = [{"role": "user", "content": prompt}]
            chat = await self._client.chat.completions.with_raw_response.create(
                model=model, messages=messages, **settings
            )
            return chat.content
        text = await self._client.completions.with_raw_response.create(model=model, prompt=prompt, **settings)
        return text.content

    def _explained(self, error: openai.APIError, request: _Request) -> EndpointError:
        who, shown = self._reader.name, self._reader.shown
        tries = f"{request.sent} tries" if request.sent > 1 else "1 try"
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(
                f"{who} was silent for {self.endpoint.timeout:g} s ({tries}); raise the time-out, or ask less at once"
            )
        if isinstance(error, openai.APIConnectionError):
            cause = shown(str(error.__cause__ or error)) or type(error.__cause__).__name__
            return EndpointError(
                f"{who} does not take or keep the connection ({tries}: {cause}); see that the server runs there",
                fatal=True,
            )
        if not isinstance(error, openai.APIStatusError):
            return EndpointError(f"{who}: {shown(str(error))}")
        status, advice = error.status_code, ""
        if status in (401, 403):
            have = "refuses the key in" if self._key else "wants a key, and none is in"
            advice = f"; it {have} the environment variable {self.endpoint.api_key_env}"
        elif status == 404:
            advice = "; correct the model's name or the base URL"
        elif status == 429:
            advice = "; lower the requests or tokens per minute, or go on later"
        said = shown(_message(error.body)) or "no reason given"
        return EndpointError(f"{who} answered HTTP {status} ({tries}): {said}{advice}", fatal=status in _FATAL)


def _message(body: object) -> str:
    """What a server gives as the reason: OpenAI's field, FastAPI's, or all that it sent."""
    if isinstance(body, dict):
        for name in ("message", "detail", "error"):
            if isinstance(body.get(name), str):
                return body[name]
    return body if isinstance(body, str) else json.dumps(body) if body else ""
