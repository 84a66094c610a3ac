"""Hold requests back so that a server's limits per minute are kept."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

WINDOW_SECONDS = 60.0


class Pace:
    """Spaces requests: no 60 seconds, wherever they begin, hold more of them, or more tokens, than allowed.

    For one event loop.

    Args:
        requests, tokens: per minute; None: no limit. One request of more than `tokens` tokens is let through alone.
        clock, sleep: of the event loop, in seconds.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._most_requests = math.inf if requests is None else requests
        self._most_tokens = math.inf if tokens is None else tokens
        self._limited = requests is not None or tokens is not None
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[tuple[float, int]] = deque()  # moment and tokens, oldest first
        self._tokens = 0  # of all in `_sent`
        self._last = -math.inf

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may be sent; those that came first go first."""
        if not self._limited:
            return
        now = self._clock()
        moment = max(now, self._last)
        while self._sent and (len(self._sent) >= self._most_requests or self._tokens + tokens > self._most_tokens):
            when, spent = self._sent.popleft()
            self._tokens -= spent
            moment = max(moment, when + WINDOW_SECONDS)
        self._sent.append((moment, tokens))
        self._tokens += tokens
        self._last = moment
        if moment > now:
            await self._sleep(moment - now)
