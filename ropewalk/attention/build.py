"""The compiled backend's library: what it needs of the machine, compiled once, kept in the user's cache.

One C++ compiler call on a file that includes no Python header, about ten seconds. The library's name carries a hash of
the source, torch's version, the compiler's and the options, so that a change of any of them is another file. It appears
by one rename when it is complete; a second process that wants it waits for the first.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from filelock import FileLock

from ropewalk.folders import cache_folder

COMPILERS = ("g++", "clang++", "c++")
OPTIONS = (
    *("-std=c++20", "-O3", "-fPIC", "-fopenmp", "-mprefer-vector-width=512"),
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma"),
)
WANTED = ("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl", "fma3")  # of torch.cpu.get_capabilities
LAST = 300  # characters of a compiler's complaint that are passed on


def missing(dtype: torch.dtype) -> str | None:
    """Why compiled attention in this dtype cannot run here, or None when it can; builds the library when it is new."""
    reason = _processor() or _library()
    if reason is None and dtype == torch.bfloat16:
        reason = _bfloat16()
    return reason


@cache
def _processor() -> str | None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"it is for Linux on x86-64, not for {platform.system()} on {platform.machine()}"
    if not torch.backends.mkldnn.is_available():
        return "this torch was built without oneDNN, whose matrix kernel it uses"
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    lacking = [name for name in WANTED if not has.get(name, False)]
    return f"the processor has no {', '.join(lacking)}" if lacking else None


@cache
def _bfloat16() -> str | None:
    has = torch.cpu.get_capabilities()
    if has.get("avx512_bf16", False) and torch.ops.ropewalk.packs_bfloat16():
        return None
    return "the processor has no AMX for bfloat16, or oneDNN was told not to use it"


@cache
def _library() -> str | None:
    """Build the library if it is not in the cache, and load it; why that failed, or None."""
    found = _compiler()
    if found is None:
        names = f"$CXX ({os.environ['CXX']})" if os.environ.get("CXX") else ", ".join(COMPILERS)
        return f"no C++ compiler is there ({names}); install one, for example Debian's g++"
    compiler, version = found
    source = Path(str(resources.files("ropewalk.attention"))) / "cpu"
    digest = hashlib.sha256("\n".join([torch.__version__, version, *OPTIONS]).encode())
    for file in sorted(source.iterdir()):
        digest.update(file.read_bytes())
    library = cache_folder() / "compiled" / f"attention-{digest.hexdigest()[:20]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{library}.lock"):
            if not library.exists():  # another process may have finished while this one waited
                complaint = _build(compiler, source, library)
                if complaint is not None:
                    return complaint
    torch.ops.load_library(str(library))
    return None


def _compiler() -> tuple[str, str] | None:
    """Path and version of $CXX, or of the first compiler that is there."""
    for name in [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS:
        path = shutil.which(name)
        if path is not None:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return path, done.stdout.partition("\n")[0]
    return None


def _build(compiler: str, source: Path, library: Path) -> str | None:
    """Compile and link; why it failed, or None."""
    print(f"ropewalk: compiling attention for this machine once, into {library.parent}", file=sys.stderr, flush=True)
    root = Path(torch.__file__).parent
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    part = library.with_suffix(f".{os.getpid()}.o")
    whole = library.with_suffix(f".{os.getpid()}.so")
    # Linked without -fopenmp: the runtime is the one that torch brought, not a second one.
    steps = (
        [compiler, *OPTIONS, abi, *includes, "-c", str(source / "attention.cpp"), "-o", str(part)],
        [compiler, "-shared", str(part), f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10", "-o", str(whole)],
    )
    try:
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                errors = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr[-LAST:]]
                return f"{compiler} could not compile it: {errors[0][:LAST]}"
        whole.rename(library)
    finally:
        part.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)
    return None
