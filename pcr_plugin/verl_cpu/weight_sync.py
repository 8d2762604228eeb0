"""The vLLM worker's side of a weight update, on the CPU. Imported by vLLM's worker process."""

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from pcr_plugin.verl_cpu.tied_weights import Weights, with_output_layer


class CPUWeightSync(vLLMColocateWorkerExtension):
    """Loads the actor's weights into vLLM's CPU backend.

    That backend repacks weights after loading and drops the loaders that veRL calls; vLLM's own
    `reload_weights` restores them, loads and repacks. It wants the whole model at once, so the
    buckets are collected first.
    """

    def update_weights_from_ipc(
        self,
        peft_config: dict[str, Any] | None = None,
        base_sync_done: bool = False,
        use_shm: bool = False,
    ) -> None:
        """Receive all buckets, then load them.

        Raises:
            ValueError: the update is a LoRA adapter.
        """
        if peft_config:
            raise ValueError(
                "VERL_PLATFORM=cpu does not send LoRA adapters to vLLM; set "
                "actor_rollout_ref.model.lora.merge=True to send merged weights."
            )
        device = torch.device("cpu")
        receiver = BucketedWeightReceiver(self._get_zmq_handle(), device, use_shm=use_shm)
        weights: Weights = []

        def keep(bucket: Weights, is_last: bool) -> None:
            # On a CPU the tensors are views into shared memory that is unmapped after the
            # callback.
            weights.extend((name, tensor.clone()) for name, tensor in bucket)

        receiver.receive_weights(on_bucket_received=keep)
        text_model = self.model_runner.model_config.hf_text_config
        if getattr(text_model, "tie_word_embeddings", False):
            weights = with_output_layer(weights)
        self.model_runner.reload_weights(weights_iterator=iter(weights))
