"""A name that `openrlhf.trainer.ray.vllm_engine` imports."""


def random_uuid() -> str:
    """Name of a request, which is not sent."""
    raise RuntimeError("generation needs vLLM")
