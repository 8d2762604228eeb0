"""A Qwen2 whose experts are a list of modules, as every such model had them until transformers 5.

`AutoModelForCausalLM.from_pretrained` knows the model once this file is imported. An expert that
no token was sent to does not run, so its parameters are no part of that backward pass.
"""

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

MODEL_TYPE = "module_list_moe"


class ModuleListMoeConfig(Qwen2Config):
    """Qwen2's configuration; `intermediate_size` is the width of every expert."""

    model_type = MODEL_TYPE
    num_experts: int = 0
    num_experts_per_tok: int = 0
    shared_expert_intermediate_size: int = 0


class _Expert(nn.Module):
    """Qwen2's MLP of any width."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(T, hidden) to (T, hidden)."""
        inner = nn.functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        result: Tensor = self.down_proj(inner)
        return result


class _Experts(nn.Module):
    """The block of Qwen2-MoE in transformers 4: router, experts and the shared expert."""

    def __init__(self, config: ModuleListMoeConfig) -> None:
        super().__init__()
        self.chosen = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(
            _Expert(config.hidden_size, config.intermediate_size) for _ in range(config.num_experts)
        )
        self.shared_expert = _Expert(config.hidden_size, config.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, T, hidden) to the same."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        probabilities = self.gate(rows).softmax(dim=-1)
        shares, experts = probabilities.topk(self.chosen, dim=-1)
        result = self.shared_expert_gate(rows).sigmoid() * self.shared_expert(rows)
        for number in experts.unique().tolist():
            row, place = torch.where(experts == number)
            output = self.experts[number](rows[row]) * shares[row, place, None]
            result = result.index_add(0, row, output)
        mixed: Tensor = result.reshape(hidden.shape)
        return mixed


class ModuleListMoeForCausalLM(Qwen2ForCausalLM):
    """Qwen2 with experts in place of every MLP."""

    config_class = ModuleListMoeConfig

    def __init__(self, config: ModuleListMoeConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = _Experts(config)
        self.post_init()


AutoConfig.register(MODEL_TYPE, ModuleListMoeConfig)
AutoModelForCausalLM.register(ModuleListMoeConfig, ModuleListMoeForCausalLM)
