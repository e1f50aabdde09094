"""The structure of the library, read from its source: size, order of the packages, and what no file may do.

The figures and their limits are in ``benchmarks/house.py``; ``python -m benchmarks.house`` prints them."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.house import FLOOR_OF, LIBRARY, LIMITS, ROOT, circle, figures, imports, sources, wrong_directions

FILES = sources()
KNOWN = {source.name for source in FILES}
# What a cluster worker has: training needs nothing else.
WORKER_PACKAGES = {"torch", "numpy", "pydantic", "safetensors"}
# Whoever looks for what a large package is used for looks here.
HOMES = {
    "argparse": {"cli"},
    "papermill": {"grid"},
    "nbconvert": {"report"},
    "ipywidgets": {"whatif", "report"},
    "matplotlib": {"plots"},
}
# Loading any of these can run code that a file brings along.
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNS_ANYTHING = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.load", "torch.save",
    "torch.jit.load", "np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle",
}  # fmt: skip
GLOBAL_RANDOMNESS = {
    "torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.random.manual_seed",
}  # fmt: skip
SILENCERS = {"warnings.filterwarnings", "warnings.simplefilter", "warnings.catch_warnings"}


def dotted(node: ast.AST) -> str:
    """``torch.load`` for the attribute of that spelling, else ''."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def names_used(tree: ast.AST) -> set[str]:
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
    }
    return imported | {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def packages_of_others(tree: ast.AST) -> set[str]:
    """The packages that a file imports, by their first name; not those for type checkers alone."""
    first: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            first |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            first.add(node.module.split(".")[0])
        waiting += ast.iter_child_nodes(node)
    return first - {"repro_lib", "__future__"}


def other_code() -> Iterator[tuple[str, ast.Module]]:
    """Every Python file beside the library, and the code of every notebook, by name."""
    for folder in ("benchmarks", "docs", "tests", "workflow", "published/rebuild"):
        yield from ((source.path.name, source.tree) for source in sources(ROOT / folder))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        yield from ((path.name, ast.parse("".join(cell["source"]))) for cell in cells)


def test_the_house_keeps_its_size() -> None:
    found = figures()
    # Of comments there are to be at least so many, of all else at most.
    over = {name for name, limit in LIMITS.items() if (found[name] > limit) == (name != "comments") and found[name] != limit}
    assert over == set(), "see python -m benchmarks.house"


def test_every_entry_has_a_floor_and_imports_go_down_without_a_circle() -> None:
    entries = {path.stem for path in LIBRARY.iterdir() if path.name not in ("__pycache__", "__init__.py", "__main__.py")}
    assert entries == set(FLOOR_OF), "say in FLOORS of benchmarks/house.py where a new package stands"
    assert wrong_directions(FILES) == []
    assert circle(FILES) == []
    by_name = {source.name: source for source in FILES}
    assert "store.predictions" in imports(by_name["training.experiment"], KNOWN), "this test reads imports"


def test_a_package_says_what_comes_in_and_what_goes_out() -> None:
    for source in FILES:
        if source.path.name == "__init__.py" and source.name.count(".") == 0 and source.name:
            about = ast.get_docstring(source.tree) or ""
            assert "In:" in about and "Out:" in about, f"{source.name}: its docstring says neither"  # noqa: PT018


def test_large_packages_have_one_home() -> None:
    for package, homes in HOMES.items():
        assert {source.package for source in FILES if package in packages_of_others(source.tree)} <= homes, package
    by_name, reached, waiting = {source.name: source for source in FILES}, set(), ["training.experiment"]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in reached:
            reached.add(name)
            waiting += imports(by_name[name], KNOWN)
    assert {"store.schema", "training.trainer", "metrics.prediction_difference"} <= reached, "this test follows imports"
    for name in reached:
        assert packages_of_others(by_name[name].tree) - set(sys.stdlib_module_names) <= WORKER_PACKAGES, name


def test_a_notebook_imports_from_few_places() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = "\n".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code")
        lines = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert len(lines) <= 6, f"{path.name} has {len(lines)} lines of imports"
        ours = [node.module or "" for node in lines if isinstance(node, ast.ImportFrom)]
        packages = {source.name for source in FILES if source.path.name == "__init__.py"}
        assert {name.removeprefix("repro_lib").removeprefix(".") for name in ours if name.startswith("repro_lib")} <= packages


def test_nothing_is_unpickled_no_shell_is_started_and_no_global_generator_is_read() -> None:
    """A magic or a line for the shell in a notebook would not be Python, and fail here too."""
    for source in FILES:
        used = names_used(source.tree)
        # A forked kernel gives the generators that a user's cells may draw from a seed of their own, once.
        used -= {"torch.seed", "np.random.seed"} if source.name == "grid.forked_kernels" else set()
        assert not used & (RUNS_ANYTHING | GLOBAL_RANDOMNESS | SILENCERS), source.name
        assert not packages_of_others(source.tree) & (UNPICKLERS | {"random"}), source.name
        drawn = {name.split(".")[2] for name in used if name.startswith(("np.random.", "numpy.random."))}
        assert drawn <= {"default_rng", "Generator", "SeedSequence", "PCG64"}, source.name
    trees = [*other_code(), *((source.name, source.tree) for source in FILES)]
    assert len(trees) > 150
    for name, tree in trees:
        assert not packages_of_others(tree) & UNPICKLERS, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                given = {word.arg: word.value for word in node.keywords}
                called = dotted(node.func)
                assert called not in RUNS_ANYTHING - {"torch.load", "torch.save", "np.load", "numpy.load"}, f"{name}: {called}"
                assert called != "torch.load" or ast.unparse(given["weights_only"]) == "True", f"{name}: line {node.lineno}"
                assert "shell" not in given, f"{name}, line {node.lineno}: {ast.unparse(node)}"


def test_the_package_loads_no_torch_before_it_is_needed() -> None:
    statements = (
        "import repro_lib, repro_lib.config; repro_lib.Config.for_model('charlm', 'quick').sha256('0' * 64)",
        "from repro_lib.config.members import members",
        "import repro_lib.cli.parser; repro_lib.cli.parser.parse(['status'])",
    )
    for statement in statements:
        script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        assert not set(json.loads(done.stdout)) & {"torch", "pandas", "matplotlib", "papermill", "nbconvert"}


def test_the_faces_hand_on_what_they_name() -> None:
    for source in FILES:
        if source.path.name != "__init__.py" or not source.name.replace(".", "").isalpha():
            continue
        face = importlib.import_module(f"repro_lib.{source.name}")
        for block in (node for node in source.tree.body if isinstance(node, ast.If)):
            names = [alias.asname or alias.name for node in block.body for alias in getattr(node, "names", ())]
            assert 1 <= len(names) <= 18, source.name
            assert set(names) <= set(dir(face)), source.name
            assert all(getattr(face, name) is not None for name in names)
    import repro_lib

    assert all(getattr(repro_lib, name) is not None for name in repro_lib.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        repro_lib.train  # noqa: B018


def test_the_map_names_every_file_and_readme_keeps_its_size() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_map.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120 and not line.startswith("| ")] == []  # a table's row is one line
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for part in page.read_text(encoding="utf-8").split("](")[1:]:
            target = part.partition(")")[0].partition("#")[0]
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_nothing_cites_what_is_not_in_the_repository() -> None:
    # In two pieces, for this file is looked through as well.
    elsewhere = re.compile("DES" r"IGN|science\." "md")
    for folder in ("repro_lib", "tests", "docs", "benchmarks", "published", "notebooks", "workflow"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".ipynb"):
                assert not elsewhere.search(path.read_text(encoding="utf-8")), path


def test_text_files_are_utf_8_whatever_the_locale_is() -> None:
    # ruff's rule for this sees only paths whose type it knows.
    loose = []
    for source in sources():
        for call in (node for node in ast.walk(source.tree) if isinstance(node, ast.Call)):
            called, words = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            opens = called in ("open", "os.fdopen") or called.endswith((".read_text", ".write_text"))
            binary = any(isinstance(given, ast.Constant) and given.value in ("rb", "wb", "ab") for given in call.args[1:2])
            if (opens and not binary and "encoding" not in words) or words.get("text") == "True":
                loose.append(f"{source.name}:{call.lineno}")
    assert loose == []
