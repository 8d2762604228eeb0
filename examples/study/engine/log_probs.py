"""PATCH of veRL: log-probabilities of all tokens at once where it takes them one by one.

Without flash-attn veRL's engines loop over the rows of packed logits, `[tokens, vocabulary]`, to
save memory. On a CPU and a vocabulary of 640 the loop is half of an update's time and saves
nothing. veRL has no setting for it. The values are the same.
"""

from types import ModuleType

from torch import Tensor
from verl.utils import torch_functional

_NAME = "logprobs_from_logits_v2"
_MARK = "_takes_all_at_once"


def take_all_at_once(module: ModuleType = torch_functional) -> None:
    """Replace veRL's loop; a second call changes nothing.

    Args:
        module: that has the function.

    Raises:
        RuntimeError: this veRL has no such function.
    """
    stock = getattr(module, _NAME, None)
    if stock is None:
        raise RuntimeError(f"{module.__name__} has no {_NAME}, which the study replaces")
    if not hasattr(stock, _MARK):
        setattr(_at_once, _MARK, stock)
        setattr(module, _NAME, _at_once)


def put_back(module: ModuleType = torch_functional) -> None:
    """veRL's own again.

    Args:
        module: see above.
    """
    setattr(module, _NAME, getattr(getattr(module, _NAME), _MARK, getattr(module, _NAME)))


def _at_once(logits: Tensor, labels: Tensor) -> Tensor:
    chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(dim=-1)
