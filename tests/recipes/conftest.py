"""What veRL looks for outside of a configuration where it checks one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import Qwen2Config

from pcr_plugin.demo.tokenizer import build_tokenizer
from pcr_plugin.verl_cpu import distribution

pytest.register_assert_rewrite("tests.recipes.checks")


@pytest.fixture(scope="module")
def vllm_is_there() -> Iterator[None]:
    """veRL asks for the distribution `vllm` where it checks the rank of adapters."""
    distribution.install()
    yield
    distribution.uninstall()


@pytest.fixture(scope="session")
def critic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """veRL reads the critic's model where it checks the critic."""
    folder = tmp_path_factory.mktemp("critic")
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(folder)
    build_tokenizer([], size=259).save_pretrained(folder)
    return folder
