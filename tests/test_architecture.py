"""Who may import whom (DESIGN, section 2), read from the source of every module of the library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "repro_lib"

# A new module gets its floor here.
FLOORS: dict[int, set[str]] = {
    0: {"activations", "config", "metrics", "determinism", "files", "environment"}
    | {"lease", "processes", "scratch", "tensor_files", "derived", "notebook_names"},
    1: {"data", "models"},
    2: {"training", "stacked", "experiment", "results", "comparisons", "checkpoints", "consistency", "signed", "trial_state"}
    | {"cell_training", "certificate", "environment_record", "origin", "progress"},
    3: {"statistics", "analysis", "claims", "plots"}
    | {
        "across_activations",
        "caching",
        "cell_anatomy",
        "churn_and_influence",
        "contrasts",
        "disagreement",
        "evaluation_noise",
        "formatting",
        "layer_views",
    }
    | {"notes", "overviews"}
    | {
        "activation_plots",
        "anatomy",
        "anatomy_plots",
        "anatomy_tables",
        "conclusions",
        "evidence",
        "evidence_tables",
        "findings",
        "in_short",
        "judging",
        "noise",
        "plot_panels",
        "plot_style",
        "sampling",
        "significance",
        "slices",
        "summary_text",
        "synthetic",
        "tables",
        "trajectories",
        "trajectory_plots",
        "what_ifs",
    },
    4: {
        "notebooks",
        "kernels",
        "reports",
        "page_checks",
        "page_parts",
        "page_pictures",
        "site_pages",
        "widgets",
        "live_training",
        "console",
    }
    | {"what_if_display", "what_if_html"},
    5: {"cli", "grid", "agenda", "cells", "steps", "workers", "summary", "doctor", "certify", "__main__"}
    | {"cards", "run_job", "runs", "snakemake_executor"},
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}

# What a cluster worker has: floors 0 to 2 need nothing else.
WORKER_PACKAGES = {"torch", "numpy", "pydantic", "safetensors"}
ONLY_HOME = {
    "argparse": "cli_parser",
    "papermill": "notebooks",
    "nbconvert": "reports",
    "ipywidgets": "widgets live_training",
}
RUNS_ANYTHING = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pickle.load", "pickle.loads"}
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def module_paths() -> dict[str, Path]:
    """Dotted name below the package -> file, for every module; the package itself is ''."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = module_paths()


class _Imports(ast.NodeVisitor):
    """Every import that can be executed, also within functions; those for type checkers alone are not."""

    def __init__(self, module: str) -> None:
        self.package = (
            ["repro_lib", *module.split(".")]
            if MODULES[module].name == "__init__.py"
            else ["repro_lib", *module.split(".")][:-1]
        )
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        home = node.module or ""
        if node.level:
            base = [part for part in self.package if part]
            base = base[: len(base) - node.level + 1]
            home = ".".join([*base, *([node.module] if node.module else [])])
        # `from package import module` names a module, `from module import name` does not.
        for alias in node.names:
            inner = f"{home}.{alias.name}".removeprefix("repro_lib.")
            self.found.add(f"repro_lib.{inner}" if home.startswith("repro_lib") and inner in MODULES else home)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self.found.add(str(node.args[0].value))
        self.generic_visit(node)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str) -> frozenset[str]:
    visitor = _Imports(module)
    visitor.visit(tree_of(module))
    return frozenset(visitor.found)


def ours(module: str) -> set[str]:
    """The modules of the library that ``module`` imports, without 'repro_lib.'."""
    return {
        name.removeprefix("repro_lib").removeprefix(".") for name in imports_of(module) if name.split(".")[0] == "repro_lib"
    }


def foreign(module: str) -> set[str]:
    """The packages of others that ``module`` imports, by their first name."""
    first = {name.split(".")[0] for name in imports_of(module)}
    return first - {"repro_lib", "__future__"}


