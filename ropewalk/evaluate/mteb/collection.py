"""Retrieval tasks of MTEB: by name, or the user's own from a folder."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks import AbsTask, AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from ropewalk.errors import EvaluationError

# The files of a folder of one's own, in the form of BEIR (arXiv 2104.08663).
CORPUS, QUERIES, JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
SPLIT, SUBSET = "test", "default"


def load_tasks(names: Sequence[str], folders: Sequence[str | Path] = ()) -> list[AbsTask]:
    """The tasks of names, benchmarks' names among them ("LongEmbed"), and of folders of one's own.

    Raises:
        EvaluationError: an unknown name, a task of pictures or sound, or a folder that is not complete.
    """
    found: dict[str, AbsTask] = {}
    for name in names:
        for task in _named(name):
            if "text" not in task.metadata.modalities or len(task.metadata.modalities) > 1:
                raise EvaluationError(f"{task.metadata.name} shows pictures or sound; ropewalk extends text models")
            found[task.metadata.name] = task
    for folder in folders:
        local = own_task(Path(folder))
        if local.metadata.name in found:
            raise EvaluationError(f"two tasks have the name {local.metadata.name}; rename the folder {str(folder)!r}")
        found[local.metadata.name] = local
    return list(found.values())


def _named(name: str) -> list[AbsTask]:
    try:
        return [mteb.get_task(name)]
    except KeyError as error:
        unknown = str(error.args[0]).split("\n")[0]
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        raise EvaluationError(f"mteb has no task or benchmark {name!r}: {unknown}") from None


def own_task(folder: Path) -> AbsTaskRetrieval:
    """A retrieval task of a folder in the form of BEIR, named like the folder; nDCG@10 is its score.

    corpus.jsonl has {"_id", "text", and maybe "title"} a line, queries.jsonl {"_id", "text"}, qrels/test.tsv a head
    line and then query id, document id and score, with tabs between them.

    Raises:
        EvaluationError: a file that is missing or malformed, an empty text, or a judgement of an id that is not there.
    """
    corpus, queries = _records(folder / CORPUS), _records(folder / QUERIES)
    judged: dict[str, dict[str, int]] = {}
    for place, line in _lines(folder / JUDGEMENTS, head=True):
        parts = line.split("\t")
        if len(parts) != 3 or not parts[2].strip().isdecimal():
            raise EvaluationError(f"{place}: wanted query id, document id and score with tabs between, got {line!r}")
        query, document, score = parts
        if query not in queries or document not in corpus:
            raise EvaluationError(f"{place}: there is no query {query!r} or no document {document!r}")
        judged.setdefault(query, {})[document] = int(score)
    if not judged:
        raise EvaluationError(f"{folder / JUDGEMENTS} judges nothing; give one line or more after the head")
    return _Own(folder.name, corpus, queries, judged)


class _Own(AbsTaskRetrieval):
    """A task whose data are at hand."""

    def __init__(
        self,
        name: str,
        corpus: dict[str, dict[str, str]],
        queries: dict[str, dict[str, str]],
        judged: dict[str, dict[str, int]],
    ) -> None:
        self.metadata = TaskMetadata(
            name=name,
            description=f"Data of one's own: {name}.",
            reference=None,
            dataset={"path": name, "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=[SPLIT],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )
        super().__init__()
        self.dataset = {
            SUBSET: {
                SPLIT: {
                    "corpus": Dataset.from_list([{"id": key, "title": "", **one} for key, one in corpus.items()]),
                    "queries": Dataset.from_list([{"id": key, "text": one["text"]} for key, one in queries.items()]),
                    "relevant_docs": judged,
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def _records(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for place, line in _lines(path):
        try:
            record = json.loads(line)
            key, text = str(record["_id"]), record["text"]
            title = record.get("title") or ""
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(f'{place}: wanted {{"_id": ..., "text": ...}} ({error!r})') from error
        if not isinstance(text, str) or not text.strip():
            raise EvaluationError(
                f"{place}: the text of {key!r} is empty, and nothing can be found by it; leave it out"
            )
        if key in found:
            raise EvaluationError(
                f"{place}: there is an earlier line with _id {key!r}; give every one an _id of its own"
            )
        found[key] = {"text": text, **({"title": str(title)} if title else {})}
    return found


def _lines(path: Path, *, head: bool = False) -> Iterator[tuple[str, str]]:
    """(where it stands, text) of every line that is not blank."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"cannot read {str(path)!r} ({error}); a folder of one's own has {CORPUS}, {QUERIES} and {JUDGEMENTS}"
        ) from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and not (head and number == 1):
            yield f"line {number} of {str(path)!r}", line


def data_sha256(task: AbsTask, subset: str, split: str) -> str:
    """Hash of what a task asks in one subset and split."""
    digest = hashlib.sha256(json.dumps([subset, split]).encode())
    dataset: Any = task.dataset or {}
    part = dataset.get(subset, dataset)[split]
    if isinstance(task, AbsTaskRetrieval):
        for name in ("corpus", "queries"):
            for record in part[name]:
                digest.update(json.dumps(record, sort_keys=True, default=str).encode())
        digest.update(json.dumps(part["relevant_docs"], sort_keys=True).encode())
    else:
        for record in part:
            digest.update(json.dumps(record, sort_keys=True, default=str).encode())
    return digest.hexdigest()
