import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.ruler.questions import load_hotpotqa, load_squad
from ropewalk.evaluate.ruler.sample import Generator


@pytest.fixture(scope="session")
def byte_tokenizer():
    """One token a byte: the longest units that any tokenizer can make of a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=whole)


@pytest.fixture(scope="session")
def essays(tmp_path_factory):
    """A short running text, so that long prompts go past its end."""
    path = tmp_path_factory.mktemp("essays") / "essays.txt"
    path.write_text(corpora.load("sotu")[:20_000], encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """SQuAD and HotpotQA in the small: every answer stands in one paragraph only."""
    folder = tmp_path_factory.mktemp("questions")
    articles = []
    for article in range(6):
        texts = [
            f"Paragraph {part} of article {article} says that the code is answer{article}x{part}. "
            + " ".join(f"word{(7 * part + article + place) % 50}" for place in range(60))
            for part in range(10)
        ]
        blocks = [
            {
                "context": text,
                "qas": [
                    {
                        "question": f"What is the code of part {part} of article {article}?",
                        "answers": [{"text": f"answer{article}x{part}"}, {"text": f"the answer{article}x{part}"}],
                        "is_impossible": False,
                    },
                    {"question": "What is not said?", "answers": [], "is_impossible": True},
                ],
            }
            for part, text in enumerate(texts)
        ]
        articles.append({"title": f"article {article}", "paragraphs": blocks})
    squad = folder / "squad.json"
    squad.write_text(json.dumps({"data": articles}), encoding="utf-8")
    hotpot = folder / "hotpot.json"
    entries = [
        {
            "question": f"Where does chain {number} end?",
            "answer": f"place{number}end",
            "context": [
                [f"Title {number}-{part}", [f"Step {part} of chain {number}.", f" It goes to place{number}{end}."]]
                for part, end in enumerate(["a", "b", "c", "end", "d", "e", "f", "g", "h", "i"])
            ],
            "supporting_facts": [[f"Title {number}-2", 0], [f"Title {number}-3", 1]],
        }
        for number in range(30)
    ]
    hotpot.write_text(json.dumps(entries), encoding="utf-8")
    return {"qa_1": str(squad), "qa_2": str(hotpot)}


@pytest.fixture(scope="session")
def questions(files):
    return {"qa_1": load_squad(files["qa_1"]), "qa_2": load_hotpotqa(files["qa_2"])}


@pytest.fixture(scope="session")
def generator(tokenizer, essays, questions):
    """Generators of samples with the test's texts; the word tokenizer unless another is given."""

    def make(task, length, **options):
        options = {"tokenizer": tokenizer, "corpus": essays, "questions": questions.get(task), **options}
        return Generator(task, length=length, **options)

    return make
