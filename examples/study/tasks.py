"""What is trained, and what is only watched: kinds of questions from reasoning-gym."""

import random
from typing import Any

from pcr_plugin.demo.tasks import worked_example

Kinds = dict[str, dict[str, int]]

# Reinforcement learning asks these. The warm start has seen such questions with answers in four
# styles, of which the verifier takes one.
TRAINED: Kinds = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
}
# The same four styles, of which reinforcement learning never asks: does what it learns carry over?
HELD_OUT: Kinds = {
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
}
# Facts that the warm start has learnt in one style, and that nothing asks for any more.
SKILL: Kinds = {"prime_factorization": {"min_value": 2, "max_value": 99}}


def answer(entry: dict[str, Any], generator: random.Random) -> str:
    """What the warm start learns to say.

    Args:
        entry: a question of reasoning-gym.
        generator: chooses the style where there are several.
    """
    if entry["metadata"]["source_dataset"] in SKILL:
        return str(entry["answer"])
    return worked_example(entry, generator)
