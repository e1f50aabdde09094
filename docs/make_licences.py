"""Writes docs/dependencies.md, the list of all pinned packages with their licences, from what the packages say themselves.

    python docs/make_licences.py                  after the pins changed
    python docs/make_licences.py --check          say what the page lacks and change nothing
    python docs/make_licences.py REPORT.json ...  with what pip reported of packages that are not installed here

A package that this Python or platform does not install keeps its line as long as its version stays; for a new one the
command says how to ask pip for a report.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
PINS = ("requirements-torch.txt", "requirements.lock", "requirements-cuda.txt")
ROW = re.compile(r"^\| ([\w.-]+) \| ([^ |]+) \| (.+) \|$", re.MULTILINE)
TABLE = "| package | version | licence |\n|---|---|---|\n"
# Classifiers as SPDX names them, where a package has nothing better.
SPDX = {
    "MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Other/Proprietary License": "proprietary",
}


def pinned() -> Iterator[tuple[str, str]]:
    """Name and version of every pin of every file, whether it applies here or not."""
    for name in PINS:
        yield from re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)


def licence(about: Mapping[str, Sequence[str]]) -> str:
    """The licence in a package's metadata: an SPDX expression, else its classifiers, else the first line of its text."""
    if about.get("license_expression"):
        return about["license_expression"][0]
    classifiers = [text.rpartition(" :: ")[2] for text in about.get("classifier", ()) if text.startswith("License :: ")]
    named = [SPDX.get(text, text) for text in classifiers if text != "OSI Approved"]
    if named:
        return " AND ".join(sorted(named))
    text = (about.get("license") or [""])[0].strip().partition("\n")[0][:80]
    return SPDX.get(text, text) or "not said"


def installed(name: str, version: str) -> str | None:
    """The licence of a package that is installed in this version (whatever its build), else None."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if found["Version"].partition("+")[0] != version:
        return None
    keys = {"license_expression": "License-Expression", "classifier": "Classifier", "license": "License"}
    return licence({key: found.get_all(header, []) for key, header in keys.items()})


def reported(reports: Sequence[Path]) -> dict[tuple[str, str], str]:
    """The licences in reports of ``pip install --report``, by name and version."""
    found = {}
    for report in reports:
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
            about = item["metadata"]
            lists = {key: [value] if isinstance(value, str) else value for key, value in about.items()}
            found[re.sub(r"[-_.]+", "-", about["name"]).lower(), about["version"]] = licence(lists)
    return found


def page(rows: Mapping[tuple[str, str], str]) -> str:
    """The text of the page; what stands above the table stays as it is."""
    lines = [f"| {name} | {version} | {text.replace('|', '/')} |\n" for (name, version), text in sorted(rows.items())]
    return PAGE.read_text(encoding="utf-8").partition(TABLE)[0] + TABLE + "".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Write or check the page; returns 0, or 1 if the page is not right or a licence could not be found."""
    check = list(arguments) == ["--check"]
    kept = {(name, version): text for name, version, text in ROW.findall(PAGE.read_text(encoding="utf-8").partition(TABLE)[2])}
    asked = {} if check else reported([Path(argument) for argument in arguments])
    rows, unknown = {}, []
    for pin in pinned():
        text = asked.get(pin) or installed(*pin) or kept.get(pin)
        if text is None:
            unknown.append("==".join(pin))
        else:
            rows[pin] = text
    if unknown:
        print(
            f"nothing is known of {' '.join(unknown)}, which this Python and platform do not install; ask a recent pip with\n"
            "pip install --dry-run --ignore-installed --no-deps --report REPORT.json --only-binary :all: --target nowhere "
            "--python-version 3.12 --platform PLATFORM PACKAGE==VERSION ..., PLATFORM being for example win_amd64"
        )
    if check:
        wrong = sorted(
            {"==".join(pin) for pin in rows.keys() ^ kept.keys()} | {"==".join(p) for p in rows if rows[p] != kept[p]}
        )
        if wrong:
            print(f"docs/dependencies.md is not right about {', '.join(wrong)}; run python docs/make_licences.py")
        return 1 if wrong or unknown else 0
    PAGE.write_text(page(rows))
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
