"""veRL's replay buffer, looking for finished rollouts more often."""

from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class PromptSampler(ReplayBuffer):
    """The stock interval of two seconds is longer than a whole step of the demo."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(poll_interval=0.05, **kwargs)
