"""The wording of the tasks: what is asked, how the answer is begun, how many tokens it may have.

RULER's wording is that of NVIDIA/RULER at c3f5e3b (scripts/data/synthetic/constants.py, Apache-2.0, notice in
ropewalk/data/README.md); scores depend on it to the letter. The two synthetic question answering tasks have our own.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """A task in words.

    Attributes:
        task: what the user says; {context} and the task's own fields in braces.
        prefix: how the model's answer begins, given to it after its turn has begun; the same fields.
        tokens_to_generate: the room kept for the answer.
    """

    task: str
    prefix: str
    tokens_to_generate: int


NEEDLES = Wording(
    "Some special magic {type} are hidden within the following text. Make sure to memorize it. I will quiz you about "
    "the {type} afterwards.\n{context}\nWhat are all the special magic {type} for {query} mentioned in the provided "
    "text?",
    " The special magic {type} for {query} mentioned in the provided text are",
    128,
)
# With one query for one value NVIDIA's generator turns NEEDLES into the singular.
NEEDLE = Wording(
    "A special magic {type} is hidden within the following text. Make sure to memorize it. I will quiz you about "
    "the {type} afterwards.\n{context}\nWhat is the special magic {type} for {query} mentioned in the provided text?",
    " The special magic {type} for {query} mentioned in the provided text is",
    128,
)
# Plural type in both.
NEEDLE_SENTENCE = "One of the special magic {type} for {key} is: {value}."

VARIABLES = Wording(
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find "
    "all variables that are assigned the value {query} in the text above.",
    " Answer: According to the chain(s) of variable assignment in the text above, {count} variables are assigned the "
    "value {query}, they are: ",
    30,
)
COMMON_WORDS = Wording(
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list?",
    " Answer: The top 10 words that appear most often in the list are:",
    120,
)
FREQUENT_WORDS = Wording(
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the "
    "three most frequently appeared words in the above coded text?",
    " Answer: According to the coded text above, the three most frequently appeared words are:",
    50,
)
DOCUMENTS = Wording(
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me "
    "the answer and do not output any other words.\n\nQuestion: {query}",
    " Answer:",
    32,
)
NOISE = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)

BIOGRAPHIES = Wording(
    "These are short biographies of people who never lived.\n\n{context}\n\nUse only the biographies to answer, as "
    "briefly as you can.\nQuestion: {query}",
    " Answer:",
    32,
)
LEDGER = Wording(
    "This is the ledger of a warehouse, one delivery a line.\n\n{context}\n\nUse only the ledger to answer, as briefly "
    "as you can.\nQuestion: {query}",
    " Answer: The price in crowns was",
    32,
)
