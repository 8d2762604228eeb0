"""Squared norms of per-sequence gradients of a linear layer, without these gradients.

A layer's gradient from one sequence is a sum over its tokens, G_i = sum_t d_t x_t^T. With random
signs U and V on its two sides

P_i = U^T G_i V = sum_t (U^T d_t) (V^T x_t)^T

costs two thin products per token. Every entry is a rank-one probe u^T G_i v, and for independent
signs E[(u^T G v)(u^T H v)] = <G, H>, so ||P_i||^2 / K^2 is an unbiased estimate of ||G_i||^2, and
a sum over layers of any quadratic form of the P_i one of the same form of the G_i.

| symbol | shape        | meaning                                     |
|--------|--------------|---------------------------------------------|
| x_t    | (inputs,)    | what token t brings into the layer          |
| d_t    | (outputs,)   | gradient of what it brings out              |
| G_i    | (outputs, inputs) | contribution of sequence i to the gradient |
| U, V   | (outputs, K), (inputs, K) | random signs                   |
| P_i    | (K, K)       | its K^2 probes                              |
"""

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = 8  # directions in a byte
_VALUES, _PLACES = torch.arange(1 << _BITS), torch.arange(_BITS)
# (256, 8) what the bits of each byte stand for.
_SIGNS = (((_VALUES[:, None] >> _PLACES) & 1) * 2 - 1).to(torch.int8)


def signs(width: int, probes: int, seed: str) -> Tensor:
    """One side's random directions.

    Args:
        width: features of the whole layer on this side.
        probes: number K of directions.
        seed: what they depend on, and nothing else: the same text gives the same signs on every
            rank and in every layout.

    Returns:
        (width, K) of +-1 in int8.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    size = (width, -(-probes // _BITS))
    drawn = torch.randint(0, 1 << _BITS, size, generator=generator, dtype=torch.uint8)
    return _SIGNS[drawn.long()].flatten(1)[:, :probes]


def directions(signs: Tensor, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What `projected` multiplies by.

    Args:
        signs: (features, K) rows of `signs`.
        width: features of the whole layer on this side.
        device: of what is projected.
        dtype: of what is projected.

    Returns:
        (features, K) the signs; for fp16 times a power of 2 near 1 / sqrt(width), which
        `projected` takes back: a sum over a scaled gradient's features would overflow where the
        gradient does not.
    """
    scale, found = _scale(width, dtype), signs.to(device, dtype)
    return found if scale == 1.0 else found * scale


def projected(values: Tensor, directions: Tensor, width: int) -> Tensor:
    """Every token's features in the random directions.

    Args:
        values: (..., features) of the layer's inputs, or the gradient of its outputs.
        directions: (features, K) rows of `directions`, in the type and on the device of `values`.
        width: features of the whole layer on this side.

    Returns:
        (tokens, K) in float32 at least.
    """
    # The host may run its layers under autocast, which would take the product in its own type.
    with torch.autocast(values.device.type, enabled=False):
        thin = values.flatten(0, -2) @ directions
    scale = _scale(width, directions.dtype)
    wide = thin.to(torch.promote_types(thin.dtype, torch.float32))
    return wide if scale == 1.0 else wide / scale


def _scale(width: int, dtype: torch.dtype) -> float:
    return 2.0 ** -round(math.log2(width) / 2) if dtype == torch.float16 else 1.0


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """Which of a micro-batch's rows each token belongs to.

    Rows are cut into pieces of equal length, so that one long row does not have all others padded
    to it: at most twice as many places as tokens.

    Args:
        rows: number R of rows.
        length: places L of a piece.
        owners: (Q,) row of each piece.
        places: (T,) piece times L plus place in the piece; Q L for padding.
    """

    rows: int
    length: int
    owners: Tensor
    places: Tensor

    @classmethod
    def of(cls, labels: Tensor, rows: int) -> "TokenRows":
        """From the row of every token.

        Args:
            labels: (T,) in any order; anything outside 0 ... R - 1 is padding.
            rows: number R of rows.
        """
        labels = torch.where((labels >= 0) & (labels < rows), labels, rows)
        counts = torch.bincount(labels, minlength=rows + 1)
        order = torch.argsort(labels, stable=True)
        starts = counts.cumsum(0) - counts
        within = torch.arange(len(labels), device=labels.device) - starts[labels[order]]
        length = max(1, -(-int(counts[:rows].sum()) // max(1, rows)))
        pieces = (counts[:rows] + length - 1) // length
        first = torch.nn.functional.pad(pieces.cumsum(0), (1, 0))
        owners = torch.arange(rows, device=labels.device).repeat_interleave(pieces)
        places = torch.empty_like(labels)
        # Padding has the place after the last piece.
        at = first[labels[order]] * length + within
        places[order] = torch.where(labels[order] < rows, at, len(owners) * length)
        return cls(rows=rows, length=length, owners=owners, places=places)

    def laid_out(self, tokens: Tensor) -> Tensor:
        """Pieces side by side.

        Args:
            tokens: (T, ...).

        Returns:
            (Q, L, ...), zero where a piece has no token.
        """
        size, of_token = len(self.owners) * self.length, tokens.shape[1:]
        places = tokens.new_zeros(size + 1, *of_token).index_copy_(0, self.places, tokens)
        return places[:size].view(len(self.owners), self.length, *of_token)

    def by_row(self, of_pieces: Tensor) -> Tensor:
        """(R, ...) the sums over every row's pieces."""
        shape = (self.rows, *of_pieces.shape[1:])
        return of_pieces.new_zeros(shape).index_add_(0, self.owners, of_pieces)


def row_products(gradients: Tensor, inputs: Tensor, tokens: TokenRows) -> Tensor:
    """P_i of every row and layer.

    Args:
        gradients: (T, layers, K) projected gradients of the layers' outputs.
        inputs: (T, layers, K) projected inputs.
        tokens: the row of each token.

    Returns:
        (R, layers, K, K).
    """
    left = tokens.laid_out(gradients).permute(0, 2, 3, 1)
    right = tokens.laid_out(inputs).transpose(1, 2)
    return tokens.by_row(left @ right)


def row_sums(gradients: Tensor, tokens: TokenRows) -> Tensor:
    """The probes of biases, whose gradients are sum_t d_t.

    Args:
        gradients: (T, layers, K) projected gradients of the layers' outputs.
        tokens: the row of each token.

    Returns:
        (R, layers, K); the mean of their squares estimates the squared norm.
    """
    return tokens.by_row(tokens.laid_out(gradients).sum(dim=1))
