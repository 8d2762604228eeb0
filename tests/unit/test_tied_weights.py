"""What vLLM's CPU backend is given for the output layer of a model with tied embeddings."""

import pytest
import torch

from pcr_plugin.verl_cpu.tied_weights import with_output_layer

EMBEDDING, OTHER = torch.zeros(2, 1), torch.ones(1)


def test_the_output_layer_is_the_embedding() -> None:
    """As a checkpoint has it, and what Megatron's bridge exports."""
    sent = [("model.embed_tokens.weight", EMBEDDING), ("model.norm.weight", OTHER)]
    loaded = with_output_layer(sent)
    assert loaded[:2] == sent
    assert loaded[2][0] == "lm_head.weight"
    assert loaded[2][1] is EMBEDDING
    assert len(loaded) == 3


def test_an_output_layer_that_is_sent_stays() -> None:
    """As a state dictionary has it."""
    sent = [("model.embed_tokens.weight", EMBEDDING), ("lm_head.weight", OTHER)]
    assert with_output_layer(sent) is sent


@pytest.mark.parametrize("names", [["transformer.wte.weight"], ["a.embed_in.weight"]])
def test_an_unknown_embedding_is_an_error(names: list[str]) -> None:
    """The rollout would go on with the weights that it began with."""
    with pytest.raises(ValueError, match="tie_word_embeddings=false"):
        with_output_layer([(name, OTHER) for name in names])
