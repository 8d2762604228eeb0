"""The user's own table of runs, for logs that do not say what they are.

runs:
  - {path: a.jsonl, rule: pcr, beta: 0.05, seed: 1}
  - {path: b.jsonl, label: my method, beta: 0.05, learning_rate: 1e-6}
"""

from pathlib import Path
from typing import Any

from pcr_plugin.plots.logs.find import find
from pcr_plugin.plots.runs.run import Named
from pcr_plugin.plots.runs.settings import NAMED, NUMBERS, RULE, STOCK, number

_KEYS = ("path", "label", "seed", *NAMED)


def read_table(path: Path) -> list[Named]:
    """The runs in a table.

    Args:
        path: of a YAML file; paths in it are relative to its folder.

    Raises:
        ValueError: not such a table; the message says what was found and what is allowed.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"--runs {path}: no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--runs {path} is no YAML: {error}") from None
    rows = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"--runs {path}: needed is `runs:` with a list of {{path: ...}}")
    return [named for row in rows for named in _row(path, row)]


def _row(table: Path, row: Any) -> list[Named]:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise ValueError(f"--runs {table}: {row!r} has no `path`")
    unknown = [str(key) for key in row if key not in _KEYS]
    if unknown:
        raise ValueError(
            f"--runs {table}: {', '.join(unknown)} is no key; allowed are {', '.join(_KEYS)}"
        )
    settings = [(key, _setting(key, row[key])) for key in NAMED if key in row]
    label = row.get("label")
    return [
        Named(file, None if label is None else str(label), tuple(settings), row.get("seed"))
        for file in find(table.parent / row["path"])
    ]


def _setting(key: str, value: Any) -> Any:
    if key in NUMBERS:
        return number(key, value)
    if key == RULE and value in (None, "null"):
        return STOCK
    if isinstance(value, list):
        return tuple(str(each) for each in value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"{key}={value!r}: a word, a number or a list of words is needed")
    return value
