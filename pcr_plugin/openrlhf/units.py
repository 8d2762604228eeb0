"""The estimator that a rule asks for, and what it is told of OpenRLHF's micro-batches."""

from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from openrlhf.models.ring_attn_utils import unpad_and_slice_tensor
from torch import Tensor

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import refuse_unread
from pcr_plugin.distributed import group_of_all, is_first_of, ranks_of, sum_over
from pcr_plugin.estimators import (
    MicroBatchEstimator,
    SequenceEstimator,
    SequenceRanks,
    SplitHalfEstimator,
)
from pcr_plugin.gradients import find_linear_layers
from pcr_plugin.openrlhf.gradients import ZeroGradients
from pcr_plugin.statistics import TokenRows


class Units:
    """The independent units of a step's gradients.

    Args:
        engine: DeepSpeed's, of the actor.
        rule: the resolved rule.
        gradients: access to the gradients of the scope.
        blocks: number of blocks.
        packed: whether the model gets the rows of a micro-batch without padding, as one.

    Raises:
        ValueError: the estimator cannot read the gradient of a parameter in the scope.
    """

    def __init__(
        self, engine: Any, rule: UpdateRule, gradients: ZeroGradients, blocks: int, *, packed: bool
    ) -> None:
        # Without sequence and tensor parallelism, which are refused, all ranks have rows of theirs.
        self._group = group_of_all()
        self._device = torch.device(get_accelerator().current_device_name())
        self._packed = packed
        self._half_sizes = [0.0, 0.0]
        self._half_shares = (0.5, 0.5)
        self.estimator = self._build(engine, rule, gradients, blocks)

    def _build(
        self, engine: Any, rule: UpdateRule, gradients: ZeroGradients, blocks: int
    ) -> MicroBatchEstimator | SplitHalfEstimator | SequenceEstimator:
        first = is_first_of(self._group)
        if rule.settings.variance.estimator == "split_half":
            return SplitHalfEstimator(gradients, blocks, lambda: self._half_shares, first)
        # DeepSpeed averages over the ranks.
        scale = 1 / ranks_of(self._group)
        if rule.settings.variance.estimator == "micro_batch":
            return MicroBatchEstimator(gradients, blocks, scale, self._device)
        found = find_linear_layers(engine.module, gradients.names)
        refuse_unread(found.unread, "--actor.pcr.variance.estimator")
        return SequenceEstimator(
            gradients,
            found.layers,
            blocks,
            probes=rule.probes,
            # In veRL the first step is number 1; here it is also that of a resumed run.
            step=lambda: int(engine.global_steps) + 1,
            gradient_scale=scale,
            device=self._device,
            ranks=SequenceRanks(
                sum_parts=lambda rows: rows,
                sum_all=lambda total: sum_over(total, self._group),
                counts_rows=True,
                counts_sums=first,
                counts_units=True,
            ),
        )

    def start_micro_batch(self, experience: Any, half: int) -> None:
        """Before anything is computed of a micro-batch.

        Args:
            experience: OpenRLHF's.
            half: that it is in, 0 where there are none.
        """
        # The losses count tokens in the one aggregation that is not refused.
        sizes = experience.action_mask.sum(dim=1, dtype=torch.float64)
        size = float(sizes.sum())
        self._half_sizes[half] += size
        if isinstance(self.estimator, MicroBatchEstimator):
            self.estimator.start_unit(size)
        if isinstance(self.estimator, SequenceEstimator):
            rows = rows_of_tokens(experience.attention_mask, packed=self._packed)
            tokens = TokenRows.of(rows.to(self._device), len(sizes))
            self.estimator.start_micro_batch(tokens, sizes)

    def end_window(self) -> None:
        """After a step's last micro-batch: what the halves have of all ranks' tokens."""
        if isinstance(self.estimator, SplitHalfEstimator):
            sizes = torch.tensor(self._half_sizes, dtype=torch.float64, device=self._device)
            first, second = sum_over(sizes, self._group).tolist()
            total = max(first + second, 1.0)
            self._half_shares = (first / total, second / total)
        self._half_sizes = [0.0, 0.0]


def rows_of_tokens(attention_mask: Tensor, *, packed: bool) -> Tensor:
    """The row of every token of a layer's input.

    Args:
        attention_mask: (rows, tokens) of a micro-batch.
        packed: whether OpenRLHF removes the padding.

    Returns:
        (tokens,) row, negative for padding, flattened as a layer's input is.
    """
    rows = torch.arange(len(attention_mask), device=attention_mask.device)
    labels = rows[:, None].expand_as(attention_mask)
    if packed:
        # As OpenRLHF packs the tokens.
        labels, *_ = unpad_and_slice_tensor(labels, attention_mask, None)
    else:
        labels = labels.masked_fill(attention_mask == 0, -1)
    return labels.flatten()
