"""The figures of the library's structure: entries, lines, longest file and function, comments, order of the packages.

``python -m benchmarks.house`` prints them beside what they may be; ``tests/test_house.py`` holds the limits.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, TESTS = ROOT / "repro_lib", ROOT / "tests"

# A package imports from packages in earlier rows only; never from one in its own row.
FLOORS = (
    ("config", "system", "metrics"),
    ("data", "models"),
    ("store",),
    ("training", "analysis"),
    ("plots",),
    ("whatif", "report"),
    ("grid",),
    ("cli",),
)
FLOOR_OF = {name: floor for floor, row in enumerate(FLOORS) for name in row}
# The largest numbers (of comments the smallest) that the house may have. Lines of library and tests are where they were last
# brought to, with room for a model or two.
LIMITS = {"entries": 15, "library": 21_250, "tests": 19_010, "file": 300, "function": 60, "comments": 5.0}


@dataclass(frozen=True)
class Source:
    """One file: its dotted name below the library (``store.schema``; a package has its own name), text and syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The entry of ``repro_lib`` that it belongs to; empty for the root itself."""
        return self.name.split(".")[0]


def sources(folder: Path = LIBRARY) -> list[Source]:
    """Every Python file below a folder."""
    read = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        read.append(Source(name, path, text, ast.parse(text)))
    return read


def imports(source: Source, known: set[str]) -> set[str]:
    """The modules of the library that a file imports, anywhere in it but for type checkers alone."""
    modules: set[str] = set()
    waiting: list[ast.AST] = [source.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` names a module, `from module import name` does not.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name.removeprefix("repro_lib.") in known else node.module for name in inner}
        waiting += ast.iter_child_nodes(node)
    ours = {name.removeprefix("repro_lib").removeprefix(".") for name in modules if name.split(".")[0] == "repro_lib"}
    return ours - {""}


def wrong_directions(files: list[Source]) -> list[str]:
    """A sentence for every import that does not go down."""
    known = {source.name for source in files}
    return [
        f"{source.name} imports {imported}, and {source.package} stands on no higher floor than {imported.split('.')[0]}"
        for source in files
        if source.package in FLOOR_OF
        for imported in sorted(imports(source, known))
        if imported.split(".")[0] != source.package and FLOOR_OF.get(imported.split(".")[0], 99) >= FLOOR_OF[source.package]
    ]


def circle(files: list[Source]) -> list[str]:
    """Modules that import each other in a circle, in its order; empty where there is none."""
    known = {source.name for source in files}
    try:
        TopologicalSorter({source.name: imports(source, known) - {source.name} for source in files}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def functions(files: list[Source]) -> Iterator[tuple[int, str]]:
    """Length in lines and name of every function."""
    for source in files:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{source.name}.{node.name}"


def comments_per_100_lines(files: list[Source]) -> float:
    """Comments among 100 lines that are not blank; those that only direct a tool do not count."""
    tools = ("noqa", "pyright:", "type:", "fmt:")
    comments = lines = 0
    for source in files:
        lines += sum(bool(line.strip()) for line in source.text.splitlines())
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            if token.type == tokenize.COMMENT:
                comments += not token.string.lstrip("# ").startswith(tools)
    return 100 * comments / lines


def lines_of(files: list[Source]) -> int:
    """Lines in all, blank ones too."""
    return sum(source.text.count("\n") for source in files)


def figures() -> dict[str, float]:
    """Every figure that has a limit in ``LIMITS``."""
    library = sources()
    return {
        "entries": len([path for path in LIBRARY.iterdir() if path.name != "__pycache__"]),
        "library": lines_of(library),
        "tests": lines_of(sources(TESTS)),
        "file": max(source.text.count("\n") for source in library),
        "function": max(functions(library))[0],
        "comments": comments_per_100_lines(library),
    }


def main() -> None:
    """Print the figures, the longest files and functions, and what points the wrong way."""
    library = sources()
    for name, figure in figures().items():
        print(f"{name:<10} {figure:>9,.1f}   {'at least' if name == 'comments' else 'at most'} {LIMITS[name]:,}")
    for source in sorted(library, key=lambda source: -source.text.count("\n"))[:10]:
        print(f"{source.text.count(chr(10)):>5} lines  {source.name or 'repro_lib'}")
    for length, name in sorted(functions(library), reverse=True)[:10]:
        print(f"{length:>5} lines  {name}()")
    print("\n".join(wrong_directions(library)) or "every import goes down")
    print(f"a circle: {' -> '.join(found)}" if (found := circle(library)) else "no circle")


if __name__ == "__main__":
    main()
