"""The reward function of both tiers; veRL's reward worker loads it by its path."""

from typing import Any

from pcr_plugin.demo import reward


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    **_: Any,
) -> dict[str, float]:
    """reasoning-gym's verdict, and whether the answer is right.

    Args:
        data_source: the kind of question.
        solution_str: what the model wrote.
        ground_truth: not needed; the entry has it.
        extra_info: `entry`, the question as reasoning-gym made it, as JSON.

    Returns:
        `score`, 0 to 1, with partial marks: the reward. `acc`, 0 or 1: pass@1 is its mean.
    """
    score = reward.compute_score(data_source, solution_str, ground_truth, extra_info)
    return {"score": score, "acc": float(score >= 1.0)}
