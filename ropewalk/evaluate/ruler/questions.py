"""Questions with their paragraphs, from the SQuAD or HotpotQA file that the user supplies."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import EvaluationError


@dataclass(frozen=True)
class Question:
    """A question; paragraphs by their index in `Questions.paragraphs`.

    Attributes:
        query, answers: the question, and every accepted answer.
        context: paragraphs that belong to it and always stand in the prompt.
        golds: those of `context` that hold the answer.
        near: paragraphs of the same article, the first to be added.
    """

    query: str
    answers: tuple[str, ...]
    context: tuple[int, ...]
    golds: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class Questions:
    """All questions of a file in its order, and all its distinct paragraphs, sorted.

    Attributes:
        source, sha256: the file's path as it was given, and the hash of its bytes.
    """

    paragraphs: tuple[str, ...]
    questions: tuple[Question, ...]
    source: str
    sha256: str


def load_squad(path: str) -> Questions:
    """The answerable questions of a SQuAD 1.1 or 2.0 file (`dev-v2.0.json` for RULER's qa_1).

    Raises:
        EvaluationError: the file is missing, is not JSON, or is not in this format.
    """
    data = _read(path)
    try:
        articles = [[entry["context"] for entry in article["paragraphs"]] for article in data["data"]]
        paragraphs = sorted({text for article in articles for text in article})
        place = {text: index for index, text in enumerate(paragraphs)}
        found = []
        for article in data["data"]:
            texts = [place[entry["context"]] for entry in article["paragraphs"]]
            for entry in article["paragraphs"]:
                gold = place[entry["context"]]
                near = tuple(index for index in texts if index != gold)
                for asked in entry["qas"]:
                    answers = tuple(answer["text"] for answer in asked["answers"])
                    if not asked.get("is_impossible", False):
                        found.append(Question(asked["question"], answers, (gold,), (gold,), near))
    except (KeyError, TypeError, AttributeError) as error:
        raise _malformed(path, "SQuAD", "data > paragraphs > context, qas > question, answers > text", error) from error
    return _checked(path, paragraphs, found)


def load_hotpotqa(path: str) -> Questions:
    """The questions of a HotpotQA file (`hotpot_dev_distractor_v1.json` for RULER's qa_2).

    The supporting paragraphs are the golds; where the file names none, all of a question's paragraphs are.

    Raises:
        EvaluationError: the file is missing, is not JSON, or is not in this format.
    """
    data = _read(path)
    try:
        blocks = [[f"{title}\n{''.join(parts)}" for title, parts in entry["context"]] for entry in data]
        paragraphs = sorted({text for block in blocks for text in block})
        place = {text: index for index, text in enumerate(paragraphs)}
        found = []
        for entry, block in zip(data, blocks, strict=True):
            context = tuple(place[text] for text in block)
            titles = {title for title, _ in entry.get("supporting_facts", [])}
            named = zip(entry["context"], context, strict=True)
            golds = tuple(index for (title, _), index in named if title in titles)
            found.append(Question(entry["question"], (entry["answer"],), context, golds or context))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(path, "HotpotQA", "a list of question, answer, context > [title, sentences]", error) from error
    return _checked(path, paragraphs, found)


def _read(path: str) -> Any:
    file = Path(path).expanduser()
    if not file.is_file():
        raise EvaluationError(f"no question file at {path}; give the path of the JSON file that its authors publish")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not JSON in UTF-8 ({error}); give the file as its authors publish it"
        ) from error


def _malformed(path: str, name: str, wanted: str, error: Exception) -> EvaluationError:
    return EvaluationError(f"{path} is not a {name} file ({type(error).__name__}: {error}); wanted {wanted}")


def _checked(path: str, paragraphs: list[str], questions: list[Question]) -> Questions:
    if not questions:
        raise EvaluationError(f"{path} holds no question that can be answered; give the file of the development set")
    for question in questions:
        if not question.answers or not question.context:
            raise EvaluationError(
                f"{path}: {question.query!r} has no answer or no paragraph; give a file that has both"
            )
    sha256 = hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    return Questions(tuple(paragraphs), tuple(questions), path, sha256)
