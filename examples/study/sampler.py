"""The full tier's batches, in the order of the engine tier's."""

from verl.trainer.ppo.v1.replay_buffer import KVBatchMeta

from pcr_plugin.demo.sampler import PromptSampler


class WholeQuestions(PromptSampler):
    """Hands over the answers to one question together.

    veRL's replay buffer has answers in the order in which they ended, the short ones first, and so
    do the micro-batches: answers to one question are in several, and one is not like the other. As
    units of the variance they should be independent, see `docs/theory.md`.
    """

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, float]]:
        """A batch as veRL's own, sorted.

        Args:
            global_steps: see veRL.
            partition_id: see veRL.
            batch_size: questions.
        """
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        batch.reorder(together(batch.keys))
        return batch, metrics


def together(keys: list[str]) -> list[int]:
    """The places of the answers, those to one question side by side.

    Args:
        keys: of the answers, `<question>_<answer>_<part>`; veRL draws the questions' names anew at
            every step, so that their order is not always the same.
    """
    return sorted(range(len(keys)), key=lambda place: keys[place].split("_"))
