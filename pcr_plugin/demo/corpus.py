"""English text that every Python installation has: the topics of `help()`."""

from importlib import import_module

# Every n-th topic, in alphabetical order, is kept for measuring.
_HELD_OUT_EVERY = 8


def load_topics() -> dict[str, str]:
    """Title to text, about 460 kB in all.

    Raises:
        RuntimeError: this Python comes without them.
    """
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise RuntimeError(
            "This Python has no pydoc_data.topics, the text that the demo's model learns to read. "
            "Use a Python that has its standard library complete (python.org, conda, pyenv)."
        ) from error
    return topics


def split(topics: dict[str, str]) -> tuple[str, str]:
    """Text to learn and text to measure forgetting on, without a common paragraph.

    Topics quote each other, so a paragraph that is held out is also taken out of the rest.

    Args:
        topics: title to text.

    Returns:
        (training, held-out).
    """
    titles = sorted(topics)
    held_titles = titles[::_HELD_OUT_EVERY]
    held_out = [part for title in held_titles for part in paragraphs(topics[title])]
    seen = set(held_out)
    training = [
        part
        for title in titles
        if title not in held_titles
        for part in paragraphs(topics[title])
        if part not in seen
    ]
    return "\n\n".join(training), "\n\n".join(held_out)


def paragraphs(text: str) -> list[str]:
    """The parts of a text between empty lines, stripped."""
    return [part.strip() for part in text.split("\n\n") if part.strip()]
