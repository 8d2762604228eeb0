"""The output layer of a model whose embedding serves as both."""

from torch import Tensor

_OUTPUT_LAYER = "lm_head.weight"

Weights = list[tuple[str, Tensor]]


def with_output_layer(weights: Weights) -> Weights:
    """The weights of a model with tied embeddings, the output layer among them.

    The CPU backend keeps a repacked copy of it, which a new embedding alone does not reach. A
    state dictionary has both; what Megatron's bridge exports has the embedding, as a checkpoint.

    Args:
        weights: names and tensors as the actor sends them.

    Raises:
        ValueError: none of them is known as the embedding.
    """
    if any(name.endswith(_OUTPUT_LAYER) for name, _ in weights):
        return weights
    tied = [tensor for name, tensor in weights if name.endswith("embed_tokens.weight")]
    if len(tied) != 1:
        names = ", ".join(name for name, _ in weights if "embed" in name) or "none"
        raise ValueError(
            f"VERL_PLATFORM=cpu cannot tell the weight that vLLM's output layer shares: no "
            f"{_OUTPUT_LAYER}, and of embeddings {names}. Use a model with "
            "tie_word_embeddings=false."
        )
    return [*weights, (_OUTPUT_LAYER, tied[0])]
