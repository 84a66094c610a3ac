"""Asks an endpoint in a process of its own, to be killed."""

import sys

from transformers import AutoTokenizer

from ropewalk.evaluate.endpoint.run import Asked, evaluate_endpoint
from ropewalk.evaluate.endpoint.settings import Endpoint
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.unit import Setup


def ask_ledgers(url: str, store: str, tokenizer: str, corpus: str) -> Asked:
    """Ask for eight documents, two at once."""
    with Store(store) as opened:
        return evaluate_endpoint(
            Endpoint(url, "tiny", concurrency=2, max_retries=0),
            AutoTokenizer.from_pretrained(tokenizer),
            tokenizer_name="saved",
            tasks=["qa_ledger"],
            lengths=[512],
            samples=8,
            setup=Setup(corpus=corpus),
            store=opened,
        )


if __name__ == "__main__":
    ask_ledgers(*sys.argv[1:])
