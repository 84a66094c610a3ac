"""One process of a data-parallel run: `python -m tests.train.parallel FOLDER BATCH`, started by torchrun or alone."""

import sys

from ropewalk.train.run import train
from tests.architectures import build
from tests.train.test_run import METHOD, SAMPLER, SETTINGS, documents, replace

if __name__ == "__main__":
    settings = replace(SETTINGS, steps=3, batch=int(sys.argv[2]))
    train(build("llama"), METHOD, SAMPLER, documents(), settings, sys.argv[1])
