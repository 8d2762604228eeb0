"""The CPU platform: inert unless asked for, complete when asked, and it can be taken off again.

Each case runs in a process of its own, because importing veRL fixes the platform of a process.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run(script: str, **environment: str) -> str:
    """Run a script in a fresh interpreter; its output. Fails the test if it exits non-zero."""
    clean = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    clean.pop("RAY_OVERRIDE_RESOURCES", None)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_inert_without_the_variable() -> None:
    run(
        """
        import importlib, os, sys
        meta_path = list(sys.meta_path)
        import pcr_plugin.verl_cpu.plugin
        assert sys.meta_path == meta_path, "a finder was installed"
        for name in ("verl", "torch", "wrapt", "ray", "pcr_plugin.verl_cpu.activation"):
            assert name not in sys.modules, name
        import verl
        from verl.plugin.platform import PlatformRegistry
        assert "cpu" not in PlatformRegistry.registered_names()
        assert "RAY_OVERRIDE_RESOURCES" not in os.environ
        from verl.utils import distributed
        assert not hasattr(
            distributed.initialize_global_process_group_ray, "__pcr_cpu_original__"
        )
        """
    )


def test_importing_verl_stays_cheap() -> None:
    run(
        """
        import sys, verl
        from verl.utils.device import get_device_name
        assert get_device_name() == "cpu"
        assert "verl.workers.engine.fsdp.transformer_impl" not in sys.modules
        assert "vllm" not in sys.modules
        """,
        VERL_PLATFORM="cpu",
    )


def test_engines_resolve() -> None:
    run(
        """
        from itertools import product
        from verl.workers.engine import EngineRegistry
        names = {"language_model": "FSDPEngineWithLMHead", "value_model": "FSDPEngineWithValueHead"}
        for (model_type, name), backend in product(names.items(), ("fsdp", "fsdp2")):
            engine = EngineRegistry.get_engine_cls(model_type, backend)
            assert engine.__name__ == name
            assert engine.__module__ == "verl.workers.engine.fsdp.transformer_impl"
        """,
        VERL_PLATFORM="cpu",
    )


def test_rollout_and_version_of_vllm() -> None:
    run(
        """
        import importlib.metadata, sys
        import verl
        from verl.workers.rollout.replica import get_rollout_replica_class
        replica = get_rollout_replica_class("vllm")
        assert replica.__name__ == "CPUvLLMReplica"
        from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica
        assert issubclass(replica, vLLMReplica)
        assert "cpu" in importlib.metadata.version("vllm")
        names = [found.metadata["Name"] for found in importlib.metadata.distributions()]
        assert names.count("vllm") <= 1
        """,
        VERL_PLATFORM="cpu",
    )


def test_patches_apply_once_and_revert() -> None:
    run(
        """
        import torch
        import torch.distributed.fsdp as fsdp
        import verl.utils.distributed as distributed
        import verl.utils.fsdp_utils as fsdp_utils
        from pcr_plugin.verl_cpu import patches

        watched = (distributed, "initialize_global_process_group_ray"), (fsdp, "CPUOffload"), (
            fsdp_utils, "load_fsdp_model_to_gpu")
        stock = [getattr(*place) for place in watched]
        for _ in range(2):
            patches.apply()
            applied = [getattr(*place) for place in watched]
            patches.apply()
            assert [getattr(*place) for place in watched] == applied, "not idempotent"
            for original, replacement in zip(stock, applied):
                assert replacement is not original
                assert getattr(replacement, "__pcr_cpu_original__") is original
            assert not fsdp.CPUOffload(offload_params=True).offload_params
            patches.revert()
            assert [getattr(*place) for place in watched] == stock
            patches.revert()
            assert [getattr(*place) for place in watched] == stock

        # Imported after `revert`, a module is left alone.
        import verl.workers.engine.fsdp.transformer_impl as engine
        assert engine.CPUOffloadPolicy is fsdp.CPUOffloadPolicy
        """
    )


def test_activate_and_deactivate() -> None:
    run(
        """
        import os
        import verl
        from verl.plugin.platform import PlatformRegistry, get_platform
        from pcr_plugin.verl_cpu import activate, deactivate
        activate()
        activate()
        from verl.workers.engine import EngineRegistry
        assert get_platform().device_name == "cpu"
        assert EngineRegistry.get_engine_cls("language_model", "fsdp2")
        from verl.workers.rollout.replica import RolloutReplicaRegistry
        mine = RolloutReplicaRegistry._registry["vllm"]
        deactivate()
        deactivate()
        assert "cpu" not in PlatformRegistry.registered_names()
        assert "cpu" not in EngineRegistry._engines["language_model"]["fsdp2"]
        assert RolloutReplicaRegistry._registry["vllm"] is not mine
        assert "VERL_PLATFORM" not in os.environ
        assert "RAY_OVERRIDE_RESOURCES" not in os.environ
        activate()
        assert EngineRegistry.get_engine_cls("value_model", "fsdp")
        """
    )


def test_another_platform_in_use_is_an_error() -> None:
    run(
        """
        import verl
        from verl.plugin.platform import get_platform
        assert get_platform().device_name == "cuda"
        from pcr_plugin.verl_cpu import activate
        try:
            activate()
        except RuntimeError as error:
            assert "before `import verl`" in str(error)
        else:
            raise SystemExit("no error")
        """
    )


def test_missing_symbol_is_named() -> None:
    run(
        """
        from importlib.metadata import version
        import verl.utils.distributed as distributed
        from pcr_plugin.verl_cpu import patches
        del distributed.initialize_global_process_group_ray
        try:
            patches.apply()
        except ImportError as error:
            assert "verl.utils.distributed.initialize_global_process_group_ray" in str(error)
            assert version("verl") in str(error)
        else:
            raise SystemExit("no error")
        """
    )


def test_failure_is_loud_and_leaves_no_half_platform() -> None:
    """veRL swallows plugin errors at DEBUG: the reason must be printed, and the run must stop."""
    script = """
        import sys
        sys.modules["pcr_plugin.verl_cpu.platform"] = None
        import verl
        from verl.plugin.platform import get_platform
        try:
            get_platform()
        except ValueError as error:
            assert "Unknown platform 'cpu'" in str(error)
        else:
            raise SystemExit("no error")
        """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "VERL_PLATFORM=cpu could not be set up" in result.stderr


def test_process_group_and_memory_figures() -> None:
    run(
        """
        import os, torch
        os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        from verl.utils import distributed
        from verl.utils.device import get_device_id, get_torch_device
        distributed.initialize_global_process_group_ray()
        total = torch.ones(2)
        torch.distributed.all_reduce(total)
        torch.distributed.destroy_process_group()
        assert torch.zeros(1).to(get_device_id()).device.type == "cpu"
        device = get_torch_device()
        before = device.memory_allocated()
        held = torch.ones(64 << 20)
        assert device.memory_allocated() - before > 200 << 20
        assert device.max_memory_allocated() >= device.memory_allocated()
        available, everything = device.mem_get_info()
        assert 0 < available < everything
        state = device.get_rng_state()
        first = torch.rand(1)
        device.set_rng_state(state)
        assert torch.equal(first, torch.rand(1))
        """,
        VERL_PLATFORM="cpu",
    )


def test_the_critic_is_loaded_with_the_attention_that_is_asked_for(tmp_path: Path) -> None:
    """veRL names flash-attention there, which needs an accelerator."""
    run(
        f"""
        import torch
        from transformers import AutoConfig, Qwen2Config, Qwen2ForCausalLM
        from verl.utils.model import load_valuehead_model

        small = Qwen2Config(
            vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1,
        )
        trunk = Qwen2ForCausalLM(small)
        trunk.save_pretrained({str(tmp_path)!r})
        config = AutoConfig.from_pretrained({str(tmp_path)!r}, attn_implementation="eager")
        config.num_labels = 1
        critic = load_valuehead_model({str(tmp_path)!r}, torch.float64, config, False)
        assert critic.config._attn_implementation == "eager"
        ids = torch.arange(6)[None]
        hidden = trunk.double().model(ids).last_hidden_state
        expected = hidden @ critic.score.weight.T + critic.score.bias
        torch.testing.assert_close(critic.eval()(ids).logits, expected)
        """,
        VERL_PLATFORM="cpu",
    )
