"""The reward function that veRL's reward worker loads."""

import json
from typing import Any

import reasoning_gym


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    **_: Any,
) -> float:
    """reasoning-gym's own verdict on an answer.

    Args:
        data_source: the task's name.
        solution_str: what the model wrote.
        ground_truth: not needed; the entry has it.
        extra_info: `entry`, the question as reasoning-gym made it, as JSON.

    Returns:
        0 to 1.
    """
    entry = json.loads(extra_info["entry"])
    return float(reasoning_gym.get_score_answer_fn(data_source)(solution_str.strip(), entry))
