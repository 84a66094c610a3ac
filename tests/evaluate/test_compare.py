import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.compare import compare, render
from ropewalk.evaluate.paired import holm, mcnemar, sign_flips
from tests.evaluate.samples import sample


def shown(comparisons):
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(render(comparisons))
    return console.file.getvalue()


def both(documents=8, task="needle", length=4096, better=6, **options):
    """`documents` of one binary score each: stock misses all, yarn finds the first `better`."""
    places = {"task": task, "length": length}
    return [sample(i, [0.0], **places) for i in range(documents)] + [
        sample(i, [float(i < better)], method="yarn", **places, **options) for i in range(documents)
    ]


def test_methods_are_compared_in_pairs():
    [made] = compare(both(), "none", "yarn")
    assert (made.first_mean, made.second_mean, made.difference.mean) == (0.0, 0.75, 0.75)
    assert (made.difference.p, made.difference.n, made.difference.documents) == (mcnemar(6, 0), 8, 8)
    assert (made.first, made.second, made.warnings) == ("none:window=512", "yarn:window=512", ())
    [turned] = compare(both(), "yarn:window=512", "none:window=512")
    assert turned.difference.mean == -0.75 and turned.difference.p == made.difference.p
    json.dumps(made.to_json(), allow_nan=False)


def test_holm_runs_over_the_tasks_of_a_length():
    rows = both() + both(task="vt", better=8) + both(length=8192, better=5)
    made = compare(rows, "none", "yarn")
    at_4k = [each for each in made if each.length == 4096]
    assert [each.task for each in at_4k] == ["needle", "vt"]
    assert [each.holm_p for each in at_4k] == holm([mcnemar(6, 0), mcnemar(8, 0)])
    [at_8k] = [each for each in made if each.length == 8192]
    assert at_8k.holm_p == at_8k.difference.p == mcnemar(5, 0)


def test_prompts_that_differ_by_hash_are_left_out_with_a_warning():
    rows = both()
    rows[8] = sample(0, [1.0], method="yarn", prompt="another")
    [made] = compare(rows, "none", "yarn")
    assert made.difference.n == 7
    assert made.warnings == ("1 of 8 prompts differ by hash and are left out",)
    [made] = compare(both(prompt="all others"), "none", "yarn")
    assert made.difference is None and made.holm_p is None and made.first_mean is None
    assert "8 of 8 prompts differ by hash" in shown([made])


def test_documents_of_one_method_only_are_left_out_with_a_warning():
    [made] = compare(both()[:-2], "none", "yarn")
    assert (made.difference.n, made.warnings) == (6, ("2 documents have samples of one method only and are left out",))


def test_other_doubts_are_warned_of():
    [made] = compare(both(versions={"ropewalk": "0.1.0", "torch": "3"}), "none", "yarn")
    assert made.warnings == ("the methods were run with different versions of torch",)
    [made] = compare(both(), "none", "yarn", calibration={"prompt-0-3", "elsewhere"})
    assert made.warnings == ("1 of 8 prompts were used to calibrate: these are not test scores",)
    [made] = compare(both(1), "none", "yarn")
    assert "a single document" in made.warnings[0]
    assert "2 documents: no p of fewer than 6" in compare(both(2), "none", "yarn")[0].warnings[0]
    assert min(compare(both(5), "none", "yarn")[0].difference.p, sign_flips([1.0] * 5)) > 0.05
    rows = both()
    rows[0] = sample(0, [0.0, 0.0])
    assert "unequal numbers of scores" in compare(rows, "none", "yarn")[0].warnings[0]


def test_seeds_are_pooled_and_models_are_not():
    rows = both() + [sample(i, [1.0], method=m, seed=1) for i in range(4) for m in ("none", "yarn")]
    [made] = compare(rows, "none", "yarn")
    assert made.difference.documents == 12
    rows += [sample(i, [1.0], method=m, model_sha256="other") for i in range(4) for m in ("none", "yarn")]
    assert [each.difference.documents for each in compare(rows, "none", "yarn")] == [12, 4]


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        (both(), ("none", "none"), "compared with itself"),
        (both(), ("none", "yarm"), "no samples of 'yarm' here; there are: none, yarn"),
        ([], ("none", "yarn"), "there are: no samples at all"),
        ([sample(), sample(method="yarn", length=8192)], ("none", "yarn"), "no task, length and model in common"),
        (
            [*both(), sample(0, [1.0], method="yarn", resolved="yarn:window=99", backend="cpu")],
            ("none", "yarn"),
            r"2 settings of needle at 4096: yarn:window=512 of tiny \(plan plan-yar, model's own, float32, weights",
        ),
    ],
    ids=["itself", "unknown", "empty", "apart", "ambiguous"],
)
def test_what_cannot_be_compared_is_refused(rows, names, message):
    with pytest.raises(EvaluationError, match=message):
        compare(rows, *names)


def test_two_spellings_of_one_setting_are_one_method():
    rows = both()
    rows[9] = replace(rows[9], method="yarn:window=512")
    [made] = compare(rows, "none", "yarn")
    assert (made.difference.n, made.warnings) == (8, ())


def test_table_shows_numbers_names_and_numbered_notes():
    text = shown(compare(both()[:-1] + both(task="vt", better=8), "none", "yarn"))
    assert "A: none:window=512" in text and "B: yarn:window=512" in text
    assert "retrieved: needle, vt" in text
    assert "+0.857" in text and "needle" in text and "4k" in text
    assert "[1] 1 documents have samples" in text and text.count("[1]") == 2


def test_endpoint_pairs_with_a_local_model_though_its_weights_are_not_known():
    local = [sample(document, [1.0], method="dpe") for document in range(3)]
    served = [
        sample(document, [0.0], method="gpt", model_sha256="url", dtype="unknown", backend="endpoint")
        for document in range(3)
    ]
    [one] = compare([*local, *served], "dpe", "gpt")
    assert (one.difference.mean, one.difference.documents) == (-1.0, 3)
    assert one.model == "tiny"
    half = [sample(document, [0.5], method="dpe", dtype="bfloat16") for document in range(3)]
    with pytest.raises(EvaluationError, match=r"2 settings .* bfloat16, .* float32"):
        compare([*local, *half, *served], "dpe", "gpt")
