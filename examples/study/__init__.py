"""Does it help? The paper's questions, put to this implementation at a size that a CPU can answer.

Two tiers of one program, of one configuration and of one sweep:

- *engine*: veRL's worker with its real actor engine, reference and losses, in one process; answers
  are sampled by Hugging Face's `generate`. Seconds per run, for the wide grid.
- *full*: `verl.trainer.main_ppo` with Ray and vLLM, minutes per run, to see whether the engine
  tier predicts it.
"""
