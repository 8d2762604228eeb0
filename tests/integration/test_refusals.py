"""Everything that a rule cannot be right for stops in the driver, with key, value and remedy.

In-process the cases go through `validate_config`, which is what `main_ppo` calls before Ray; a
few are run as the real command.
"""

import subprocess
import sys
from typing import Any

import pytest
from verl.plugin.platform import get_platform, set_platform
from verl.plugin.platform.platform_npu import PlatformNPU
from verl.workers.config import FSDPActorConfig, McoreActorConfig, McoreEngineConfig

from pcr_plugin.verl import enable
from pcr_plugin.verl.refusals_losses import BIASED_KL, GOOD_KL
from tests.integration.recipes import ACTOR, RECIPE, actor_of, validated
from tests.integration.refused_combinations import COMBINATIONS
from tests.integration.refused_losses import ACCEPTED_LOSSES, REFUSED_LOSSES, WARNED_LOSSES
from tests.integration.refused_settings import MEGATRON, PCR, REFUSED, RULE, SPLIT_HALF
from tests.integration.refused_sizes import REFUSED_SIZES, VIRTUAL

ALL_REFUSED = [*REFUSED, *COMBINATIONS, *REFUSED_LOSSES, *REFUSED_SIZES]


def innermost(error: BaseException) -> BaseException:
    """Our error, which Hydra wraps when it happens while an object is built."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.parametrize(
    ("overrides", "named", "remedies"), ALL_REFUSED, ids=[" ".join(o) for o, _, _ in ALL_REFUSED]
)
def test_refused_with_key_value_and_remedy(
    overrides: list[str], named: str, remedies: list[str]
) -> None:
    with pytest.raises(Exception) as caught:
        validated([RULE, *overrides])
    error = innermost(caught.value)
    assert isinstance(error, ValueError), repr(error)
    message = str(error)
    assert named in message.split(" is not possible: ")[0]
    for remedy in remedies:
        assert remedy in message.split(" is not possible: ")[1]
    # Hydra adds to the message of an error and must not hide it.
    assert message in str(caught.value)


# Cases that are about veRL's own keys.
CONFIGURATION_ONLY = [
    [override for override in overrides if not override.startswith(f"{ACTOR}.update_rule")]
    for overrides, named, _ in ALL_REFUSED
    if not named.startswith(("pcr", "update_rule"))
]


@pytest.mark.parametrize("overrides", CONFIGURATION_ONLY, ids=" ".join)
def test_without_a_rule_we_refuse_nothing(overrides: list[str]) -> None:
    """What veRL itself does with the setting is veRL's: the rule is what we cannot do there."""
    try:
        validated(overrides)
    except Exception as error:
        assert "is not possible" not in str(error)
        assert "pcr" not in str(innermost(error))


