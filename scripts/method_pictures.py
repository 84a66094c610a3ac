"""Draw docs/methods/img/*.png: the plan of every method on SmolLM2 at twice its window.

Run it with `python -m scripts.method_pictures`.
"""

import io

from PIL import Image

from ropewalk.draw import figure
from ropewalk.methods import METHODS
from scripts.method_pages import DOCS, LENGTH, SPEC, example

WIDTH = 1100  # pixels
COLOURS = 192  # the colour map, its red end and the lines, at a third of the bytes


def main() -> None:
    folder = DOCS / "methods" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    for name in METHODS:
        drawn = io.BytesIO()
        title = f"{name} on SmolLM2 ({SPEC.pretrained_length:,} tokens) at {LENGTH:,} tokens"
        figure(example(name).plan(SPEC, LENGTH), SPEC, LENGTH, path=drawn, title=title)  # type: ignore[arg-type]
        picture = Image.open(drawn).convert("RGB")
        picture = picture.resize((WIDTH, picture.height * WIDTH // picture.width), Image.Resampling.LANCZOS)
        path = folder / f"{name}.png"
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
