"""Environment of the processes that sample with vLLM's CPU backend."""

import os


def variables() -> dict[str, str]:
    """Variables of the processes that sample; what the user has set stays."""
    defaults = {
        "VLLM_TARGET_DEVICE": "cpu",
        # GiB. vLLM would take most of the host's memory, which the trainer shares.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # Pinning would put vLLM and the trainer's processes on the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
