"""OpenRLHF's strategy, actor and trainer around one mini-batch."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from openrlhf.models import Actor
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer
from openrlhf.utils.deepspeed import DeepspeedStrategy
from torch import Tensor

from pcr_plugin.config import resolve, settings_from_mapping
from pcr_plugin.openrlhf.trainer import with_rule
from tests.distributed.inputs import Inputs
from tests.openrlhf.arguments import arguments
from tests.openrlhf.cases import RULES, Case
from tests.openrlhf.records import Record, StepLeft
from tests.oracle.architecture import LINEARS
from tests.support.tiny_model import MODELS
from tests.support.trajectory import Trajectory

# So large that rounding of the parameters is far below the error of a gradient.
_PLAIN_RATE = 1e3
_ADAM_RATE = 1e-3


class TorchStrategy(DeepspeedStrategy):
    """With torch's optimizers: DeepSpeed's own are compiled on first use."""

    plain = True

    def get_ds_train_config(self, optim_dict: Any = None, *, max_norm: Any = None) -> Any:
        """The stock configuration with another optimizer."""
        if optim_dict is not None and self.plain:
            optim_dict = {"type": "SGD", "params": {"lr": optim_dict["params"]["lr"]}}
        elif optim_dict is not None:
            optim_dict["params"]["torch_adam"] = True
        config = super().get_ds_train_config(optim_dict, max_norm=max_norm)
        config["zero_allow_untested_optimizer"] = True
        return config


def stock_trainer(case: Case, inputs: Inputs) -> Any:
    """OpenRLHF's own trainer, its model ready, whatever the case's rule."""
    args = arguments(**case.arguments)
    strategy = TorchStrategy(
        seed=args.train.seed,
        micro_train_batch_size=args.train.micro_batch_size,
        train_batch_size=args.train.batch_size,
        zero_stage=args.ds.zero_stage,
        args=args,
    )
    strategy.plain = not case.adam
    strategy.setup_distributed()
    return _trainer(case, strategy, inputs, _ADAM_RATE if case.adam else _PLAIN_RATE)


def run_case(case: Case, inputs: Inputs) -> Record:
    """Train on the mini-batch once and see what has become of the parameters."""
    torch.manual_seed(1 + dist.get_rank())
    rows = rows_of_rank(len(inputs.batches[case.batch]))
    rate = _ADAM_RATE if case.adam else _PLAIN_RATE
    trainer = stock_trainer(case, inputs)
    if (rule := RULES[case.rule]) is not None:
        name, settings = rule
        resolved = resolve(name, settings_from_mapping(settings))
        assert resolved is not None
        trainer = with_rule(trainer, resolved)
    seen: list[list[int]] = []
    steps: list[StepLeft] = []
    _note(trainer, seen, steps)
    before = parameters(trainer.actor)
    trainer.replay_buffer.append(experience(inputs.batches[case.batch], rows))
    statuses, averages = [], []
    for left in reversed(range(case.calls)):
        if case.spoiled and not left:
            _spoil(trainer.actor, case.spoiled)
        statuses.append(trainer.ppo_train(case.beta))
        if rule is not None:
            averages.append(trainer.two_gradients.update.average.state_dict())
    engine = trainer.actor.model
    record = Record(
        before,
        parameters(trainer.actor),
        seen,
        statuses[-1],
        rate,
        kinds=[type(trainer).__name__, type(engine.optimizer).__name__],
        statuses=statuses,
        averages=averages,
        steps=steps,
        ended=(float(torch.rand(())), engine.micro_steps, engine.global_steps),
    )
    engine.destroy()
    return record


def _spoil(actor: Any, name: str) -> None:
    dict(actor.model.module.named_parameters())[name].register_hook(lambda grad: grad * torch.inf)


def rows_of_rank(rows: int) -> list[int]:
    """Every rank's rows, side by side."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    each = rows // ranks
    return list(range(rank * each, (rank + 1) * each))


