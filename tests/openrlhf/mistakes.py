"""What a worker refuses, though the driver has let it through."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import deepspeed
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

from pcr_plugin.config import resolve, settings_from_mapping
from pcr_plugin.openrlhf.layouts import slots_of
from pcr_plugin.openrlhf.trainer import with_rule
from tests.distributed.inputs import Inputs
from tests.openrlhf.cases import Case
from tests.openrlhf.running import stock_trainer


def mistakes(inputs: Inputs) -> dict[str, str]:
    """Every mistake's name, to the error's text.

    Args:
        inputs: models and mini-batches.
    """
    trainer = stock_trainer(Case(name="mistakes", rule="pcr"), inputs)
    found = {
        name: _error(slots_of, _engine(stage, optimizer))
        for name, (stage, optimizer) in {
            "scattered gradients": (2, _of(DeepSpeedZeroOptimizer, contiguous_gradients=False)),
            "another optimizer on ZeRO-1": (1, SimpleNamespace()),
            "another optimizer on ZeRO-3": (3, _of(DeepSpeedZeroOptimizer)),
        }.items()
    }
    with mock.patch.object(deepspeed, "__version__", "0.20.0+cpu"):
        found["another release"] = _error(with_rule, trainer, _rule())
    sequences = _rule(scope=["norm"], variance={"estimator": "sequence"})
    found["norms in sequences"] = _error(with_rule, trainer, sequences)
    found["a scope of nothing"] = _error(with_rule, trainer, _rule(scope=["no_such"]))
    trainer.args.algo.kl.use_loss = False
    found["no KL loss"] = _error(with_rule, trainer, _rule())
    trainer.actor.model.destroy()
    return found


def _rule(**settings: Any) -> Any:
    return resolve("pcr", settings_from_mapping(settings))


def _engine(stage: int, optimizer: Any) -> Any:
    """As far as it is looked at before anything else."""
    return SimpleNamespace(zero_optimization_stage=lambda: stage, optimizer=optimizer)


def _of(kind: type, **attributes: Any) -> Any:
    made = kind.__new__(kind)
    made.__dict__.update(attributes)
    return made


def _error(call: Callable[..., object], *arguments: Any) -> str:
    try:
        call(*arguments)
    except ValueError as error:
        return str(error)
    return "no error"
