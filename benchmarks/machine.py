"""The processes, the device and the versions that a measurement depends on."""

import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.distributed as dist
from verl.utils.device import get_device_name


def check_device(device: str) -> None:
    """Refuse to measure on another device than the one asked for.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        ValueError: veRL's platform in this process is another one; says how to change it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device on this machine")
    if device != get_device_name():
        remedy = "set VERL_PLATFORM=cpu" if device == "cpu" else "leave VERL_PLATFORM unset"
        raise ValueError(f"--device {device}: veRL has chosen {get_device_name()}; {remedy}")


def start_ranks(program: str) -> str:
    """Join the ranks that torchrun has started, or be alone.

    Args:
        program: the module that was started.

    Returns:
        The command that starts it so.
    """
    on_cpu = get_device_name() == "cpu"
    # veRL's own choice; some of its tables are reduced on the CPU.
    backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    if not on_cpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if "RANK" in os.environ:
        dist.init_process_group(backend)
        start = f"torchrun --nproc-per-node {dist.get_world_size()} -m"
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        start = "python -m"
    words = without_layouts(sys.argv[1:])
    return " ".join([*(["VERL_PLATFORM=cpu"] if on_cpu else []), start, program, *words])


def without_layouts(words: Sequence[str]) -> list[str]:
    """The command for all layouts, of which a file can be filled in parts.

    Args:
        words: of the command line; with a name of its own a file has the layouts that it says.
    """
    if "--name" in words:
        return list(words)
    kept: list[str] = []
    dropping = False
    for word in words:
        dropping = word == "--layouts" or (dropping and not word.startswith("--"))
        if not dropping:
            kept.append(word)
    return kept


def conditions(command: str, repeats: int, packages: Sequence[str]) -> dict[str, Any]:
    """Where and how a measurement was made.

    Args:
        command: what started it.
        repeats: updates of each kind.
        packages: whose versions matter.
    """
    return {
        "command": command,
        "date": today(),
        "device": get_device_name(),
        "machine": machine(torch.get_num_threads()),
        "versions": versions(packages),
        "ranks": dist.get_world_size(),
        "repeats": repeats,
    }


def today() -> str:
    """The date."""
    return date.today().isoformat()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those that are installed.

    Args:
        packages: whose versions matter.
    """
    return {name: found for name in packages if (found := _version(name))}


def machine(threads: int) -> str:
    """The device in words.

    Args:
        threads: per rank, of a CPU.
    """
    if get_device_name() == "cpu":
        return f"{platform.machine()} CPU, {os.cpu_count()} cores, {threads} threads per rank"
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    memory, nccl = found.total_memory / 2**30, ".".join(map(str, torch.cuda.nccl.version()))
    return f"{found.name}, {memory:.0f} GiB, CUDA {torch.version.cuda}, NCCL {nccl}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
