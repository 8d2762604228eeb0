"""Every policy loss on a stock engine and on one with the rule `sum`, with the same weights."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from verl.trainer.config import RolloutCorrectionConfig
from verl.utils import tensordict_utils
from verl.workers.utils.losses import ppo_loss

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.records import CaseRecord
from tests.distributed.running import build, mini_batch
from tests.distributed.variants import STOCK
from tests.support.distances import Gradient, difference, norm
from tests.support.gathering import whole_gradients
from tests.support.kl_alone import kl_alone
from tests.support.policy_losses import policy_loss
from tests.support.verl_engine import actor_config

if TYPE_CHECKING:
    from tests.distributed.loss_combinations import Combination

BETA = 0.05
# The learning rate of 0 keeps the weights.
_RECIPE = Recipe(name="losses", micro_batches=(3,))


@dataclass(kw_only=True)
class LossRecord(CaseRecord):
    """Distances between whole gradients, so that these need not be kept.

    Attributes:
        numbers: name of the combination to name of the number to its value.
    """

    numbers: dict[str, dict[str, float]] = field(default_factory=dict)


def losses(strategy: str, inputs: Inputs, folder: Path) -> LossRecord:
    """Take the gradient of every combination in all ways."""
    # Only now: a case asks whether anything of the integration has been loaded.
    from tests.distributed.loss_combinations import combinations

    record, recipe = LossRecord(), replace(_RECIPE, strategy=strategy)
    stock = build(Case(recipe=recipe, variant=STOCK), inputs)[1]
    ours = build(Case(recipe=recipe, variant="sum"), inputs)[1]
    with stock.train_mode(), ours.train_mode():
        for combination in combinations(strategy):
            record.numbers[combination.name] = _numbers(combination, inputs, stock, ours)
    return record


def _numbers(combination: "Combination", inputs: Inputs, stock: Any, ours: Any) -> dict[str, float]:
    from pcr_plugin.verl.losses import SplitLoss

    def gradient(engine: Any, loss: Any) -> tuple[Gradient, dict[str, Any]]:
        return _gradient(engine, loss, _batch(combination, inputs))

    split = SplitLoss(partial(ppo_loss, config=_actor(combination, BETA)), lambda data: None)
    whole, metrics = gradient(stock, partial(ppo_loss, config=_actor(combination, BETA)))
    without, _ = gradient(stock, partial(ppo_loss, config=_actor(combination, 0.0)))
    kl, _ = gradient(stock, _kl_of(combination))
    p, _ = gradient(stock, split.plasticity())
    s, _ = gradient(stock, split.stability())
    summed, our_metrics = gradient(ours, partial(ppo_loss, config=_actor(combination, BETA)))
    return {
        "stock": norm(whole),
        "without_kl": norm(without),
        "kl": norm(kl),
        "p": norm(p),
        "s": norm(s),
        "sum_error": norm(difference(summed, whole)),
        "p_error": norm(difference(p, without)),
        "s_error": norm(difference(s, kl)),
        "mlp_p": _mean_over_blocks(without),
        "mlp_s": _mean_over_blocks(kl),
        **{
            f"stock/{name}": value.aggregate()
            for name, value in metrics.items()
            if _is_metric(value)
        },
        **{name: value.aggregate() for name, value in our_metrics.items() if _is_metric(value)},
    }


def _kl_of(combination: "Combination") -> Any:
    return partial(
        kl_alone,
        kind=combination.kl,
        aggregation=combination.aggregation,
        horizon=combination.horizon,
    )


def _actor(combination: "Combination", beta: float) -> Any:
    """A configuration for the loss alone; the engine has its own."""
    return actor_config(
        strategy="fsdp",
        engine={},
        ppo_mini_batch_size=12,
        ppo_micro_batch_size_per_gpu=2,
        loss_agg_mode=combination.aggregation,
        loss_scale_factor=combination.horizon,
        kl_loss_type=combination.kl,
        kl_loss_coef=beta,
        entropy_coeff=combination.entropy,
        policy_loss=policy_loss(
            combination.loss_mode,
            rollout_correction=RolloutCorrectionConfig(
                rollout_is="token", loss_type=combination.bypass
            ),
        ),
    )


def _batch(combination: "Combination", inputs: Inputs) -> Any:
    batch = mini_batch(_RECIPE, inputs, 0)
    tensordict_utils.assign_non_tensor(batch, calculate_entropy=combination.entropy > 0)
    if combination.importance:
        like = batch["old_log_probs"]
        source = torch.Generator().manual_seed(50 + dist.get_rank())
        weights = (0.3 * torch.randn(len(like.values()), generator=source)).exp()
        batch["rollout_is_weights"] = torch.nested.nested_tensor_from_jagged(
            weights, like.offsets()
        )
    return batch


def _gradient(engine: Any, loss: Any, batch: Any) -> tuple[Gradient, dict[str, Any]]:
    """What the optimizer would get, and the metrics of the step."""
    # Clip-cov draws the tokens that it clips.
    torch.manual_seed(7 + dist.get_rank())
    engine.optimizer_zero_grad()
    output = engine.forward_backward_batch(batch, loss)
    return whole_gradients(engine.module), output["metrics"]


def _is_metric(value: Any) -> bool:
    """Not a list with one value per micro-batch, which veRL averages."""
    return hasattr(value, "aggregate")


def _mean_over_blocks(gradient: Gradient) -> float:
    """Mean over the layers of the norm of an MLP's gradient."""
    layers: dict[str, Gradient] = {}
    for name, tensor in gradient.items():
        if ".mlp." in name:
            layers.setdefault(name.split(".mlp.")[0], {})[name] = tensor
    return sum(map(norm, layers.values())) / len(layers)
