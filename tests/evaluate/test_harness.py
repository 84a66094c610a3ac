"""The bridge to lm-evaluation-harness, against the harness itself on the stock model."""

import json
import math

import datasets
import lm_eval
import pytest
import torch
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.compare import compare
from ropewalk.evaluate.harness import ExtendedLM, run_harness, shortened
from ropewalk.evaluate.harness.scores import score
from ropewalk.evaluate.harness.tasks import load_tasks
from ropewalk.evaluate.row import results
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect
from tests.harness_tasks import (
    DOCUMENTS,
    LENGTHS,
    NAMES,
    TARGET,
    WINDOW,
    tiny_network,
    tiny_tokenizer,
    write_tasks,
)

METHOD = "self-extend:group=8,window=16"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The harness's data go to a folder of the test, and it does not look at the network or around the machine."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)
    monkeypatch.setattr(HFLM, "get_model_info", lambda self: {})


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results.db") as opened:
        yield opened


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def run(network, tokenizer, folder, store):
    """Run the bridge; by default every task with the stock model, and room for every prompt."""

    def run(**options):
        given = {"tasks": NAMES, "methods": ["none"], "target_length": TARGET, **options}
        return run_harness(network, tokenizer, store=store, include_path=folder, **given)

    return run


def rows(store, **wanted):
    found = store.rows(**wanted)
    assert found
    return found


@pytest.mark.parametrize("target", [TARGET, WINDOW])
@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_stock_model_gets_the_answers_and_scores_of_the_harness(run, store, folder, target, chat) -> None:
    """Also where prompts are cut, and where worked examples are drawn."""
    done = run(target_length=target, chat_template=chat)
    assert done.measured == len(NAMES) * DOCUMENTS
    assert not done.failures
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=tiny_network(), tokenizer=tiny_tokenizer(), max_length=target),
        tasks=NAMES,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )["samples"]
    names = {"tiny_choice": "acc", "tiny_reply": "exact_match", "tiny_text": "nats_per_word"}
    for name in NAMES:
        ours = rows(store, task=f"lm-eval/{name}")
        assert [row.metric for row in ours] == [names[name]] * DOCUMENTS
        for row, sample in zip(ours, theirs[name], strict=True):
            assert row.key.document == sample["doc_id"]
            answers = row.details["answers"]
            if name == "tiny_choice":
                assert row.scores == (sample["acc"],)
                assert row.details["metrics"] == {f"{kind},none": sample[kind] for kind in ("acc", "acc_norm")}
                likelihoods, greedy = zip(*answers, strict=True)
                assert likelihoods == pytest.approx([one for one, _ in sample["filtered_resps"]], rel=1e-5)
                assert list(greedy) == [one for _, one in sample["filtered_resps"]]
            elif name == "tiny_reply":
                assert row.scores == (sample["exact_match"],)
                assert answers == sample["filtered_resps"]
                assert answers[0]
            else:
                total, words = sample["word_perplexity"]
                assert row.scores == pytest.approx([-total / words], rel=1e-5)
                total, size = sample["bits_per_byte"]
                bits = row.details["metrics"]["bits_per_byte,none"]
                assert bits == pytest.approx(-total / size / math.log(2), rel=1e-5)


def test_run_again_measures_only_what_is_missing(run, store) -> None:
    first = run(limit=2, methods=["none", METHOD])
    assert first.measured == len(NAMES) * 2 * 2
    before = {row.key: row for row in store.rows()}
    again = run(limit=2, methods=["none", METHOD])
    assert (again.measured, again.keys) == (0, first.keys)
    more = run(methods=["none", METHOD])
    assert more.measured == len(NAMES) * (DOCUMENTS - 2) * 2
    after = {row.key: row for row in store.rows()}
    assert {key: after[key] for key in before} == before
    assert len(after) == len(NAMES) * DOCUMENTS * 2


