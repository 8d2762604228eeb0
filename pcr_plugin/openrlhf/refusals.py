"""OpenRLHF settings that PCR cannot be right for; each error names the remedy."""

import logging
from typing import Any

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject
from pcr_plugin.openrlhf.passes import why_not_shared

logger = logging.getLogger(__name__)

# Key, the only value it may have, and why another is refused.
_ONLY: tuple[tuple[str, Any, str], ...] = (
    ("actor.optim", "adam", "Muon changes gradients before they can be read"),
    ("actor.loss_agg_mode", "token-mean", "OpenRLHF's KL loss counts tokens in every mode, so "),
    ("actor.policy_loss_type", "ppo", "OpenRLHF's KL loss counts tokens in every mode, so "),
    ("actor.aux_loss_coef", 0, "the router's loss would be part of the surrogate's gradient"),
    ("ds.ring_attn_size", 1, "ring attention has not been shown to be right"),
    ("ds.tensor_parallel_size", 1, "tensor parallelism has not been shown to be right"),
    ("ds.zpg", 1, "secondary shards have not been shown to be right"),
    ("ds.deepcompile", False, "compiled backward passes have not been shown to be right"),
    ("ds.load_in_4bit", False, "quantised weights have not been shown to be right"),
    ("data.max_images_per_prompt", 0, "models with images have not been shown to be right"),
)
_TWO_UNITS = "the surrogate's units and the KL's would have different weights"


def check_arguments(args: Any, rule: UpdateRule) -> None:
    """Refuse what cannot be trained rightly; in the driver, and once more in every worker.

    Args:
        args: OpenRLHF's arguments.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and what is allowed.
    """
    _check_rule(args, rule)
    _check_kl(args.algo.kl)
    for key, allowed, reason in _ONLY:
        value = _value(args, key, allowed)
        if value != allowed:
            why = reason + _TWO_UNITS if reason.endswith(" ") else reason
            reject("--" + key, value, f"{why}; only {allowed} with --actor.update_rule")
    _check_stage(args)
    if rule.settings.passes == "shared_forward" and (obstacle := why_not_shared(args)):
        reject("--actor.pcr.passes", "shared_forward", f"{obstacle}; use auto or two_forward")
    _check_units(args, rule)


def _value(args: Any, key: str, default: Any) -> Any:
    for part in key.split("."):
        if not hasattr(args, part):
            return default
        args = getattr(args, part)
    return args


def _check_rule(args: Any, rule: UpdateRule) -> None:
    settings = rule.settings
    if settings.combine_signals:
        reject(
            "--actor.pcr.combine_signals",
            True,
            "it takes the KL's gradient of the scope alone, and a backward pass of DeepSpeed's "
            "engine takes and reduces those of all parameters; leave it out",
        )
    if settings.zero_advantage == "group":
        reject(
            "--actor.pcr.zero_advantage",
            "group",
            "OpenRLHF makes the micro-batches, so sequences without an advantage cannot be put "
            "together in some of them; use run or skip",
        )
    if rule.observes and args.train.dynamic_batch_enable and args.ds.zero_stage in (1, 2):
        logger.warning(
            "--actor.update_rule observe leaves the update to OpenRLHF, which with "
            "--train.dynamic_batch_enable on ZeRO-1 and 2 takes the gradient of the last "
            "micro-batch alone; the statistics are of all of them. The rule sum has them in its "
            "update, too."
        )


def _check_kl(kl: Any) -> None:
    if not kl.use_loss:
        reject(
            "--algo.kl.use_loss",
            kl.use_loss,
            "the stability gradient is the gradient of the KL loss; set --algo.kl.use_loss "
            "(without it OpenRLHF puts the KL into the reward)",
        )
    if not kl.init_coef > 0:
        reject(
            "--algo.kl.init_coef",
            kl.init_coef,
            "a number above 0; at 0 OpenRLHF has no reference model and no KL loss",
        )
    if kl.unbiased_gradient or kl.estimator == "k2":
        return
    if kl.estimator == "k1":
        reject(
            "--algo.kl.estimator",
            "k1",
            "its gradient is not that of a KL; use k2, or add --algo.kl.unbiased_gradient",
        )
    logger.warning(
        "--algo.kl.estimator %s: its gradient is not the gradient of the KL; with "
        "--algo.kl.unbiased_gradient it has the same value and the right gradient.",
        kl.estimator,
    )


def _check_stage(args: Any) -> None:
    stage, accumulation = args.ds.zero_stage, args.ds.grad_accum_dtype
    if args.ds.param_dtype == "fp16":
        reject("--ds.param_dtype", "fp16", "loss scaling is not built for OpenRLHF yet; use bf16")
    if stage not in (0, 1, 2, 3):
        reject("--ds.zero_stage", stage, "one of 0, 1, 2, 3")
    if stage == 1 and args.ds.param_dtype == "bf16" and accumulation not in (None, "bf16"):
        reject(
            "--ds.grad_accum_dtype",
            accumulation,
            "with ZeRO-1 DeepSpeed then takes another optimizer; leave it out (micro-batches are "
            "accumulated in fp32 with a rule), or use --ds.zero_stage 2",
        )


def _check_units(args: Any, rule: UpdateRule) -> None:
    train = args.train
    if train.dynamic_batch_enable or rule.settings.variance.estimator == "sequence":
        return
    key, size, units = "--train.micro_batch_size", train.micro_batch_size, train.batch_size
    units //= size
    if rule.settings.variance.estimator == "split_half":
        ranks = _value(args, "actor.num_nodes", 1) * _value(args, "actor.num_gpus_per_node", 1)
        if units // ranks < 2:
            most = train.batch_size // ranks // 2
            reject(
                key,
                size,
                f"split_half needs two micro-batches on each of {ranks} ranks; at "
                f"most {most} with --train.batch_size {train.batch_size}",
            )
    elif rule.needs_variance and units < 2:
        reject(
            key,
            size,
            f"the variance is measured over micro-batches and --train.batch_size "
            f"{train.batch_size} makes {units}; at most {train.batch_size // 2}",
        )
