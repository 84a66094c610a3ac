"""The stored row of a document that an endpoint answered all questions of."""

from collections.abc import Sequence
from importlib.metadata import version

from ropewalk.evaluate.bench import versions
from ropewalk.evaluate.endpoint.answer import Said
from ropewalk.evaluate.endpoint.prompts import Paper, Prompts
from ropewalk.evaluate.fingerprint import prompt_sha256
from ropewalk.evaluate.row import Row


def make_row(prompts: Prompts, paper: Paper, said: Sequence[Said], *, seconds: float, tokenizer_name: str) -> Row:
    """The row; it pairs with a local model's of the same document, whose prompt has the same hash.

    Reading time, processor time and memory are the server's and not known: 0, 0 and None. The details hold every
    answer under "said", and under "endpoint" what was asked for and what it took.

    Args:
        said: by question, tokens filled in.
        seconds: from the first request until the last answer; other documents' requests run meanwhile.
    """
    endpoint, unit = prompts.endpoint, paper.unit
    graded = [prompts.answer(prompt, one.text) for prompt, one in zip(paper.prompts, said, strict=True)]
    prompt_tokens = sum(one.prompt_tokens or 0 for one in said)
    completion_tokens = sum(one.completion_tokens or 0 for one in said)
    details = {
        "said": [
            {"question": prompt.question.text, "references": list(prompt.question.references), "text": one.text}
            | {"finish": one.finish, "retries": one.retries}
            for prompt, one in zip(paper.prompts, said, strict=True)
        ],
        "endpoint": {
            "url": endpoint.base_url,
            "model": endpoint.model,
            "served": sorted({one.served for one in said}),
            "api": "chat/completions" if prompts.chat else "completions",
            "settings": said[0].settings,
            "requests": len(said),
            "retries": sum(one.retries for one in said),
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "counted_by": "tokenizer" if any(one.counted for one in said) else "server",
            "cost": endpoint.cost(prompt_tokens, completion_tokens),
            "tokenizer": tokenizer_name,
            "retokenized": paper.retokenized,
        },
    }
    return Row(
        key=paper.key,
        method=endpoint.name,
        model=endpoint.model,
        corpus=paper.task.own_text[0] if paper.task.own_text else prompts.setup.corpus,
        target_length=unit.target_length,
        prompt_sha256=prompt_sha256(paper.document.ids),
        metric=paper.task.metric,
        scores=tuple(paper.task.grade(paper.document, index, text) for index, text in enumerate(graded)),
        n=len(said),
        reached=len(paper.document.ids),
        seconds=seconds,
        prefill_seconds=0.0,
        cpu_seconds=0.0,
        peak_bytes=None,
        device="endpoint",
        details=details,
        versions=versions() | {"openai": version("openai")},
    )
