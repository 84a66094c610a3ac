"""The pieces of MTEB's tasks that are measured at a time, and which of them have a score for every query."""

from dataclasses import dataclass
from typing import Any

from mteb.abstasks import AbsTask, AbsTaskRetrieval

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.mteb.collection import data_sha256

# MTEB's metrics that every query has by itself, and pytrec_eval's names of them; the number of places is put in.
_PER_QUERY = {
    "ndcg_at": "ndcg_cut",
    "recall_at": "recall",
    "map_at": "map_cut",
    "precision_at": "P",
    "hit_rate_at": "success",
}


@dataclass(frozen=True)
class Part:
    """One subset and split of a task: what is measured, and stored, at a time.

    Attributes:
        queries: ids whose scores are stored one by one; none where MTEB has only one score for all.
        data_sha256: of what is asked.
    """

    task: AbsTask
    subset: str
    split: str
    queries: tuple[str, ...]
    data_sha256: str

    @property
    def metric(self) -> str:
        """The task's main score."""
        return str(self.task.metadata.main_score)


def parts(task: AbsTask) -> list[Part]:
    """The subsets and splits of a task, with their data loaded.

    Raises:
        EvaluationError: the data are not here and cannot be fetched.
    """
    if not task.data_loaded:
        try:
            task.load_data()
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise EvaluationError(
                f"the data of {task.metadata.name} cannot be read: {reason}; they come from the Hugging Face hub: run "
                "this once where it can be reached and copy its caches (HF_DATASETS_CACHE, HF_HUB_CACHE), or give a "
                "folder of your own"
            ) from error
    by_query = isinstance(task, AbsTaskRetrieval) and not task.skip_first_result and measure_of(task) is not None
    if isinstance(task, AbsTaskRetrieval):
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    dataset: Any = task.dataset
    return [
        Part(
            task,
            subset,
            split,
            tuple(sorted(key for key, judged in dataset[subset][split]["relevant_docs"].items() if judged))
            if by_query
            else (),
            data_sha256(task, subset, split),
        )
        for split in task.eval_splits
        for subset in task.hf_subsets
    ]


def measure_of(task: AbsTask) -> tuple[str, str] | None:
    """The main score in pytrec_eval's words, ("ndcg_cut.10", "ndcg_cut_10"); None where single queries have none."""
    kind, _, places = str(task.metadata.main_score).rpartition("_")
    if kind not in _PER_QUERY or not places.isdecimal():
        return None
    return f"{_PER_QUERY[kind]}.{places}", f"{_PER_QUERY[kind]}_{places}"
