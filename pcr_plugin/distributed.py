"""The only file that calls torch.distributed."""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

Result = TypeVar("Result")


def sum_over(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Sum a small table over the ranks of a group.

    Every rank of the group must call it, also with an empty shard. All ranks get the same bits,
    so replicas that compute weights from the result stay equal.

    Args:
        values: contiguous, the same shape on every rank; overwritten.
        group: the ranks that hold different parts; `None` when nothing is sharded. There is no
            default: a sum over WORLD by habit counts replicas twice.

    Returns:
        The sum, in `values`.
    """
    if group is not None and values.numel() and dist.get_world_size(group) > 1:
        dist.all_reduce(values, op=dist.ReduceOp.SUM, group=group)
    return values


def from_first_rank(compute: Callable[[], Result], group: dist.ProcessGroup) -> Result:
    """Call a function on the first rank of a group and give its result to all.

    Args:
        compute: returns what can be pickled.
        group: the ranks that need it.

    Raises:
        RuntimeError: on the other ranks, where the first has raised what `compute` did.
    """
    results: list[Result] = []
    error = _attempt(lambda: results.append(compute())) if is_first_of(group) else None
    message = [repr(error) if error is not None else "", *results, None][:2]
    dist.broadcast_object_list(message, src=dist.get_global_rank(group, 0), group=group)
    if message[0]:
        raise error or RuntimeError(f"The first rank has failed: {message[0]}")
    return cast(Result, message[1])


def all_or_none(check: Callable[[], None], group: dist.ProcessGroup) -> None:
    """Run a check on every rank of a group; if one raises, all do.

    For what may differ between ranks, as files on their machines do: the others would wait for
    the one that has raised.

    Args:
        check: raises what is wrong.
        group: the ranks that go on together.

    Raises:
        ValueError: what `check` has raised on some of them.
    """
    error = _attempt(check)
    problems = gather_lists([] if error is None else [str(error)], group)
    if problems:
        raise ValueError("\n".join(problems)) from error


def _attempt(action: Callable[[], object]) -> Exception | None:
    """What went wrong, for the caller to raise once the others know."""
    try:
        action()
    except Exception as error:
        return error
    return None


def all_equal(number: int, group: dist.ProcessGroup, device: torch.device) -> bool:
    """Whether all ranks of a group, which all call it, have the same number.

    Args:
        number: of 63 bits at most.
        group: the ranks.
        device: that the group communicates from.
    """
    ends = torch.tensor([number, -number], device=device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=group)
    largest, smallest = ends.tolist()
    return bool(largest == -smallest)


def on_any(flag: bool, group: dist.ProcessGroup, device: torch.device) -> bool:
    """Whether it is so on some rank of a group, which all call it.

    Args:
        flag: of this rank.
        group: the ranks that go on together.
        device: that the group communicates from.
    """
    if dist.get_world_size(group) == 1:
        return flag
    found = torch.tensor([int(flag)], device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
    return bool(found.item())


def all_ranks() -> int:
    """Number of processes of the run."""
    return dist.get_world_size()


def group_of_all() -> dist.ProcessGroup:
    """Every process of the run, for a host whose grid of parallel groups spans all of them."""
    group = dist.group.WORLD
    assert group is not None, "the host has started torch.distributed"
    return group


def gather_lists(mine: list[str], group: dist.ProcessGroup) -> list[str]:
    """The lists of all ranks of a group, one after the other, without repetition.

    Args:
        mine: this rank's list.
        group: the ranks that have one.
    """
    everyone: list[list[str]] = [[] for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(everyone, mine, group=group)
    return list(dict.fromkeys(name for names in everyone for name in names))


def gather_tokens(part: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The tokens of all ranks of a group, in the order of the ranks.

    Args:
        part: (tokens, K) of this rank, as many on every one.
        group: the ranks that have different tokens.

    Returns:
        (ranks x tokens, K).
    """
    ranks = dist.get_world_size(group)
    whole = part.new_empty(ranks * part.shape[0], *part.shape[1:])
    dist.all_gather_into_tensor(whole, part.contiguous(), group=group)
    return whole


def ranks_of(group: dist.ProcessGroup) -> int:
    """Number of processes in a group.

    Args:
        group: a group this process is in; not `None`, which torch takes for WORLD.
    """
    return dist.get_world_size(group)


def rank_in(group: dist.ProcessGroup) -> int:
    """This process's place in a group.

    Args:
        group: a group this process is in; not `None`, which torch takes for WORLD.
    """
    return dist.get_rank(group)


def is_first_of(group: dist.ProcessGroup) -> bool:
    """Whether this process counts, in a sum over the group, what all of it share.

    Args:
        group: a group this process is in; not `None`, which torch takes for WORLD.
    """
    return dist.get_rank(group) == 0


def contains(group: dist.ProcessGroup, others: dist.ProcessGroup) -> bool:
    """Whether all ranks of one group are in another.

    Args:
        group: a group this process is in.
        others: another one.
    """
    inside = set(dist.get_process_group_ranks(group))
    return inside.issuperset(dist.get_process_group_ranks(others))


def group_of(mesh: DeviceMesh) -> dist.ProcessGroup:
    """All ranks of a mesh: those of one shard group, and of all its replicas.

    Every process of the run must call it.

    Args:
        mesh: one dimension of shards, or two: replicas and shards.
    """
    if mesh.ndim == 1:
        return mesh.get_group()
    if mesh.size() == dist.get_world_size() and dist.group.WORLD is not None:
        return dist.group.WORLD
    group = dist.new_group(mesh.mesh.flatten().tolist())
    assert isinstance(group, dist.ProcessGroup), "this process is in the mesh"
    return group


def is_first_replica(mesh: DeviceMesh) -> bool:
    """Whether this process's shards are the ones to count.

    Args:
        mesh: as in `group_of`; replicas are its first dimension.
    """
    return mesh.ndim == 1 or mesh.get_local_rank(0) == 0
