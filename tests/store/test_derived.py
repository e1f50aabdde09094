"""What is kept of stored results is used only where it is what would be made now."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro_lib.store import derived as home
from repro_lib.store.derived import derived


@pytest.fixture(autouse=True)
def notebooks(tmp_path: Path) -> None:
    for folder in ("notebooks", "other/notebooks", "store/notebooks"):
        (tmp_path / folder).mkdir(parents=True)


def test_a_folder_without_notebooks_is_left_as_it_is(tmp_path: Path) -> None:
    assert [derived(tmp_path / "published", "a", [], lambda k=k: k) for k in (1, 2)] == [1, 2]
    assert not (tmp_path / "published").exists()


def test_a_value_is_made_once_for_its_inputs_and_anew_for_others(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> list[object]:
        made.append(1)
        return [0.1, math.nan, math.inf, "é", len(made)]

    first = derived(tmp_path, "a", ["x", 1], make)
    assert derived(tmp_path, "a", ["x", 1], make)[3:] == first[3:] == ["é", 1]
    assert math.isnan(derived(tmp_path, "a", ["x", 1], make)[1])
    # Other inputs take the same place: the folder does not grow with every new result.
    assert derived(tmp_path, "a", ["x", 2], make)[4] == 2
    assert derived(tmp_path, "a", ["x", 1], make)[4] == 3
    assert [path.name for path in (tmp_path / "derived").iterdir()] == ["a.json"]
    # Another folder is another store.
    assert derived(tmp_path / "other", "a", ["x", 1], make)[4] == 4
    assert derived(None, "a", ["x", 1], make)[4] == 5


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"sha256": "0", "content": 7}', '{"content": 7}', "changed", "folder", "pipe"]
)
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    derived(tmp_path, "a", [], lambda: [1])
    file = tmp_path / "derived" / "a.json"
    if damage == "changed":
        file.write_text(json.dumps(json.loads(file.read_text()) | {"content": [2]}))
    elif damage in ("folder", "pipe"):
        file.unlink()
        file.mkdir() if damage == "folder" else os.mkfifo(file)
    else:
        file.write_text(damage)
    assert derived(tmp_path, "a", [], lambda: [3]) == [3]


def test_where_nothing_can_be_written_it_is_made_each_time(tmp_path: Path) -> None:
    (tmp_path / "derived").write_text("in the way")
    assert [derived(tmp_path, "a", [], lambda k=k: k) for k in (1, 2)] == [1, 2]


def test_edited_code_makes_all_anew_and_a_process_that_runs_the_old_code_keeps_nothing(tmp_path: Path) -> None:
    # A copy of the package, so that a line of it can be edited.
    package = Path(home.__file__).parent.parent
    for name in ("__init__.py", "store/__init__.py", "store/derived.py"):
        (tmp_path / "repro_lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repro_lib" / name).write_bytes((package / name).read_bytes())
    (tmp_path / "repro_lib" / "system").symlink_to(package / "system")
    edited = tmp_path / "repro_lib" / "edited.py"
    edited.write_text("NUMBER = 1\n")
    script = (
        "from pathlib import Path; from repro_lib.store.derived import derived; from repro_lib.edited import NUMBER\n"
        "ask = lambda: derived(Path('store'), 'a', [], lambda: NUMBER)\n"
        "print(ask()); Path('repro_lib/edited.py').write_text(f'NUMBER = {NUMBER + 1}\\n# edited')\n"
        "NUMBER = 7; print(ask())\n"
    )
    run = [sys.executable, "-B", "-c", script]
    said = [subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    # The second answer of a process is of what it runs, and neither read from what the first kept nor kept for others.
    assert said == [["1", "7"], ["2", "7"]]