@pytest.mark.parametrize("name", ["pcr", "pcgrad", "sum", "observe", "soft", "torchjd:UPGrad"])
def test_the_recipe_itself_is_accepted(name: str) -> None:
    """Otherwise the cases above could fail for any reason."""
    alpha = [f"{PCR}.alpha=0.5"] if name == "soft" else []
    validated([f"{ACTOR}.update_rule={name}", *alpha])


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{ACTOR}.kl_loss_coef=0"],
        [f"{ACTOR}.kl_loss_coef=0.0"],
        [f"{ACTOR}.fsdp_config.fsdp_size=2"],
        [f"{ACTOR}.fsdp_config.fsdp_size=-1"],
        ["trainer.n_gpus_per_node=4", f"{ACTOR}.fsdp_config.fsdp_size=2"],
        [f"{ACTOR}.fsdp_config.fsdp_size=1"],  # replicas: right under FSDP2
        ["trainer.n_gpus_per_node=1", f"{ACTOR}.strategy=fsdp", f"{ACTOR}.fsdp_config.fsdp_size=1"],
        [f"{ACTOR}.strategy=fsdp"],
        [f"{ACTOR}.strategy=fsdp", f"{ACTOR}.fsdp_config.use_orig_params=True"],
        [f"{ACTOR}.fsdp_config.param_offload=True"],
        [f"{ACTOR}.fsdp_config.offload_policy=True"],
        [f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype=bf16"],
        [f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp16"],
        ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.rollout.name=sglang"],
        [*MEGATRON, f"{ACTOR}.megatron.expert_model_parallel_size=2"],
        # Units of experts do not matter to a scope without them.
        [
            *MEGATRON,
            f"{ACTOR}.megatron.expert_model_parallel_size=2",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
            f"{PCR}.scope=attention",
        ],
        [
            *MEGATRON,
            "trainer.n_gpus_per_node=4",
            f"{ACTOR}.megatron.tensor_model_parallel_size=4",
            f"{ACTOR}.megatron.expert_tensor_parallel_size=1",
            f"{ACTOR}.megatron.expert_model_parallel_size=2",
            f"{PCR}.scope=[shared_experts]",
        ],
        [
            *MEGATRON,
            SPLIT_HALF,
            f"+{ACTOR}.megatron.override_transformer_config.gradient_accumulation_fusion=True",
        ],
        [
            SPLIT_HALF,
            "trainer.n_gpus_per_node=4",
            f"{ACTOR}.ulysses_sequence_parallel_size=2",
            "actor_rollout_ref.model.use_remove_padding=True",
        ],
        [f"{ACTOR}.ppo_micro_batch_size_per_gpu=4"],  # one micro-batch on each of two ranks
        [f"{ACTOR}.use_dynamic_bsz=True"],
        [SPLIT_HALF],
        [SPLIT_HALF, f"{ACTOR}.use_dynamic_bsz=True"],
        [f"{ACTOR}.update_rule=sum", f"{ACTOR}.ppo_micro_batch_size_per_gpu=8"],
        [f"{ACTOR}.update_rule=torchjd:MGDAWeighting", f"{ACTOR}.ppo_micro_batch_size_per_gpu=8"],
        [f"{PCR}.passes=shared_forward"],
        *(
            [f"{PCR}.passes={passes}", *overrides]
            for passes in ("auto", "two_forward")
            for overrides in (
                [f"{ACTOR}.strategy=fsdp"],
                MEGATRON,
                ["actor_rollout_ref.model.use_liger=True"],
                ["actor_rollout_ref.model.enable_activation_offload=True"],
            )
        ),
        [f"{PCR}.preset=robust", f"{PCR}.variance.ema=0", f"{PCR}.scope=[mlp,lm_head]"],
        [f"{ACTOR}.loss_agg_mode=seq-mean-token-mean", f"{ACTOR}.entropy_coeff=0.01"],
        ["actor_rollout_ref.model.enable_gradient_checkpointing=True"],
        [*MEGATRON],
        [*MEGATRON, SPLIT_HALF, f"{ACTOR}.megatron.context_parallel_size=2"],
        [*MEGATRON, f"{ACTOR}.megatron.tensor_model_parallel_size=2"],
        # All eight rows are in the only replica: two micro-batches of four.
        [
            *MEGATRON,
            SPLIT_HALF,
            "trainer.n_gpus_per_node=4",
            f"{ACTOR}.megatron.tensor_model_parallel_size=2",
            f"{ACTOR}.megatron.pipeline_model_parallel_size=2",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        ],
        [*MEGATRON, f"{ACTOR}.megatron.use_distributed_optimizer=False"],
        [*VIRTUAL],
        [*VIRTUAL, f"{ACTOR}.use_dynamic_bsz=True"],
        *ACCEPTED_LOSSES,
    ],
    ids=" ".join,
)
def test_accepted(overrides: list[str]) -> None:
    validated([RULE, *overrides])


