"""The package as others get it: licence, citation, what is in the wheel, and that it runs where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

import repro_lib
from repro_lib.analysis.study import load_study

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Of the Citation File Format 1.2.0 (CC BY 4.0, its authors; doi 10.5281/zenodo.5171937), as cffconvert 2.0.0 brings it.
SCHEMA = ROOT / "tests" / "data" / "citation-file-format-1.2.0.schema.json"


def test_the_citation_is_valid_and_says_what_the_package_says() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    assert [error.message for error in validator.iter_errors(citation)] == []
    assert list(validator.iter_errors(citation | {"license": "mine"})), "this test validates"
    assert citation["version"] == PROJECT["version"] == repro_lib.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert {author["name"].lower() for author in citation["authors"]} == {author["name"] for author in PROJECT["authors"]}


ALONE = """
import importlib, pkgutil, re, sys
from importlib.metadata import packages_distributions, requires

# All that only an extra asks for; what these bring along, tests/system/test_environment.py finds.
extra = {re.match(r"[\\w-]+", text)[0].lower() for text in requires("repro-lib") if "extra ==" in text}
extra -= {"repro-lib", "jinja2", "markupsafe"}  # the last two come with torch
gone = {module for module, homes in packages_distributions().items() if extra & {home.lower() for home in homes}}

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name in gone else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
import repro_lib
from repro_lib import config, data
for package in ("system", "metrics", "models", "store", "training"):
    home = importlib.import_module(f"repro_lib.{package}")
    for module in pkgutil.iter_modules(home.__path__):
        importlib.import_module(f"repro_lib.{package}.{module.name}")
text, results = sys.argv[1:]
settings = config.Config.for_model("charlm", "smoke", corpus=text, trials=2)
print(len(repro_lib.run_experiment("charlm", "gelu", settings, results_dir=results).trials))
from repro_lib.cli.main import main
assert main(["status", "--results-dir", results]) == 2
main(["--help"])
"""


def test_training_needs_four_packages_and_the_help_of_the_command_line_no_more(tmp_path: Path, corpus_file: Path) -> None:
    code = ALONE.replace("from repro_lib.cli.main import", "config.checkout = lambda: None\nfrom repro_lib.cli.main import")
    command = [sys.executable, "-c", code, str(corpus_file), str(tmp_path / "results")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "repro: the package rich is missing; install repro-lib with its extra [run]\n"
    assert done.returncode == 0
    assert done.stdout.startswith("2\nusage: repro ")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that holds our wheel, and finds all other packages where this one has them."""
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    shutil.copytree(ROOT / "repro_lib", source / "repro_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # The packages alone: what stands in .pth files there, such as where the checkout is, is not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, f"--python={environment}/bin/python", "install", "--no-deps", "--no-index", wheel], check=True)
    shutil.rmtree(source)
    return environment / "bin"


@pytest.mark.slow
def test_the_wheel_alone_runs_the_grid_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    here, home = tmp_path / "empty", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    share = Path(sysconfig.get_path("data")) / "share" / "jupyter"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"HOME": str(home), "JUPYTER_PATH": str(share), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(f"{installed}/python", "-Pc", "import repro_lib; print(repro_lib.__file__)")
    assert where.startswith(f"{installed.parent}/")
    before = sorted(installed.parent.rglob("*"))
    said = run(f"{installed}/repro", "grid", "--profile", "smoke", "--models", "charlm", "--activations", "relu", "gelu")
    assert f"the reports are in {here}/reports/index.html" in said
    assert "edited" not in said
    assert sorted(path.name for path in here.iterdir()) == ["data", "reports", "results"]
    assert [path.name for path in here.glob("data/*")] == ["shakespeare.txt"]
    assert len(load_study(here / "results").trials) == 6
    assert sorted(installed.parent.rglob("*")) == before
    # matplotlib's list of fonts, and pip's, which asks a compiler for its version when it fetches the text.
    assert {path.name for path in home.iterdir()} <= {".cache", ".config", ".rustup"}
    assert "results/ beside them" in run(f"{installed}/repro", "notebooks", ".")
    assert {path.name for path in here.glob("*.ipynb")} == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name, rows in (("one", "a,0.91\nb,0.2"), ("two", "b,0.31\na,0.42")):
        (here / f"{name}.csv").write_text(f"id,click\n{rows}\n")
    assert "churn 0.5000" in run(f"{installed}/repro", "compare", "one.csv", "two.csv", "--html", "page.html")
    assert "churn 0.5000" in (here / "page.html").read_text()


def packages_of(extra: str, folder: Path, *flags: str) -> str:
    """Where the packages of an extra that is not in the lock were put, apart from those of this environment."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install", f"--target={folder}"]
    subprocess.run([*pip, *flags, *PROJECT["optional-dependencies"][extra]], check=True)
    return str(folder)


@pytest.mark.slow
def test_parquet_is_read_and_written_where_its_extra_is_installed(tmp_path: Path) -> None:
    # Not in the lock, because pandas imports it wherever it is; so the tests that need it are run once where it is.
    environment = {**os.environ, "PYTHONPATH": packages_of("parquet", tmp_path, "--no-deps")}
    tests = ("tests/store/test_foreign.py", "tests/report/test_export.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


LANGUAGE_MODELS = """
import sys, torch, repro_lib
sys.path.append(sys.argv[1])  # behind ours
from transformers import GPT2Config, GPT2LMHeadModel

def model(seed):
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))

tokens = torch.arange(24).remainder(11).view(4, 6)
models, batches = [model(seed) for seed in range(3)], [{"input_ids": tokens[:3]}, {"input_ids": tokens[3:]}]
scored = [repro_lib.collect(of, batches, name=f"gpt-{k}") for k, of in enumerate(models)]
with torch.inference_mode():
    logits = models[0].eval()(input_ids=tokens).logits.reshape(24, 11)
assert torch.allclose(torch.from_numpy(scored[0].values), logits, atol=1e-6)
print(repro_lib.compare(scored))
"""


@pytest.mark.slow
def test_a_causal_language_model_of_transformers_is_asked_for_its_logits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LANGUAGE_MODELS, packages_of("transformers", tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gpt: 3 models (logits, 24 examples): relative PD 0.0")
