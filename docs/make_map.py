"""Writes docs/map.md, every package and file of the library with its first line, and the tree in README.md.

python docs/make_map.py            after files or their docstrings changed
python docs/make_map.py --check    say whether they are as the files are, and change nothing
"""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, MAP, README = ROOT / "repro_lib", ROOT / "docs" / "map.md", ROOT / "README.md"
# In the order of the data; docs/design.md says who may import whom.
ENTRIES = ("config", "system", "metrics", "data", "models", "store", "training", "analysis", "plots", "whatif", "report")
ENTRIES += ("grid", "cli")
BEGIN, END = "    repro_lib/", "    tests/"
WIDTH = 118


def first_line(path: Path) -> str:
    """The first sentence or line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def files_of(folder: Path) -> list[Path]:
    """Its Python files in a package and the packages in it, but for ``__init__``."""
    return sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")


def entry_path(entry: str) -> Path:
    """The file whose docstring says what an entry of the library is."""
    file = LIBRARY / f"{entry}.py"
    return file if file.exists() else LIBRARY / entry / "__init__.py"


def tree() -> str:
    """The library as README shows it: an entry and what it is; docs/map.md has the files."""
    lines = ["    repro_lib/           the library, in the order of the data; a package imports from packages above it alone"]
    for entry in ENTRIES:
        name = entry if (LIBRARY / f"{entry}.py").exists() else f"{entry}/"
        lines += textwrap.wrap(
            first_line(entry_path(entry)), WIDTH, initial_indent=f"      {name:<19}", subsequent_indent=" " * 25
        )
    return "\n".join(lines) + "\n"


def map_page() -> str:
    """The text of docs/map.md."""
    lines = ["# Every file of the library", ""]
    lines += ["Read down: the way of the data. Made by `python docs/make_map.py` from the first lines of the files.", ""]
    for entry in ENTRIES:
        path = entry_path(entry)
        lines += [f"## {entry}", "", first_line(path), ""]
        if path.name == "__init__.py":
            lines += [f"- `{file.relative_to(path.parent)}`: {first_line(file)}" for file in files_of(path.parent)] + [""]
    return "\n".join(lines).rstrip() + "\n"


def readme() -> str:
    """README with its tree as the files are."""
    text = README.read_text(encoding="utf-8")
    return text[: text.index(BEGIN)] + tree() + text[text.index(END) :]


def main() -> int:
    """Write both, or with ``--check`` say what differs and return 1."""
    made = {MAP: map_page(), README: readme()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        print(
            "\n".join(f"{path.name} is not as the files are: python docs/make_map.py" for path in stale) or "as the files are"
        )
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
