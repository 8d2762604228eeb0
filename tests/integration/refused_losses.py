"""Losses that a rule refuses, as in `refused_settings`, and some that are much alike and taken."""

from pcr_plugin.verl.refusals_losses import of_sequences
from tests.integration.recipes import ACTOR
from tests.integration.refused_settings import BY_ROWS, PCR, SPLIT_HALF
from tests.support.policy_losses import loss_modes

_GROUP = f"{PCR}.zero_advantage=group"
_DYNAMIC = f"{ACTOR}.use_dynamic_bsz=True"
_BY_LONGEST = f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm"
_BY_SEQUENCE = f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"
_MODE = f"{ACTOR}.policy_loss.loss_mode"
_OF_SEQUENCES = of_sequences()

REFUSED_LOSSES: list[tuple[list[str], str, list[str]]] = [
    # The KL must be a loss, once, with a gradient of its own.
    ([f"{ACTOR}.use_kl_loss=False"], f"{ACTOR}.use_kl_loss=False", ["set it to True"]),
    (
        ["algorithm.use_kl_in_reward=True"],
        "algorithm.use_kl_in_reward=True",
        ["set it to False", "use_kl_loss"],
    ),
    *(
        (
            [f"{ACTOR}.kl_loss_type={kind}"],
            f"{ACTOR}.kl_loss_type={kind!r}",
            ["k3+", "k2", "k1+", "low_var_kl"],
        )
        for kind in ("kl", "k1", "abs", "full", "k4", "K3+", "low_var_kl++")
    ),
    ([f"{ACTOR}.kl_loss_coef=-0.1"], f"{ACTOR}.kl_loss_coef=-0.1", ["at least 0"]),
    ([f"{ACTOR}.kl_loss_coef=nan"], f"{ACTOR}.kl_loss_coef=nan", ["at least 0"]),
    ([f"{ACTOR}.kl_loss_coef=inf"], f"{ACTOR}.kl_loss_coef=inf", ["at least 0"]),
    ([f"{ACTOR}.kl_loss_coef=null"], f"{ACTOR}.kl_loss_coef=None", ["at least 0"]),
    ([f"{ACTOR}.kl_loss_coef=true"], f"{ACTOR}.kl_loss_coef=True", ["at least 0"]),
    (["distillation.enabled=True"], "distillation.enabled=True", ["switch it off"]),
    # A micro-batch of other rows has another longest response, and dynamic ones another number.
    *(
        (
            [*overrides, _BY_LONGEST],
            f"{ACTOR}.loss_scale_factor=None",
            [reason, "set it to the response length"],
        )
        for overrides, reason in (
            ([BY_ROWS, _GROUP], "pcr.zero_advantage=group puts other rows together"),
            ([SPLIT_HALF, _GROUP], "pcr.zero_advantage=group puts other rows together"),
            ([SPLIT_HALF, _DYNAMIC], "split_half with"),
        )
    ),
    *(
        (
            [f"{ACTOR}.update_rule={rule}", SPLIT_HALF, _DYNAMIC, f"{_MODE}=geo_mean"],
            f"{_MODE}='geo_mean'",
            ["another number", f"set {ACTOR}.use_dynamic_bsz to False"],
        )
        for rule in ("pcr", "sum", "observe")
    ),
    # One weight per unit, of tokens or of sequences, for both gradients.
    *(
        (
            [f"{ACTOR}.update_rule={rule}", f"{_MODE}={mode}", *overrides],
            f"{ACTOR}.loss_agg_mode={aggregation!r}",
            [f"loss_mode={mode} weighs sequences", "use seq-mean-token-mean"],
        )
        for rule in ("pcr", "observe")
        for mode in _OF_SEQUENCES
        for overrides, aggregation in (
            ([], "token-mean"),
            ([BY_ROWS, f"{ACTOR}.loss_agg_mode=token-sum"], "token-sum"),
        )
    ),
    *(
        (
            [f"{ACTOR}.update_rule={rule}", f"{_MODE}=geo_mean", _BY_SEQUENCE, _DYNAMIC, *by],
            f"{ACTOR}.use_dynamic_bsz=True",
            ["every micro-batch the same weight", "set it to False"],
        )
        for rule, by in (("pcr", []), ("pcr", [BY_ROWS]), ("observe", []))
    ),
]

ACCEPTED_LOSSES: list[list[str]] = [
    [BY_ROWS, _GROUP, _BY_LONGEST, f"{ACTOR}.loss_scale_factor=1024"],
    [SPLIT_HALF, _DYNAMIC, _BY_LONGEST, f"{ACTOR}.loss_scale_factor=1024"],
    # Each keeps its rows.
    [SPLIT_HALF, _BY_LONGEST],
    [BY_ROWS, _DYNAMIC, _BY_LONGEST],
    [SPLIT_HALF, f"{_MODE}=geo_mean", _BY_SEQUENCE],
    [BY_ROWS, _GROUP, f"{_MODE}=geo_mean", _BY_SEQUENCE],
    *(
        [f"{_MODE}={mode}", f"{ACTOR}.loss_agg_mode={aggregation}"]
        for mode in _OF_SEQUENCES
        for aggregation in ("seq-mean-token-sum", "seq-mean-token-sum-norm")
    ),
    [f"{_MODE}=sapo", _BY_SEQUENCE, _DYNAMIC],
    *([f"{_MODE}={mode}"] for mode in loss_modes() if mode not in _OF_SEQUENCES),
]
# Without a use for variances a rule takes these, too, and says what is wrong with those it logs.
WARNED_LOSSES: list[list[str]] = [
    *([f"{_MODE}={mode}"] for mode in _OF_SEQUENCES),
    [f"{_MODE}=geo_mean", _BY_SEQUENCE, _DYNAMIC],
]
