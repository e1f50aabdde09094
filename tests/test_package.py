"""The package as others get it: licence, citation, what is in the wheel, and that it runs where there is no checkout."""

import json
import tomllib
from pathlib import Path

import jsonschema
import yaml

import repro_lib

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


def test_the_licence_is_one_of_the_files_that_the_package_names() -> None:
    assert PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n\nCopyright (c) 2026 the authors of repro\n")
    assert "shall be included in all" in text
