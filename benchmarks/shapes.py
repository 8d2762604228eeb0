"""Sizes of the Qwen2.5 models, which are measured and counted with random weights."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Qwen2 decoder.

    Args:
        width: hidden size.
        layers: decoder layers.
        heads: of the queries.
        kv_heads: of keys and values.
        mlp: intermediate size.
        vocabulary: tokens.
        tied: input and output embeddings are one tensor.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    tied: bool

    @property
    def mlp_parameters(self) -> int:
        """Of one layer's MLP: gate, up and down."""
        return 3 * self.width * self.mlp

    @property
    def layer_parameters(self) -> int:
        """Of one decoder layer: MLP, attention with the biases of its inputs, two norms."""
        keys = self.width // self.heads * self.kv_heads
        attention = 2 * self.width**2 + 2 * self.width * keys + self.width + 2 * keys
        return self.mlp_parameters + attention + 2 * self.width

    @property
    def tensors(self) -> int:
        """Parameters as tensors: four matrices, three biases, three of the MLP, two norms."""
        return 12 * self.layers + (2 if self.tied else 3)

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.width
        return self.layers * self.layer_parameters + embeddings + self.width


# Their `config.json` at Hugging Face; the vocabulary is the padded one.
SHAPES = {
    "qwen2.5-0.5b": Shape(
        width=896, layers=24, heads=14, kv_heads=2, mlp=4864, vocabulary=151936, tied=True
    ),
    "qwen2.5-1.5b": Shape(
        width=1536, layers=28, heads=12, kv_heads=2, mlp=8960, vocabulary=151936, tied=True
    ),
    "qwen2.5-7b": Shape(
        width=3584, layers=28, heads=28, kv_heads=4, mlp=18944, vocabulary=152064, tied=False
    ),
    "qwen2.5-72b": Shape(
        width=8192, layers=80, heads=64, kv_heads=8, mlp=29568, vocabulary=152064, tied=False
    ),
}
