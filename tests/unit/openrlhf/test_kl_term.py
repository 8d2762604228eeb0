"""The KL term taken out of OpenRLHF's `actor_loss + kl_loss * kl_ctl`."""

import pytest
import torch

from pcr_plugin.openrlhf.kl_term import KLTerm


def test_the_rest_of_the_loss_has_no_gradient_of_the_kl() -> None:
    weight = torch.tensor(3.0, requires_grad=True)
    kl_loss, term = weight.square(), KLTerm(0.5)
    loss = 2 * weight + kl_loss * term
    assert loss.item() == 6 + 0.5 * 9
    assert torch.autograd.grad(loss, weight, retain_graph=True) == (2,)
    assert torch.autograd.grad(term.loss(), weight) == (6,)


@pytest.mark.parametrize("kl_loss", [0, 0.0, torch.tensor(1.0)])
def test_without_a_kl_loss_the_key_is_named(kl_loss: object) -> None:
    """OpenRLHF's `kl_loss` is 0 where it computes none."""
    with pytest.raises(ValueError, match=r"--algo\.kl\.use_loss=False.*set --algo\.kl\.use_loss"):
        kl_loss * KLTerm(0.5)  # type: ignore[operator]


def test_a_release_that_does_not_multiply_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"`kl_loss \* kl_ctl` as 0\.11\.2 does"):
        KLTerm(0.5).loss()