def test_interrupted_run_ends_with_the_rows_of_an_unbroken_one(run, store, monkeypatch, tmp_path) -> None:
    """Worked examples are drawn for one document after another: a run that goes on must draw the same."""
    append, stored = Store.append, []

    def interrupted(self, row):
        if len(stored) == 2:
            raise KeyboardInterrupt
        stored.append(row)
        return append(self, row)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tasks=["tiny_reply"])
    assert len(store.rows()) == 2
    run(tasks=["tiny_reply"])
    with Store(tmp_path / "unbroken.db") as other:
        unbroken = run_harness(
            tiny_network(),
            tiny_tokenizer(),
            tasks=["tiny_reply"],
            methods=["none"],
            store=other,
            target_length=TARGET,
            include_path=tmp_path,
        )
        assert unbroken.measured == DOCUMENTS
        wanted = other.rows()
    got = store.rows()
    assert [row.key for row in got] == [row.key for row in wanted]
    assert [row.prompt_sha256 for row in got] == [row.prompt_sha256 for row in wanted]
    assert [row.details for row in got] == [row.details for row in wanted]


def test_method_is_attached_while_it_is_measured_and_removed_after(run, store, network, tokenizer, folder) -> None:
    probe = torch.arange(2, 60).repeat(2)[None]
    before = network(probe).logits
    done = run(tasks=["tiny_text"], methods=["none", METHOD])
    assert torch.equal(network(probe).logits, before)
    stock, extended = results(collect(store, done.keys))
    assert (stock.method, extended.method) == ("none", METHOD)
    losses = []
    with ropewalk.extend(network, METHOD, target_length=TARGET):
        for line in (folder / "test.jsonl").read_text().splitlines():
            ids = torch.tensor(tokenizer(json.loads(line)["text"])["input_ids"])
            # a text without a start token begins after the end token of another
            logits = network(torch.cat([torch.tensor([tokenizer.eos_token_id]), ids[:-1]])[None]).logits[0]
            losses.append(torch.nn.functional.cross_entropy(logits, ids).item())
    assert extended.scores == pytest.approx(losses, rel=1e-5)
    assert extended.scores != pytest.approx(stock.scores, rel=1e-3)
    (comparison,) = compare(store.rows(), "none", METHOD)
    assert comparison.difference is not None  # all samples pair up
    assert comparison.difference.n == DOCUMENTS


def test_cut_prompts_are_counted(run, store) -> None:
    done = run(target_length=WINDOW)
    by_task = {one.task.removeprefix("lm-eval/"): one for one in results(collect(store, done.keys))}
    long = sum(length > WINDOW for length in LENGTHS)
    assert shortened(by_task["tiny_choice"]) == (long, 0)
    assert shortened(by_task["tiny_reply"]) == (long, 0)
    assert shortened(by_task["tiny_text"]) == (0, long)  # a text is read in windows instead
    for result in by_task.values():
        assert max(one["tokens"] for one in result.details) > WINDOW
        assert result.reached <= WINDOW
    # "D A" is scored after "... Question Answer": 2 + 2 tokens more; the last token is scored and not read.
    assert [one["cut"] for one in by_task["tiny_choice"].details] == [max(0, n + 4 - WINDOW - 1) for n in LENGTHS]


def test_no_prompt_is_cut_where_the_target_has_room(run, store) -> None:
    done = run()
    for result in results(collect(store, done.keys)):
        assert shortened(result) == (0, 0)
        assert result.reached >= max(LENGTHS)


def test_documents_asked_together_score_as_alone(run, store, network, tokenizer, tmp_path) -> None:
    run(methods=[METHOD])
    with Store(tmp_path / "batched.db") as other:
        run_harness(
            network,
            tokenizer,
            tasks=NAMES,
            methods=[METHOD],
            store=other,
            target_length=TARGET,
            include_path=tmp_path,
            batch_size=3,
        )
        for alone, together in zip(store.rows(), other.rows(), strict=True):
            assert alone.key == together.key
            assert together.scores == pytest.approx(alone.scores, rel=1e-4)
            if alone.key.task == "lm-eval/tiny_reply":
                assert together.details == alone.details


def test_tag_and_other_metric(run, store) -> None:
    run(tasks=["tiny_tasks"], limit=1)
    assert {row.key.task for row in store.rows()} == {f"lm-eval/{name}" for name in NAMES}
    run(tasks=["tiny_choice"], limit=1, metric="acc_norm")
    metrics = {row.metric: row.key.protocol for row in rows(store, task="lm-eval/tiny_choice")}
    assert set(metrics) == {"acc", "acc_norm"}
    assert metrics["acc"] != metrics["acc_norm"]


