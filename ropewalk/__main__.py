"""`python -m ropewalk`: the same as the command `ropewalk`."""

import sys

from ropewalk.cli import main

sys.exit(main())
