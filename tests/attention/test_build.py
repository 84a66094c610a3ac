"""The compiled library: built once for all processes, and a plain reason where it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ropewalk.attention import build

ASK = "import torch; from ropewalk.attention.build import missing; print(missing(torch.float32))"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path))
    return tmp_path / "compiled"


def test_no_compiler_is_said(cache, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = build._library.__wrapped__()
    assert reason == "no C++ compiler is there ($CXX (no-such-compiler)); install one, for example Debian's g++"
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert "(g++, clang++, c++)" in build._library.__wrapped__()


def test_a_failing_compiler_is_quoted_and_leaves_nothing(cache, monkeypatch, tmp_path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'attention.cpp:1: error: the disk is on fire' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    reason = build._library.__wrapped__()
    assert reason == f"{compiler} could not compile it: attention.cpp:1: error: the disk is on fire"
    assert [file.suffix for file in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({"avx512_bw": False}, "the processor has no avx512_bw"),
        ({"avx512_f": False, "avx512_dq": False}, "the processor has no avx512_f, avx512_dq"),
    ],
)
def test_a_lesser_processor_is_refused_with_what_it_lacks(monkeypatch, lacking, reason) -> None:
    has = dict.fromkeys(build.WANTED, True) | lacking
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    assert build._processor.__wrapped__() == reason


def test_another_machine_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: "arm64")
    assert "not for" in build._processor.__wrapped__() and "arm64" in build._processor.__wrapped__()


@pytest.fixture
def runs_here() -> None:
    """Asked before `cache`, into which this process would build the library itself."""
    reason = build.missing(torch.float32)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.slow
def test_two_processes_at_once_build_one_library(runs_here, cache) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600) for process in both]
    assert [out.strip() for out, _ in said] == ["None", "None"], said
    assert sum("compiling attention" in err for _, err in said) == 1
    assert sorted(file.suffix for file in cache.iterdir()) == [".lock", ".so"]
