"""A real HTTP server on this machine that answers as it is told: well, badly, late or not at all; loads no torch."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """A response: `body` is sent as it is where it is bytes, else as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


HANG = "say nothing until the test ends"
CLOSE = "close the connection without a word"
Answer = Callable[[dict[str, Any], int], Any]


def said(text, body, usage=True):
    """What a good server says to a request."""
    choice = {"index": 0, "finish_reason": "stop"}
    choice |= {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    answer = {"id": "1", "object": "x", "created": 0, "model": "served-1", "choices": [choice]}
    return answer | ({"usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}} if usage else {})


class Server(ThreadingHTTPServer):
    """Answers request number n (from 0) with `answer(body, n)`: JSON, a Reply, HANG or CLOSE.

    Attributes:
        requests: (path, headers by lower-case name, body) in order of arrival.
        most: requests that were under way at once.
    """

    daemon_threads = True
    # Threads that hang are let go by `shut`; a server that waited for them before would never close.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, answer: Answer = lambda body, number: said("well", body)) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.most = 0
        self.now = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        bodies = [body for _, _, body in self.requests]
        return [body["messages"][0]["content"] if "messages" in body else body["prompt"] for body in bodies]

    def shut(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: apart, the second waits 40 ms for the first's receipt
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.requests.append((self.path, headers, body))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            answer = self.server.answer(body, number)
        finally:
            with self.server.lock:
                self.server.now -= 1
        if answer is HANG:
            self.server.ended.wait()
        if answer is HANG or answer is CLOSE:
            self.close_connection = True
            return
        reply = answer if isinstance(answer, Reply) else Reply(answer)
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
