"""Where ropewalk keeps what it can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$ROPEWALK_CACHE, else $XDG_CACHE_HOME/ropewalk, else ~/.cache/ropewalk; it need not exist."""
    own = os.environ.get("ROPEWALK_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ropewalk"
