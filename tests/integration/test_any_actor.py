"""Any actor of veRL with any rule: trained with it as it is written, or refused by key and value.

What veRL itself refuses without a rule is not ours and left out.
"""

import re
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig

from pcr_plugin.config.checks import Refusal
from pcr_plugin.config.rule import RULES
from pcr_plugin.config.settings import BLOCKS, ESTIMATORS, PASSES, ZERO_ADVANTAGE
from pcr_plugin.verl.actor_config import PCRFSDPActorConfig

_ACTOR = "actor_rollout_ref.actor"
_NAMED = re.compile(
    r"^(?P<key>[\w. ]+)=(?P<value>.*?) is not possible: (?P<allowed>.+)$", re.DOTALL
)
_MODES = ("vanilla", "gspo", "sapo", "geo_mean", "cispo")


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """What is refused needs one bad value; what is accepted needs none."""
    return st.sampled_from((*[usual] * 3 * len(others), *others))


actors = st.fixed_dictionaries(
    {
        "ppo_mini_batch_size": st.integers(1, 8),
        "ppo_micro_batch_size_per_gpu": st.integers(1, 4),
        "rollout_n": st.integers(1, 4),
        "use_kl_loss": mostly(True, False),
        "kl_loss_coef": mostly(0.1, 0.0, 1, -0.1, float("nan"), float("inf"), True),
        "kl_loss_type": mostly("k3+", "k3", "low_var_kl", "k1", "kl", "mse", "x"),
        "use_dynamic_bsz": st.booleans(),
        "ppo_max_token_len_per_gpu": st.just(64),
        "loss_agg_mode": st.sampled_from(
            ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
        ),
        "loss_scale_factor": st.sampled_from((None, 8)),
        "use_fused_kernels": mostly(False, True),
        "policy_loss": st.sampled_from(_MODES).map(lambda mode: {"loss_mode": mode}),
    }
)
engines = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(("fsdp", "fsdp2")),
        "fsdp_size": mostly(-1, 1, 2),
        "ulysses_sequence_parallel_size": mostly(1, 2),
    }
)
rules = st.fixed_dictionaries(
    {"update_rule": st.sampled_from(RULES)},
    optional={
        "alpha": mostly(None, 0.5),
        "gate": st.booleans(),
        "block": st.sampled_from(BLOCKS),
        "passes": st.sampled_from(PASSES),
        "combine_signals": st.booleans(),
        "zero_advantage": st.sampled_from(ZERO_ADVANTAGE),
        "estimator": st.sampled_from(ESTIMATORS),
    },
)
ranks = st.sampled_from((1, 2, 4))


def built(
    kind: type, actor: dict[str, Any], engine: dict[str, Any], number: int, **rule: Any
) -> Any:
    """As the driver builds and validates it."""
    found = kind(
        **actor,
        strategy=engine["strategy"],
        fsdp_config=FSDPEngineConfig(**engine),
        ulysses_sequence_parallel_size=engine["ulysses_sequence_parallel_size"],
        **rule,
    )
    found.validate(number, 1024)
    return found


def stands(actor: dict[str, Any], engine: dict[str, Any], rule: dict[str, Any], number: int) -> Any:
    """Every key as a user types it, with what was given."""
    given_rule = {f"pcr.{key}": value for key, value in rule.items()}
    given_rule["update_rule"] = given_rule.pop("pcr.update_rule")
    if "pcr.estimator" in given_rule:
        given_rule["pcr.variance.estimator"] = given_rule.pop("pcr.estimator")
    return (
        {f"{_ACTOR}.{key}": value for key, value in actor.items()}
        | {f"{_ACTOR}.policy_loss.loss_mode": actor["policy_loss"]["loss_mode"]}
        | {f"{_ACTOR}.fsdp_config.{key}": value for key, value in engine.items()}
        | {f"{_ACTOR}.{key}": value for key, value in engine.items()}
        | {"trainer.n_gpus_per_node x trainer.nnodes": number}
        | given_rule
    )


