"""What an endpoint said, read from its response: nothing is taken for granted of it."""

import json
from dataclasses import dataclass
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.settings import Endpoint

# Of a server's own words, in an error message.
SHOWN = 300
# Reasons for an end that is not the model's.
_CUT = ("length", "content_filter")


class EndpointError(EvaluationError):
    """A request without a usable answer.

    Attributes:
        fatal: the next request will fail like this one.
        retries: that it took.
    """

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal
        self.retries = 0


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        text: may be empty where the model ended at once.
        finish: the server's reason for its end: "stop", "length".
        prompt_tokens, completion_tokens: as the server counts them, or None.
        served: the model, and its version where the server gives one.
        settings: what was asked for besides the prompt.
        retries: that it took.
        counted: the tokens were filled in afterwards, by the local tokenizer's count.
    """

    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    served: str
    settings: dict[str, Any]
    retries: int
    counted: bool = False


class Reader:
    """Reads the answers of one endpoint, and speaks of it in messages.

    Args:
        chat: the responses are those of a chat.
        key: the API key, never to be shown; "" for none.
    """

    def __init__(self, endpoint: Endpoint, *, chat: bool, key: str) -> None:
        self._endpoint = endpoint
        self._chat = chat
        self._key = key

    @property
    def name(self) -> str:
        """For messages."""
        return f"the endpoint {self._endpoint.base_url} (model {self._endpoint.model})"

    def shown(self, text: str) -> str:
        """Another's words on one line, cut, and without the key."""
        line = " ".join(text.split())
        line = line.replace(self._key, "[key]") if self._key else line
        return line if len(line) <= SHOWN else line[:SHOWN] + "..."

    def read(self, content: bytes, settings: dict[str, Any], *, retries: int) -> Said:
        """The answer in the body of a response.

        Args:
            settings, retries: kept with it.

        Raises:
            EndpointError: no answer is in it.
        """
        body = self._json(content)
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self._nonsense("has no choices", content)
        choice = choices[0]
        finish = str(choice.get("finish_reason"))
        text = choice.get("text")
        if self._chat:
            message = choice.get("message")
            if not isinstance(message, dict):
                raise self._nonsense("has no message", content)
            text = message["content"] if message.get("content") is not None else message.get("refusal")
        if text in (None, "") and finish in _CUT:
            raise EndpointError(
                f"{self.name} ended without a word (finish_reason {finish}); a model that thinks before it answers "
                f"needs extra tokens"
            )
        # An empty text is an answer where the model itself ended it.
        if not isinstance(text, str) or not (text or finish == "stop"):
            raise self._nonsense("has no text", content)
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        version = body.get("system_fingerprint")
        served = f"{body.get('model')} {version}" if version else str(body.get("model"))
        counts = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        return Said(text, finish, counts[0], counts[1], served, settings, retries)

    def _json(self, content: bytes) -> dict[str, Any]:
        try:
            body = json.loads(content)
        except ValueError as error:
            raise self._nonsense("is not JSON; its base URL mostly ends with /v1", content) from error
        if not isinstance(body, dict):
            raise self._nonsense("is no object", content)
        return body

    def _nonsense(self, what: str, content: bytes) -> EndpointError:
        shown = self.shown(content.decode("utf-8", errors="replace")) or "nothing"
        return EndpointError(f"{self.name} answered with what {what}: {shown}")


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