def test_worked_examples_can_be_chosen(run, store) -> None:
    run(tasks=["tiny_reply"], limit=1)
    run(tasks=["tiny_reply"], limit=1, num_fewshot=0)
    two, none = sorted(rows(store), key=lambda row: -row.details["tokens"])
    assert ("2-shot" in two.key.protocol, "0-shot" in none.key.protocol) == (True, True)
    assert two.details["tokens"] - none.details["tokens"] == 2 * (5 + 2)  # text, "Question" and the answer


def test_settings_of_a_task_are_part_of_its_protocol(run, store, folder) -> None:
    run(tasks=["tiny_choice"], limit=1)
    file = folder / "tiny_choice.yaml"
    file.write_text(file.read_text().replace("Question Answer", "Answer"))
    assert run(tasks=["tiny_choice"], limit=1).measured == 1
    assert len({row.key.protocol for row in store.rows()}) == 2


def test_registered_model_is_made_from_an_argument_string(tmp_path, network, tokenizer) -> None:
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    text = f"pretrained={tmp_path / 'model'},method=self-extend:group=8;window=16,target_length={TARGET},device=cpu"
    made = get_model("ropewalk").create_from_arg_string(text)
    assert isinstance(made, ExtendedLM)
    assert made.max_length == TARGET
    assert (made.extension.method.group, made.extension.method.window) == (8, 16)
    ids = torch.arange(2, 62).repeat(2)[None]
    with ropewalk.extend(network, METHOD, target_length=TARGET):
        torch.testing.assert_close(made.model(ids).logits, network(ids).logits)
    made.extension.remove()
    stock = get_model("ropewalk").create_from_arg_string(f"pretrained={tmp_path / 'model'},method=none")
    torch.testing.assert_close(stock.model(ids).logits, network(ids).logits)


def test_score_of_one_document() -> None:
    assert score("t", "acc", {"acc": 1}) == ("acc", 1.0)
    assert score("t", "bits_per_byte", {"bits_per_byte": (-8.0, 4)}) == ("bits_per_byte", 2 / math.log(2))
    assert score("t", "word_perplexity", {"word_perplexity": (-8.0, 2)}) == ("nats_per_word", 4.0)
    assert score("t", "perplexity", {"perplexity": -3.0}) == ("nats", 3.0)
    with pytest.raises(EvaluationError, match=r"mcc of t is made of all documents.*another metric: acc$"):
        score("t", "mcc", {"mcc": (1, 0), "acc": 1.0})
    with pytest.raises(EvaluationError, match="t does not measure 'f1'; it has acc"):
        score("t", "f1", {"acc": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": []}, "nothing to evaluate"),
        ({"tasks": ["tiny_choice"], "metric": "mcc"}, "mcc of lm-eval/tiny_choice is made of all documents"),
        ({"tasks": ["tiny_choice"], "metric": "acc,strict"}, "no filter 'strict'; it has none"),
        ({"tasks": ["tiny_reply"], "target_length": 6}, "leaves no room for a prompt in a target length of 6"),
        ({"include_path": "missing"}, "there is no folder 'missing'"),
    ],
)
def test_bad_input_is_explained(network, tokenizer, folder, store, options, message) -> None:
    given = {"tasks": NAMES, "methods": ["none"], "target_length": TARGET, "include_path": folder, **options}
    with pytest.raises(EvaluationError, match=message):
        run_harness(network, tokenizer, store=store, **given)
    assert store.rows() == []
    assert store.interrupted() == []


def test_data_that_cannot_be_fetched_are_named_and_finished_tasks_kept(run, store, monkeypatch) -> None:
    run(tasks=["tiny_choice"])
    kept = store.rows()

    def offline(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'owner/data' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(EvaluationError, match=r"data of tiny_text.*owner/data.*HF_DATASETS_CACHE"):
        run(tasks=["tiny_text"])
    assert store.rows() == kept


def test_ruler_of_the_harness_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"ruler_qa_squad is .* scores question answering wrong.* eval ruler"):
        load_tasks(["ruler_qa_squad"], include_path=f"{lm_eval.__path__[0]}/tasks/ruler")


@pytest.mark.slow  # reading all of the harness's task files takes 10 s
def test_unknown_task_names_what_is_near() -> None:
    with pytest.raises(EvaluationError, match=r"no task, group or tag 'longbench3'; did you mean .*'longbench2'"):
        load_tasks(["longbench3"])
