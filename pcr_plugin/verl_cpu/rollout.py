"""vLLM's CPU backend as veRL's rollout: the hooks that veRL leaves to subclasses, filled in."""

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class CPUvLLMServer(vLLMHttpServer):
    """veRL's vLLM server without what the CPU backend does not have."""

    def _init_config(self, config: Any) -> Any:
        config = super()._init_config(config)
        # Sleeping frees GPU memory. The server keeps its own copy of the configuration, so the
        # trainer's calls to sleep and to wake up become no-ops here.
        for name in ("enable_sleep_mode", "free_cache_engine"):
            object.__setattr__(config, name, False)
        return config

    def _get_worker_extension_cls(self) -> str:
        return "pcr_plugin.verl_cpu.weight_sync.CPUWeightSync"


class CPUvLLMReplica(vLLMReplica):
    """A replica whose servers are `CPUvLLMServer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CPUvLLMServer)
