"""The page, made of the numbers in the file beside it."""

from typing import Any


def page(report: dict[str, Any]) -> str:
    """Markdown.

    Args:
        report: conditions and results, as the JSON file has them.
    """
    return str(report)
