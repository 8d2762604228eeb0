"""Update rules that the engine is run with: as a user sets them, and as the oracle knows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.oracle.rule import PAPER, ROBUST, Rule

# veRL's own actor configuration, and ours with `update_rule=null`.
STOCK, CONFIGURED = "stock", "configured"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An update rule: as the user sets it, and as the oracle knows it.

    Args:
        rule: `update_rule`; `None` for a stock run.
        settings: the `pcr` block.
        oracle: the same in the oracle; `None` where the test compares with something else.
        blocks: how `tests.distributed.expected.blocks_of` cuts the model.
        halves: whether the units are halves and not micro-batches.
        probes: random directions, where the units are single rows; 0 where they are not.
    """

    rule: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    oracle: Rule | None = None
    blocks: str = "mlp"
    halves: bool = False
    probes: int = 0


_PROBES = 4
_SEQUENCES = {"estimator": "sequence", "probes": _PROBES}
_HALVES = {"estimator": "split_half"}
_TWICE = {"passes": "two_forward"}
_RUN, _GROUP = {"zero_advantage": "run"}, {"zero_advantage": "group"}
_COMBINED = {"combine_signals": True}
_EACH = {"share_recomputation": False}
VARIANTS = {
    STOCK: Variant(),
    CONFIGURED: Variant(),
    "paper": Variant(rule="pcr", settings={"preset": "paper"}, oracle=PAPER),
    "robust": Variant(rule="pcr", settings={"preset": "robust"}, oracle=ROBUST),
    # V of beta s: alpha is nearly 1, so that a projection goes beyond the floor more often.
    "robust_beta": Variant(
        rule="pcr",
        settings={"preset": "robust", "variance": {"scale": "beta"}},
        oracle=replace(ROBUST, scale="beta"),
    ),
    # Passes of their own, where one forward pass would do.
    "paper_twice": Variant(rule="pcr", settings=_TWICE, oracle=PAPER),
    "robust_twice": Variant(rule="pcr", settings={"preset": "robust", **_TWICE}, oracle=ROBUST),
    "sum_twice": Variant(rule="sum", settings=_TWICE, oracle=Rule(name="sum")),
    "paper_halves_twice": Variant(
        rule="pcr", settings={"variance": _HALVES, **_TWICE}, oracle=PAPER, halves=True
    ),
    "paper_sequences_twice": Variant(
        rule="pcr", settings={"variance": _SEQUENCES, **_TWICE}, oracle=PAPER, probes=_PROBES
    ),
    # One forward pass, and a recomputation of every layer for each signal.
    "paper_recomputed_twice": Variant(rule="pcr", settings=_EACH, oracle=PAPER),
    "sum_recomputed_twice": Variant(rule="sum", settings=_EACH),
    # Gradients outside the scope once, from p + beta s.
    "paper_halves_combined": Variant(
        rule="pcr", settings={"variance": _HALVES, **_COMBINED}, oracle=PAPER, halves=True
    ),
    "robust_halves_combined": Variant(
        rule="pcr",
        settings={"preset": "robust", "variance": _HALVES, **_COMBINED},
        oracle=ROBUST,
        halves=True,
    ),
    "paper_sequences_combined": Variant(
        rule="pcr", settings={"variance": _SEQUENCES, **_COMBINED}, oracle=PAPER, probes=_PROBES
    ),
    "paper_sequences_combined_each": Variant(
        rule="pcr",
        settings={"variance": _SEQUENCES, **_COMBINED, **_EACH},
        oracle=PAPER,
        probes=_PROBES,
    ),
    # Micro-batches without advantage.
    "paper_run": Variant(rule="pcr", settings=_RUN, oracle=PAPER),
    "sum_run": Variant(rule="sum", settings=_RUN, oracle=Rule(name="sum")),
    "paper_sequences_group": Variant(
        rule="pcr", settings={"variance": _SEQUENCES, **_GROUP}, oracle=PAPER, probes=_PROBES
    ),
    "robust_halves_group": Variant(
        rule="pcr",
        settings={"preset": "robust", "variance": _HALVES, **_GROUP},
        oracle=ROBUST,
        halves=True,
    ),
    "sum_group": Variant(
        rule="sum",
        settings={"variance": _SEQUENCES, **_GROUP},
        oracle=Rule(name="sum"),
        probes=_PROBES,
    ),
    "sum_combined": Variant(rule="sum", settings={"variance": _SEQUENCES, **_COMBINED}),
    "pcgrad": Variant(rule="pcgrad", oracle=Rule(name="pcgrad")),
    "soft": Variant(rule="soft", settings={"alpha": 0.5}, oracle=Rule(name="soft", alpha=0.5)),
    "sum": Variant(rule="sum", oracle=Rule(name="sum")),
    "sum_halves": Variant(rule="sum", settings={"variance": _HALVES}),
    "pcgrad_halves": Variant(
        rule="pcgrad", settings={"variance": _HALVES}, oracle=Rule(name="pcgrad"), halves=True
    ),
    "paper_halves": Variant(rule="pcr", settings={"variance": _HALVES}, oracle=PAPER, halves=True),
    "robust_halves": Variant(
        rule="pcr",
        settings={"preset": "robust", "variance": _HALVES},
        oracle=ROBUST,
        halves=True,
    ),
    "paper_sequences": Variant(
        rule="pcr", settings={"variance": _SEQUENCES}, oracle=PAPER, probes=_PROBES
    ),
    "robust_sequences": Variant(
        rule="pcr",
        settings={"preset": "robust", "variance": _SEQUENCES},
        oracle=ROBUST,
        probes=_PROBES,
    ),
    # The default number of directions; compared with V itself.
    "paper_many_sequences": Variant(
        rule="pcr", settings={"variance": {"estimator": "sequence"}}, oracle=PAPER
    ),
    "attention_sequences": Variant(
        rule="pcr",
        settings={"scope": "attention", "variance": _SEQUENCES},
        oracle=PAPER,
        blocks="attention",
        probes=_PROBES,
    ),
    "literal": Variant(rule="pcr", settings={"gate": False}, oracle=Rule(name="pcr", gate=False)),
    "relative": Variant(
        rule="pcr",
        settings={"variance": {"scale": "relative"}},
        oracle=Rule(name="pcr", scale="relative"),
    ),
    # The bias of an average of few steps cancels in alpha unless V is compared with a norm.
    "relative_average": Variant(
        rule="pcr",
        settings={"variance": {"scale": "relative", "ema": 0.9}},
        oracle=Rule(name="pcr", scale="relative", decay=0.9),
    ),
    "strict": Variant(
        rule="pcgrad",
        settings={"min_cosine": 0.1},
        oracle=Rule(name="pcgrad", min_cosine=0.1),
    ),
    "upgrad": Variant(rule="torchjd:UPGrad", oracle=Rule(name="upgrad")),
    "mgda": Variant(rule="torchjd:MGDAWeighting", oracle=Rule(name="mgda")),
    "tensor": Variant(rule="pcr", settings={"block": "tensor"}, oracle=PAPER, blocks="tensor"),
    "global": Variant(rule="pcr", settings={"block": "global"}, oracle=PAPER, blocks="global"),
    "everything": Variant(
        rule="pcr", settings={"scope": "all", "block": "global"}, oracle=PAPER, blocks="everything"
    ),
    "everything_halves": Variant(
        rule="pcr",
        settings={"scope": "all", "block": "global", "variance": _HALVES},
        oracle=PAPER,
        blocks="everything",
        halves=True,
    ),
    "attention": Variant(
        rule="pcr", settings={"scope": "attention"}, oracle=PAPER, blocks="attention"
    ),
    "regex": Variant(
        rule="pcr",
        settings={"scope": [r"layers\.[02]\.mlp\.down"]},
        oracle=PAPER,
        blocks="regex",
    ),
    "observe": Variant(rule="observe", settings={"observe_every": 1}),
    "observe_halves": Variant(rule="observe", settings={"observe_every": 1, "variance": _HALVES}),
    "observe_sparse": Variant(rule="observe", settings={"observe_every": 2, "preset": "robust"}),
}
