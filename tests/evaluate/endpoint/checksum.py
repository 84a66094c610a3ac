"""A task whose score any other text changes: a random model's right answers would all be none."""

import zlib

from ropewalk.evaluate.ruler.task import Ruler


class Checksum(Ruler):
    """The ledger with a metric that any other text changes."""

    name = "checksum"

    def __init__(self):
        super().__init__("qa_ledger")

    def grade(self, document, question, said):
        return zlib.crc32(said.encode()) % 1000 / 1000

    def measure(self, model, tokenizer, document, *, report):
        sample = super().measure(model, tokenizer, document, report=report)
        return type(sample)((self.grade(document, 0, sample.details["prediction"]),), 1, 0.0, sample.details)
