"""One sampled answer with everything the losses need; neutral between oracle and engine."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A prompt and its answer.

    Args:
        prompt: (P,) token ids.
        response: (T,) token ids.
        mask: (T,) 1 where the losses count the token.
        old_log_probs: (T,) float32, of the policy that sampled it.
        ref_log_probs: (T,) float32, of the reference policy.
        advantages: (T,) float32.
        sampled: (T,) 1 where token-mean divides by the token; `None` where that is `mask`. What
            rollout correction rejects is in it, and not in `mask`.
    """

    prompt: Tensor
    response: Tensor
    mask: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    sampled: Tensor | None = None

    @property
    def tokens(self) -> float:
        """Number of tokens that the losses count."""
        return float(self.mask.sum())

    @property
    def normalising(self) -> Tensor:
        """(T,) 1 where token-mean divides by the token."""
        return self.mask if self.sampled is None else self.sampled
