"""One vLLM engine in a process of its own: a job as JSON on stdin, the answers as JSON on a marked line of stdout."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NEW = 24  # tokens of an answer
MARK = "answers: "


@dataclass(frozen=True)
class Answer:
    """What the engine said to one prompt: greedy tokens, the logarithm of each one's probability, tokens it had."""

    tokens: list[int]
    logprobs: list[float]
    cached: int


def run(
    folder: Path,
    rounds: list[list[list[int]]],
    *,
    new: int = NEW,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> list[list[Answer]]:
    """Answers to prompts, round after round, each round all at once.

    Args:
        folder: of the model.
        rounds: token ids of each round's prompts.
        environment: variables of its own.
        options: of `vllm.LLM`.

    Raises:
        RuntimeError: the engine did not start or ended, with the end of what it wrote.
    """
    job = {"model": str(folder), "rounds": rounds, "new": new, "options": options}
    variables = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        **(environment or {}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm.engine"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=variables,
        timeout=1200,
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-6000:])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(MARK)]  # workers write there too
    answers = json.loads(line.removeprefix(MARK))
    return [[Answer(**answer) for answer in round_] for round_ in answers]


def main() -> None:
    job = json.load(sys.stdin)
    from vllm import LLM, SamplingParams

    options = {"dtype": "float32", "skip_tokenizer_init": True, "enforce_eager": True, "block_size": 32, "seed": 0}
    engine = LLM(job["model"], **options | job["options"])
    sampling = SamplingParams(temperature=0, max_tokens=job["new"], logprobs=1, detokenize=False, ignore_eos=True)
    answers = []
    for prompts in job["rounds"]:
        done = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        answers.append(
            [
                {
                    "tokens": list(one.outputs[0].token_ids),
                    "logprobs": [
                        step[token].logprob
                        for token, step in zip(one.outputs[0].token_ids, one.outputs[0].logprobs, strict=True)
                    ],
                    "cached": one.num_cached_tokens or 0,
                }
                for one in done
            ]
        )
    print("\n" + MARK + json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