def dotted(node: ast.AST) -> str:
    """``torch.load`` for the attribute of that spelling, else ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def names_used(module: str) -> Iterator[str]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute):
            yield dotted(node)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module: str) -> int:
    return FLOOR_OF[module.split(".")[0]]


def test_this_file_reads_the_library_and_finds_known_imports() -> None:
    assert {"config", "models", "models.layers", "training"} <= set(MODULES)
    assert {"config", "data", "metrics", "models"} <= ours("training")
    assert "models.layers" in ours("models.charlm")
    assert "metrics" in ours("experiment"), "from repro_lib import metrics"
    assert "torch" in foreign("training")
    assert "torch.nn.init.normal_" not in names_used("training")
    assert "nn.init.normal_" in names_used("models.layers")


def test_every_module_has_a_floor_and_no_module_two() -> None:
    assert sum(map(len, FLOORS.values())) == len(FLOOR_OF)
    unplaced = {module for module in MODULES if module and module.split(".")[0] not in FLOOR_OF}
    assert not unplaced, f"say in FLOORS, at the top of this file, on which floor {sorted(unplaced)} stand"


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports_point_down_or_sideways(module: str) -> None:
    for imported in ours(module) - {""}:
        assert floor(imported) <= floor(module), (
            f"{module} (floor {floor(module)}) imports {imported} (floor {floor(imported)})"
        )


def test_no_imports_go_in_a_circle_not_even_those_within_functions() -> None:
    try:
        order = list(TopologicalSorter({module: ours(module) - {""} for module in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")
    assert len(order) == len(MODULES)


@pytest.mark.parametrize("module", [module for module in MODULES if module and FLOOR_OF.get(module.split(".")[0], 9) <= 2])
def test_the_lower_floors_need_only_what_a_cluster_worker_has(module: str) -> None:
    assert foreign(module) - set(sys.stdlib_module_names) <= WORKER_PACKAGES


@pytest.mark.parametrize(("package", "home"), ONLY_HOME.items())
def test_some_packages_have_one_home(package: str, home: str) -> None:
    assert {module for module in MODULES if package in foreign(module)} <= set(home.split())


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_loaded_that_can_run_code(module: str) -> None:
    used = set(names_used(module))
    assert not foreign(module) & NEVER_IMPORTED
    assert not used & {
        "torch.load",
        "torch.save",
        "torch.jit.load",
        "np.load",
        "numpy.load",
        "pd.read_pickle",
        "pandas.read_pickle",
    }


def other_code() -> Iterator[tuple[str, ast.Module]]:
    """Every Python file beside the library, and the code of every notebook, by name."""
    for folder in ("benchmarks", "docs", "tests", "workflow"):
        yield from ((path.name, ast.parse(path.read_text())) for path in sorted((ROOT / folder).rglob("*.py")))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        yield from ((path.name, ast.parse("".join(cell["source"]))) for cell in cells)


def test_nothing_is_unpickled_and_no_shell_is_started_anywhere() -> None:
    """A magic or a line for the shell in a notebook would not be Python, and fail here too."""
    trees = [*other_code(), *((module, tree_of(module)) for module in MODULES)]
    assert len(trees) > 150
    for name, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called, given = dotted(node.func), {word.arg: word.value for word in node.keywords}
                assert called not in RUNS_ANYTHING, f"{name}, line {node.lineno}: {called}"
                assert called != "torch.load" or ast.unparse(given["weights_only"]) == "True", f"{name}, line {node.lineno}"
                assert "shell" not in given, f"{name}, line {node.lineno}: {ast.unparse(node)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                first = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", "") or "").split(".")[0]}
                assert not first & NEVER_IMPORTED, f"{name}, line {node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_nobody_reads_or_seeds_a_global_random_generator(module: str) -> None:
    used = set(names_used(module))
    allowed = {"default_rng", "Generator", "SeedSequence", "PCG64"}
    assert "random" not in foreign(module)
    assert not used & {
        "torch.manual_seed",
        "torch.seed",
        "torch.cuda.manual_seed",
        "torch.cuda.manual_seed_all",
        "torch.random.manual_seed",
    }
    numpy_random = {name.split(".")[2] for name in used if name.startswith(("np.random.", "numpy.random."))}
    assert numpy_random <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_nobody_silences_warnings(module: str) -> None:
    assert not set(names_used(module)) & {"warnings.filterwarnings", "warnings.simplefilter", "warnings.catch_warnings"}


def modules_loaded_by(statement: str) -> set[str]:
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_and_the_config_loads_no_torch() -> None:
    loaded = modules_loaded_by(
        "import repro_lib, repro_lib.config; repro_lib.Config.for_model('charlm', 'quick').sha256('0' * 64)"
    )
    assert "repro_lib.config" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "matplotlib", "papermill", "nbconvert", "repro_lib.models"}


def test_the_package_offers_its_names_when_they_are_asked_for() -> None:
    statement = "import repro_lib; [getattr(repro_lib, name) for name in repro_lib.__all__]"
    assert {"repro_lib.training.experiment", "repro_lib.models", "torch"} <= modules_loaded_by(statement)
    import repro_lib

    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        repro_lib.train  # noqa: B018
