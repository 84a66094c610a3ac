"""Who may import whom: the table of the design, held for every file, and what `import ropewalk` may load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ropewalk"
FILES = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
BASE = ("errors", "registry", "lengths", "folders")
CORE = (*BASE, "grid", "rotary")

# room -> the rooms of ropewalk that it may import besides itself; a room is a folder or a file of the package
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "registry": ("errors",),
    "lengths": ("errors",),
    "folders": (),
    "grid": ("errors",),
    "rotary": ("errors", "grid"),
    "plan": CORE,
    "profile": CORE,
    "draw": (*CORE, "plan"),
    "execution": BASE,
    "methods": (*CORE, "plan", "profile"),
    "attention": (*CORE, "plan"),
    "models": (*CORE, "plan", "profile", "methods", "attention"),
    # by the front door of the package too: `ropewalk.extend` is loaded when it is asked for
    "evaluate": (*CORE, "plan", "profile", "methods", "attention", "models", "execution", "draw", "ropewalk"),
    "calibrate": (*CORE, "plan", "profile", "methods", "models", "execution", "evaluate", "ropewalk"),
    "train": (*CORE, "plan", "profile", "methods", "models", "evaluate"),
    "serve": (*CORE, "plan", "profile", "methods", "attention", "models"),
}
FREE = {"ropewalk", "__main__", "cli"}  # the front doors import whatever they offer

# What only some rooms may import from outside.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "transformers": ("models", "evaluate", "calibrate", "train", "serve"),
    "torch": ("rotary", "plan", "draw", "attention", "models", "evaluate", "calibrate", "train", "serve"),
    "sentence_transformers": ("models", "evaluate", "train"),
    "typer": (),
    "rich": ("evaluate",),
    "matplotlib": ("draw", "evaluate", "calibrate"),
}


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere in it, type checking included, names and all."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """ropewalk.methods.dpe -> methods; ropewalk itself -> ropewalk."""
    parts = [part for part in module.split(".") if part != "__init__"]
    return parts[1] if len(parts) > 1 else "ropewalk"


def files_of(name: str) -> dict[Path, str]:
    return {path: module for path, module in FILES.items() if room(module) == name}


def test_every_room_stands_in_the_table() -> None:
    assert {room(module) for module in FILES.values()} == set(MAY_IMPORT) | FREE


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_room_imports_only_what_it_may(name) -> None:
    for path in files_of(name):
        seen = {room(module) for module in imports(path) if module.split(".")[0] == "ropewalk"}
        assert seen <= {name, *MAY_IMPORT[name]}, path.name


@pytest.mark.parametrize("library", OUTSIDE)
def test_library_is_imported_only_where_it_may_be(library) -> None:
    for path, module in FILES.items():
        if room(module) not in FREE and room(module) not in OUTSIDE[library]:
            assert library not in {name.split(".")[0] for name in imports(path)}, path.name


BACKEND_FILES = [
    path
    for path in files_of("attention")
    if "BACKENDS.register" in path.read_text(encoding="utf-8") and path.name != "base.py"
]


@pytest.mark.parametrize("path", BACKEND_FILES, ids=lambda path: path.stem)
def test_backends_never_import_one_another(path) -> None:
    others = {FILES[other] for other in BACKEND_FILES if other != path}
    assert len(BACKEND_FILES) > 1 and others
    for name in imports(path):
        assert not any(name == other or name.startswith(other + ".") for other in others)


def test_reference_imports_only_plan_and_rotary() -> None:
    seen = {n.rpartition(".")[0] for n in imports(PACKAGE / "attention" / "reference.py") if n.startswith("ropewalk")}
    assert seen <= {"ropewalk.plan", "ropewalk.rotary", "ropewalk.attention.base"}


def test_oracles_import_nothing_of_ropewalk() -> None:
    oracles = [path for path in (PACKAGE.parent / "tests" / "oracles").glob("*.py") if "test_" not in path.name]
    assert len(oracles) > 3
    for path in oracles:
        assert not [name for name in imports(path) if name.split(".")[0] == "ropewalk"], path.name


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import ropewalk", "torch transformers triton matplotlib"),
        ("import ropewalk.cli", "torch transformers triton matplotlib"),
        ("import ropewalk.methods", "transformers triton matplotlib"),
        ("import ropewalk.attention", "transformers matplotlib"),
    ],
)
def test_import_loads_no_more_than_it_needs(statement, unwanted) -> None:
    code = f"import sys; {statement}; print([name for name in {unwanted.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
