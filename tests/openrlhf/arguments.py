"""OpenRLHF's arguments, as its own parser and `hierarchize` would leave them."""

from types import SimpleNamespace
from typing import Any

_DEFAULTS: dict[str, Any] = {
    "local_rank": -1,
    "actor.eps_clip": 0.2,
    "actor.eps_clip_low_high": (0.2, 0.2),
    "actor.dual_clip": 3.0,
    "actor.loss_agg_mode": "token-mean",
    "actor.policy_loss_type": "ppo",
    "actor.aux_loss_coef": 0,
    "actor.entropy_coef": None,
    "actor.optim": "adam",
    "algo.advantage.is_correction_level": "off",
    "algo.advantage.is_correction_mode": "mask",
    "algo.advantage.is_correction_gating": "ratio",
    "algo.advantage.is_correction_threshold": [0.5, 5.0],
    "algo.kl.use_loss": True,
    "algo.kl.init_coef": 0.05,
    "algo.kl.estimator": "k2",
    "algo.kl.unbiased_gradient": False,
    "data.max_images_per_prompt": 0,
    "ds.param_dtype": "fp32",
    "ds.zero_stage": 2,
    "ds.adam_offload": False,
    "ds.zpg": 1,
    "ds.grad_accum_dtype": None,
    "ds.overlap_comm": False,
    "ds.deepcompile": False,
    "ds.load_in_4bit": False,
    "ds.tensor_parallel_size": 1,
    "ds.ring_attn_size": 1,
    "ds.packing_samples": False,
    "ds.use_liger_kernel": False,
    "rollout.batch_size": 12,
    "rollout.n_samples_per_prompt": 1,
    "train.max_epochs": 1,
    "train.batch_size": 12,
    "train.micro_batch_size": 2,
    "train.max_tokens_per_gpu": 40,
    "train.dynamic_batch_enable": False,
    "train.colocate_all": False,
    "train.async_enable": False,
    "train.seed": 42,
    "vllm.sync_backend": "gloo",
}


def arguments(**changes: Any) -> SimpleNamespace:
    """The defaults with changes, keys with `__` for a dot."""
    flat = {**_DEFAULTS, **{key.replace("__", "."): value for key, value in changes.items()}}
    root = SimpleNamespace()
    for key, value in flat.items():
        *parents, name = key.split(".")
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                setattr(node, parent, SimpleNamespace())
            node = getattr(node, parent)
        setattr(node, name, value)
    return root
