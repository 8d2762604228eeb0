"""What `pcr doctor` says where OpenRLHF is installed."""

from pcr_plugin.cli.findings import Check, Finding, installed


def _releases() -> Finding:
    from pcr_plugin.openrlhf.tested import TESTED

    found = {name: installed(name) or "absent" for name in TESTED}
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    if all(found[name].split("+")[0] in TESTED[name] for name in TESTED):
        return Finding(True, f"{text}: the releases that PCR is tested with")
    wanted = " ".join(f"{name}=={numbers[-1]}" for name, numbers in TESTED.items())
    return Finding(False, f"{text}: not the releases that PCR is tested with", f"use {wanted}")


def _binding() -> Finding:
    from pcr_plugin.openrlhf import worker

    name = worker.TwoGradientPolicyActor.__name__
    return Finding(True, f"OpenRLHF has every name that {name} is built on")


def _command() -> Finding:
    return Finding(
        True, "the command: python -m pcr_plugin.openrlhf <OpenRLHF's> --actor.update_rule pcr"
    )


REMEDY = (
    "OpenRLHF has to run by itself first (python -m openrlhf.cli.train_ppo_ray --help): it needs "
    "flash-attn and vllm beside it"
)
CHECKS: tuple[Check, ...] = (_releases, _binding, _command)