@pytest.mark.parametrize("kind", GOOD_KL)
def test_good_estimators_are_accepted_in_silence(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    validated([RULE, f"{ACTOR}.kl_loss_type={kind}"])
    assert "kl_loss_type" not in caplog.text


@pytest.mark.parametrize("kind", BIASED_KL)
def test_a_biased_estimator_warns_once_and_suggests_k3_plus(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """veRL's default; its value is fine and its gradient is not the KL's."""
    actor_of([RULE, f"{ACTOR}.kl_loss_type={kind}"])
    warnings = [r.getMessage() for r in caplog.records if "kl_loss_type" in r.getMessage()]
    assert len(warnings) == 1
    assert kind in warnings[0]
    assert "k3+" in warnings[0]


@pytest.mark.parametrize("overrides", WARNED_LOSSES, ids=" ".join)
def test_wrong_variances_that_a_rule_has_no_use_for_are_warned_about(
    overrides: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for rule in ("sum", "pcgrad", "torchjd:UPGrad"):
        caplog.clear()
        validated([f"{ACTOR}.update_rule={rule}", *overrides])
        assert "pcr/var_* and pcr/snr_* are not those of the surrogate" in caplog.text


def from_code(kind: type = FSDPActorConfig, **changes: Any) -> Any:
    values = {"strategy": "fsdp2", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1}
    good = {"use_kl_loss": True, "kl_loss_type": "k3+"}
    return kind(**(values | good | changes))


def test_enabling_from_code_refuses_the_same() -> None:
    assert enable(from_code(), "pcr").engine.strategy == "pcr:fsdp2"
    for changes, words in (
        ({"use_kl_loss": False}, "use_kl_loss=False"),
        ({"kl_loss_type": "kl"}, "kl_loss_type='kl'"),
        ({"kl_loss_coef": -1.0}, "kl_loss_coef=-1.0"),
    ):
        with pytest.raises(ValueError, match="is not possible") as caught:
            enable(from_code(**changes), "pcr")
        assert words in str(caught.value)
    with pytest.raises(ValueError, match=r"pcr\.gate=3"):
        enable(from_code(), "pcr", gate=3)
    with pytest.raises(ValueError, match=r"pcr\.floor=True.*stability_floor"):
        enable(from_code(), "pcr", floor=True)


def test_enabling_from_code_on_megatron() -> None:
    """The same refusals, and our backend if there is none."""
    good = from_code(McoreActorConfig, strategy="megatron")
    assert enable(good, "pcr").engine.strategy == "pcr:megatron"
    with pytest.raises(ValueError, match=r"use_kl_loss=False is not possible"):
        enable(from_code(McoreActorConfig, strategy="megatron", use_kl_loss=False), "pcr")
    whole = McoreEngineConfig(use_megatron_fsdp=True)
    refused = from_code(McoreActorConfig, strategy="megatron", megatron=whole)
    with pytest.raises(ValueError, match=r"megatron\.use_megatron_fsdp=True is not possible"):
        enable(refused, "pcr")
    assert refused.engine.strategy == "megatron"


def test_a_refused_actor_is_left_as_it_was() -> None:
    actor = from_code(use_kl_loss=False)
    with pytest.raises(ValueError, match="use_kl_loss"):
        enable(actor, "pcr")
    assert actor.engine.strategy == "fsdp2"
    assert not hasattr(actor.engine, "update_rule")


def test_a_missing_extra_stops_in_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torchjd", "torchjd.aggregation"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Exception, match="is not possible") as caught:
        validated([f"{ACTOR}.update_rule=torchjd:MGDA"])
    message = str(innermost(caught.value))
    assert message.startswith("update_rule='torchjd:MGDA' is not possible: TorchJD is missing")
    assert 'pip install "pcr-plugin[torchjd]"' in message
    actor = from_code()
    with pytest.raises(ValueError, match="TorchJD is missing"):
        enable(actor, "torchjd:MGDA")
    assert actor.engine.strategy == "fsdp2"


def test_megatron_on_ascend_is_another_engine() -> None:
    """The driver may have no accelerator; a worker that has one builds the same configuration."""
    here = get_platform()
    set_platform(PlatformNPU())
    try:
        with pytest.raises(Exception, match="is not possible") as caught:
            actor_of([RULE, *MEGATRON])
        assert actor_of([RULE]).engine.strategy == "pcr:fsdp2"
        assert actor_of([*MEGATRON]).engine.strategy == "megatron"
    finally:
        set_platform(here)
    message = str(innermost(caught.value))
    assert message.startswith(f"{ACTOR}.strategy='megatron' is not possible")
    assert "MindSpeed" in message
    assert actor_of([RULE, *MEGATRON]).engine.strategy == "pcr:megatron"


def run_main_ppo(*overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", *RECIPE, *overrides],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{ACTOR}.kl_loss_type=kl"], ["kl_loss_type='kl' is not possible", "k3+ if in doubt"]),
        (
            [f"{ACTOR}.ppo_micro_batch_size_per_gpu=8"],
            ["ppo_micro_batch_size_per_gpu=8", "at most 4"],
        ),
        ([f"{PCR}.gate=maybe"], ["pcr.gate='maybe' is not possible: true or false"]),
    ],
    ids=["kl estimator", "one unit", "bad value"],
)
def test_the_real_command_stops_before_ray(
    overrides: list[str], words: list[str], tmp_path: Any
) -> None:
    """Three refusals from three places: instantiation, validation, settings."""
    run = run_main_ppo(RULE, *overrides, f"hydra.run.dir={tmp_path}")
    output = run.stdout + run.stderr
    assert run.returncode != 0
    for word in words:
        assert word in output
    assert "Started a local Ray instance" not in output
    assert "ray init kwargs" not in output