def outcome(
    actor: dict[str, Any], engine: dict[str, Any], rule: dict[str, Any], number: int
) -> str:
    """`accepted`, or the key that was refused; both after checks."""
    try:
        built(FSDPActorConfig, actor, engine, number)
    except (ValueError, AssertionError, TypeError):
        return "refused by veRL"
    values = {key: v for key, v in rule.items() if key not in ("update_rule", "estimator")}
    if "estimator" in rule:
        values["variance"] = {"estimator": rule["estimator"]}
    ours = {"update_rule": rule["update_rule"], "pcr": values}
    try:
        found = built(PCRFSDPActorConfig, actor, engine, number, **ours)
    except Refusal as refusal:
        named = _NAMED.match(str(refusal))
        assert named, str(refusal)
        written = stands(actor, engine, rule, number)
        # A key that was not given has its default.
        if named["key"] in written or not named["key"].startswith("pcr."):
            assert named["value"] == repr(written[named["key"]])
        return named["key"]
    assert found.engine.strategy == f"pcr:{engine['strategy']}"
    assert found.engine.update_rule.name == rule["update_rule"]
    refused = [why for why, holds in forbidden(actor, engine, rule, number).items() if holds]
    assert not refused, refused
    return "accepted"


def test_trained_as_it_is_written_or_refused_by_key_and_value() -> None:
    outcomes: Counter[str] = Counter()

    @given(actor=actors, engine=engines, rule=rules, number=ranks)
    @settings(derandomize=True, max_examples=1000, deadline=None, database=None)
    def draw(actor: Any, engine: Any, rule: Any, number: int) -> None:
        outcomes[outcome(actor, engine, rule, number)] += 1

    draw()
    # Otherwise everything could be refused, or nothing.
    assert outcomes["accepted"] > 50, outcomes
    assert len(outcomes) > 12, outcomes


def forbidden(
    actor: dict[str, Any], engine: dict[str, Any], rule: dict[str, Any], number: int
) -> dict[str, bool]:
    """What docs/configuration.md and docs/support.md say is refused."""
    shared = engine["ulysses_sequence_parallel_size"] > 1
    estimator = rule.get("estimator", "micro_batch")
    mode, beta = actor["policy_loss"]["loss_mode"], actor["kl_loss_coef"]
    reads = rule["update_rule"] in ("pcr", "observe")
    one_forward = (
        rule.get("passes") == "shared_forward"
        or rule.get("combine_signals", False)
        or rule.get("zero_advantage") == "group"
    )
    return {
        "no KL loss": not actor["use_kl_loss"],
        "beta": isinstance(beta, bool) or not 0 <= beta < float("inf"),
        "no gradient of a KL": actor["kl_loss_type"] in ("k1", "kl", "x"),
        "fused kernels": actor["use_fused_kernels"],
        "slices of units": shared and estimator == "micro_batch",
        "two passes only": one_forward and engine["strategy"] == "fsdp",
        "soft without alpha": rule["update_rule"] == "soft" and rule.get("alpha") is None,
        "alpha without soft": rule["update_rule"] != "soft" and rule.get("alpha") is not None,
        "FSDP1 averages nothing": (engine["strategy"], engine["fsdp_size"]) == ("fsdp", 1)
        and number > 1,
        "part of a replica": shared and number == 1,
        "sequences weigh the same in one loss only": reads
        and mode in ("sapo", "geo_mean")
        and actor["loss_agg_mode"] == "token-mean",
        "one mean over a micro-batch that has another size": mode == "geo_mean"
        and actor["use_dynamic_bsz"]
        and (reads or estimator == "split_half"),
        "sorted in micro-batches of any length": rule.get("zero_advantage") == "group"
        and actor["use_dynamic_bsz"],
        "combined without halves or probes": rule.get("combine_signals", False)
        and reads
        and estimator == "micro_batch",
    }
