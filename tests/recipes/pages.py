"""What the pages on recipes tell a reader to type: blocks of commands, and keys in the text."""

import re
from pathlib import Path

from tests.recipes.commands import FOLDER, SCRIPTS

ROOT = FOLDER.parent
PAGES = (*sorted(FOLDER.rglob("*.md")), ROOT / "docs" / "cluster.md")
_FENCED = r"^```\w*\n(.*?)^```$"
# Of other things than a configuration; a file's name has an ending.
_NOT_KEYS = {"datasets.load_dataset"}
_FILES = (".py", ".sh")


def name_of(page: Path) -> str:
    """Relative to the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    """Every block of commands."""
    return re.findall(_FENCED, page.read_text(), re.MULTILINE | re.DOTALL)


def overrides_in_text(page: Path) -> list[tuple[str, str]]:
    """Every `key=value` with a whole key in the text, and the recipe that it is for.

    That is the page's own, else the one named last before it.
    """
    recipe, found = page.parent.name, []
    for words in _code_in_text(page):
        recipe = words if words in SCRIPTS else recipe
        if re.fullmatch(r"\+?[a-z]\w*(\.\w+)+=\S+", words):
            found.append((recipe, words))
    return found


def keys_in_text(page: Path) -> list[str]:
    """Every key without a value in the text, whole or its end."""
    dotted = [words for words in _code_in_text(page) if re.fullmatch(r"[a-z]\w*(\.\w+)+", words)]
    return [key for key in dotted if key not in _NOT_KEYS and not key.endswith(_FILES)]


def _code_in_text(page: Path) -> list[str]:
    text = re.sub(_FENCED, "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)
