import itertools
import random

import pytest

from ropewalk.evaluate.ruler.suite import FAMILIES, SYNTHETIC


@pytest.mark.parametrize("task", SYNTHETIC)
@pytest.mark.parametrize("seed", range(3))
def test_answer_stands_in_its_own_statement_only(task, seed):
    gold, *others = itertools.islice(FAMILIES.get(task).facts(random.Random(seed)), 20_000)
    assert gold.answer in gold.statement and gold.answer not in gold.query
    assert not any(gold.answer.lower() in other.statement.lower() for other in others)
    assert not any(gold.query == other.query for other in others)


@pytest.mark.parametrize("seed", range(3))
def test_other_people_share_a_first_name_or_surname(seed):
    gold, *others = itertools.islice(FAMILIES.get("qa_biography").facts(random.Random(seed)), 30)
    first, last = gold.statement.split()[:2]
    names = [tuple(other.statement.split()[:2]) for other in others]
    assert (first, last) not in names and len(set(names)) == len(names)
    assert sum(name[0] == first for name in names) >= 8 and sum(name[1] == last for name in names) >= 2


def test_other_deliveries_share_two_of_goods_customer_and_date():
    gold, *others = itertools.islice(FAMILIES.get("qa_ledger").facts(random.Random(0)), 60)
    day, rest = gold.statement.split(", to ")
    customer, goods = rest.split(", ")[0].split(": ")
    shared = [sum((day in text, customer in text, goods in text)) for text in (other.statement for other in others)]
    assert shared.count(2) >= 8 and 3 not in shared
