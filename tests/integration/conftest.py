"""What whole runs start from."""

from pathlib import Path

import pytest

from tests.integration.small_run import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, prompts and a reward function, for the runs of one file."""
    place = tmp_path_factory.mktemp("run")
    prepare(place)
    return place