def _actor(case: Case, strategy: Any, inputs: Inputs) -> Actor:
    architecture = MODELS[case.model]
    actor = Actor(
        str(inputs.checkpoints[case.model]),
        attn_implementation="eager",
        param_dtype=strategy.args.ds.param_dtype,
        ds_config=strategy.get_ds_train_config(),
        lora_rank=architecture.lora_rank,
        lora_alpha=architecture.lora_alpha,
        target_modules=[f"{kind}_proj" for kinds in LINEARS.values() for kind in kinds],
        packing_samples=strategy.args.ds.packing_samples,
    )
    if architecture.lora_rank:
        # OpenRLHF makes new adapters, of which one factor is zero.
        adapters = {n: w for n, w in inputs.weights[case.model].items() if ".lora_" in n}
        missing = actor.model.load_state_dict(adapters, strict=False)
        assert not missing.unexpected_keys
    return actor


def _trainer(case: Case, strategy: Any, inputs: Inputs, rate: float) -> Any:
    args = strategy.args
    actor = _actor(case, strategy, inputs)
    if case.checkpointing:
        reentrant = case.checkpointing == "reentrant"
        actor.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for module in actor.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = case.dropout
    adam = {"lr": rate, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}
    settings = {
        "optim": "adam",
        "adam": adam,
        "muon": {},
        "lr_scheduler": "constant",
        "lr_warmup_ratio": 0.0,
        "max_norm": case.max_norm,
        "scheduler_steps": 100,
    }
    actor, optimizer, scheduler = strategy.prepare((actor, settings))
    return ActorPPOTrainer(
        strategy,
        actor,
        ema_model=None,
        actor_optim=optimizer,
        actor_scheduler=scheduler,
        micro_train_batch_size=args.train.micro_batch_size,
        dataloader_pin_memory=False,
    )


def _note(trainer: Any, seen: list[list[int]], steps: list[StepLeft]) -> None:
    """Rows of every micro-batch, and what is left of every optimizer step."""
    stock, engine = trainer.training_step, trainer.actor.model
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    def training_step(experience: Any, *arguments: Any) -> Any:
        nonlocal passes
        seen.append([int(row) for row in experience.info["row"]])
        made = engine.global_steps
        status = stock(experience, *arguments)
        if engine.global_steps > made:
            weights = parameters(trainer.actor).values()
            steps.append(StepLeft(_digest(weights), _digest(_state(engine)), passes))
            passes = 0
        return status

    engine.module.register_forward_pre_hook(count)
    trainer.training_step = training_step


def _state(engine: Any) -> Iterable[Tensor]:
    """Of the optimizer inside DeepSpeed's: this rank's."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for of_parameter in inner.state.values():
        yield from (value for value in of_parameter.values() if isinstance(value, Tensor))


def _digest(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def parameters(actor: Any) -> dict[str, Tensor]:
    """Whole, on every rank."""
    named = list(actor.model.module.named_parameters())
    with deepspeed.zero.GatheredParameters(
        [p for _, p in named], enabled=any(hasattr(p, "ds_id") for _, p in named)
    ):
        return {name: p.detach().float().clone() for name, p in named if p.requires_grad}


def experience(trajectories: Sequence[Trajectory], rows: Sequence[int]) -> Experience:
    """Rows of a mini-batch as OpenRLHF keeps them: prompt and answer, padded on the right."""
    chosen = [trajectories[row] for row in rows]
    return Experience(
        sequences=_padded([torch.cat([t.prompt, t.response]) for t in chosen]),
        attention_mask=_padded(
            [torch.ones(len(t.prompt) + len(t.response)).long() for t in chosen]
        ),
        action_mask=_padded([_after_prompt(t, t.mask) for t in chosen]).bool(),
        action_log_probs=_padded([_after_prompt(t, t.old_log_probs) for t in chosen]),
        base_action_log_probs=_padded([_after_prompt(t, t.ref_log_probs) for t in chosen]),
        advantages=_padded([_after_prompt(t, t.advantages) for t in chosen]),
        total_length=torch.tensor([len(t.prompt) + len(t.response) for t in chosen]),
        info={"row": [float(row) for row in rows]},
    )


def _after_prompt(trajectory: Trajectory, values: Tensor) -> Tensor:
    """(P + T - 1,) values of the predicted tokens, zero inside the prompt."""
    return torch.cat([values.new_zeros(len(trajectory.prompt) - 1), values])


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
