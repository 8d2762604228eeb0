"""OpenRLHF's command up to its inference engines: its parser, its checks and ours, without Ray.

`python -m tests.openrlhf.dry_run <arguments>`, in OpenRLHF's environment. Prints how many GPUs the
policy, the reference and the engines ask for, and the class of the policy's actors.
"""

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

from tests.openrlhf import cpu


def main() -> None:
    """Run the command with what would start processes replaced."""
    cpu.prepare()
    import ray
    from openrlhf.trainer import ray as parts
    from openrlhf.trainer.ray import launcher

    from pcr_plugin.openrlhf import __main__ as command

    # `ray.util` has the function under the module's name.
    placement = importlib.import_module("ray.util.placement_group")
    asked: dict[str, Any] = {}

    def engines(number: int, tensor_parallel: int, *_: Any, **__: Any) -> None:
        asked["engines"] = number * tensor_parallel

    def group(nodes: int, per_node: int, kind: Any, pg: Any = None, **_: Any) -> Any:
        name = kind.__ray_metadata__.class_name
        asked[name] = {"gpus": nodes * per_node, "shared": pg is not None}
        if name == "ReferenceModelActor":
            # Nothing after it is about GPUs.
            sys.stdout.write(f"asked {json.dumps(asked)}\n")
            sys.exit()
        return None

    replaced: Any = (
        (ray, "is_initialized", lambda: True),
        (ray, "get", lambda _: None),
        (placement, "placement_group", lambda *_, **__: SimpleNamespace(ready=lambda: None)),
        (parts, "create_vllm_engines", engines),
        (launcher, "RayActorGroup", group),
    )
    for owner, name, stand_in in replaced:
        assert hasattr(owner, name), name
        setattr(owner, name, stand_in)
    sys.argv[0] = "train_ppo_ray"
    command.main()


if __name__ == "__main__":
    main()
