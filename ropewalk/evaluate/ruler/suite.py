"""The tasks by name: RULER's thirteen, and our own."""

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.base import Family
from ropewalk.evaluate.ruler.cwe import CommonWords
from ropewalk.evaluate.ruler.fwe import FrequentWords
from ropewalk.evaluate.ruler.niah import Niah
from ropewalk.evaluate.ruler.qa import QuestionAnswering
from ropewalk.evaluate.ruler.synthetic import Biographies, Ledger
from ropewalk.evaluate.ruler.vt import VariableTracking
from ropewalk.registry import Registry

# In the order of RULER's table; parameters from scripts/synthetic.yaml at c3f5e3b.
_RULER: dict[str, Family] = {
    "niah_single_1": Niah("noise"),
    "niah_single_2": Niah("essay"),
    "niah_single_3": Niah("essay", value="uuids"),
    "niah_multikey_1": Niah("essay", keys=4),
    "niah_multikey_2": Niah("needle"),
    "niah_multikey_3": Niah("needle", key="uuids", value="uuids"),
    "niah_multivalue": Niah("essay", values=4),
    "niah_multiquery": Niah("essay", queries=4),
    "vt": VariableTracking(),
    "cwe": CommonWords(),
    "fwe": FrequentWords(),
    "qa_1": QuestionAnswering("load_squad(path)", "--squad"),
    "qa_2": QuestionAnswering("load_hotpotqa(path)", "--hotpotqa"),
}
_OWN: dict[str, Family] = {"qa_biography": Biographies(), "qa_ledger": Ledger()}

RULER = tuple(_RULER)
# Those that need no file of the user's.
OFFLINE = tuple(name for name, family in _RULER.items() if not isinstance(family, QuestionAnswering))
# Those that do, with the option that names it.
QUESTIONS = {name: family.option for name, family in _RULER.items() if isinstance(family, QuestionAnswering)}
# Never reported under RULER's names, and never part of its macro score.
SYNTHETIC = tuple(_OWN)

FAMILIES: Registry[Family] = Registry("RULER task", EvaluationError)
for _name, _family in {**_RULER, **_OWN}.items():
    FAMILIES.register(_name)(_family)
