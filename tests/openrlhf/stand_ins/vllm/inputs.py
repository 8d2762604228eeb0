"""A name that `openrlhf.trainer.ray.vllm_engine` imports."""


class TokensPrompt(dict):  # type: ignore[type-arg]
    """A prompt as token ids."""
