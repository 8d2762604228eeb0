"""What cannot be trained with a rule is refused by key, value and remedy."""

from typing import Any

import pytest

from pcr_plugin.config import UpdateRule, resolve, settings_from_mapping
from pcr_plugin.openrlhf.passes import takes_two_forward_passes
from pcr_plugin.openrlhf.refusals import check_arguments
from tests.openrlhf.arguments import arguments


def rule(name: str = "pcr", **settings: Any) -> UpdateRule:
    """A resolved rule."""
    found = resolve(name, settings_from_mapping(settings))
    assert found is not None
    return found


def test_a_plain_recipe_is_taken() -> None:
    for stage in (0, 1, 2, 3):
        check_arguments(arguments(ds__zero_stage=stage, ds__param_dtype="bf16"), rule())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo__kl__use_loss": False}, r"--algo\.kl\.use_loss=False.*set --algo\.kl\.use_loss"),
        ({"algo__kl__init_coef": 0.0}, r"--algo\.kl\.init_coef=0\.0.*above 0"),
        ({"algo__kl__init_coef": -1.0}, r"--algo\.kl\.init_coef=-1\.0"),
        ({"algo__kl__estimator": "k1"}, r"--algo\.kl\.estimator='k1'.*k2"),
        ({"actor__optim": "muon"}, r"--actor\.optim='muon'.*only adam"),
        ({"actor__loss_agg_mode": "seq-mean-token-mean"}, r"loss_agg_mode.*only token-mean"),
        ({"actor__policy_loss_type": "gspo"}, r"policy_loss_type='gspo'.*only ppo"),
        ({"actor__aux_loss_coef": 0.01}, r"--actor\.aux_loss_coef=0\.01"),
        ({"ds__param_dtype": "fp16"}, r"--ds\.param_dtype='fp16'.*bf16"),
        ({"ds__ring_attn_size": 2}, r"--ds\.ring_attn_size=2"),
        ({"ds__tensor_parallel_size": 2}, r"--ds\.tensor_parallel_size=2"),
        ({"ds__zpg": 8}, r"--ds\.zpg=8"),
        ({"ds__deepcompile": True}, r"--ds\.deepcompile=True"),
        ({"ds__load_in_4bit": True}, r"--ds\.load_in_4bit=True"),
        ({"data__max_images_per_prompt": 1}, r"--data\.max_images_per_prompt=1"),
        ({"ds__zero_stage": 4}, r"--ds\.zero_stage=4.*0, 1, 2, 3"),
        (
            {"ds__zero_stage": 1, "ds__param_dtype": "bf16", "ds__grad_accum_dtype": "fp32"},
            r"--ds\.grad_accum_dtype='fp32'.*zero_stage 2",
        ),
        ({"train__micro_batch_size": 12}, r"--train\.micro_batch_size=12.*at most 6"),
    ],
)
def test_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_arguments(arguments(**changes), rule())


_SEQUENCES = {"variance": {"estimator": "sequence"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"combine_signals": True},
            r"--actor\.pcr\.combine_signals=True.*takes and reduces those of all.*leave it out",
        ),
        (
            {"zero_advantage": "group"},
            r"--actor\.pcr\.zero_advantage='group'.*OpenRLHF makes the micro-batches.*run or skip",
        ),
    ],
)
def test_what_needs_another_loop_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_arguments(arguments(), rule(**settings, **_SEQUENCES))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_observing_is_taken(caplog: pytest.LogCaptureFixture, stage: int) -> None:
    """The stock update is not that of the whole window everywhere, which is said."""
    check_arguments(arguments(ds__zero_stage=stage), rule("observe"))
    assert not caplog.text
    dynamic = arguments(ds__zero_stage=stage, train__dynamic_batch_enable=True)
    check_arguments(dynamic, rule("observe"))
    assert ("last micro-batch alone" in caplog.text) == (stage in (1, 2))


def test_sequences_need_no_second_micro_batch() -> None:
    check_arguments(arguments(train__micro_batch_size=12), rule(**_SEQUENCES))


def test_a_kl_with_another_gradient_is_taken_where_openrlhf_corrects_it() -> None:
    check_arguments(arguments(algo__kl__estimator="k1", algo__kl__unbiased_gradient=True), rule())


def test_k3_warns(caplog: pytest.LogCaptureFixture) -> None:
    check_arguments(arguments(algo__kl__estimator="k3"), rule())
    assert "--algo.kl.unbiased_gradient" in caplog.text


@pytest.mark.parametrize("changes", [{"ds__zero_stage": 3}, {"ds__use_liger_kernel": True}])
def test_a_graph_that_runs_backward_once_has_two_forward_passes(changes: dict[str, Any]) -> None:
    assert takes_two_forward_passes(arguments(**changes), rule())
    with pytest.raises(ValueError, match=r"passes='shared_forward'.*two_forward"):
        check_arguments(arguments(**changes), rule(passes="shared_forward"))


def test_auto_takes_one_forward_pass_elsewhere() -> None:
    assert not takes_two_forward_passes(arguments(), rule())
    assert takes_two_forward_passes(arguments(), rule(passes="two_forward"))


def test_halves_need_two_micro_batches_on_every_rank() -> None:
    halves = rule(variance={"estimator": "split_half"})
    check_arguments(arguments(actor__num_nodes=1, actor__num_gpus_per_node=3), halves)
    with pytest.raises(ValueError, match=r"micro_batch_size=2.*each of 4 ranks; at most 1"):
        check_arguments(arguments(actor__num_nodes=2, actor__num_gpus_per_node=2), halves)


def test_one_micro_batch_is_enough_for_rules_without_a_variance() -> None:
    check_arguments(arguments(train__micro_batch_size=12), rule("pcgrad"))
