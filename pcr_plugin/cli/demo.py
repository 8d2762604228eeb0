"""`pcr demo`: veRL with PCR on this machine's CPU, from a new model to a picture, in minutes."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def run(arguments: Sequence[str]) -> int:
    """Run the demo.

    Args:
        arguments: see `pcr demo --help`.

    Returns:
        0 if the run went through, else 1.
    """
    options = _parse(arguments)
    # As Ctrl-C does: a plain SIGTERM would leave veRL's processes running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _demo(options)
    except ImportError as error:
        sys.stderr.write(f"{error}\nThe demo needs veRL and vLLM on a CPU; docs/cpu.md has how.\n")
        return 1
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pcr demo", description=__doc__)
    parser.add_argument("--rule", default="pcr", help="update_rule; null is the stock update")
    parser.add_argument("--name", help="of the run's folder; the rule if not given")
    parser.add_argument("--steps", type=int, default=40, help="of reinforcement learning")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder")
    parser.add_argument("overrides", nargs="*", help="more Hydra overrides for veRL")
    return parser.parse_args(arguments)


def _demo(options: argparse.Namespace) -> None:
    # Imported here, so that `--help` needs no torch.
    from pcr_plugin.demo import figure, recipe, start, table, training
    from pcr_plugin.demo.log import read_log

    began = time.monotonic()
    output: Path = options.output.resolve()
    name: str = options.name or options.rule.replace(":", "-")
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    first = start.prepare(output / "start", start.StartSettings(), _say)
    _say(f"GRPO with update_rule={options.rule}: veRL starts Ray and vLLM (about a minute)")
    arguments = recipe.overrides(first, options.rule, options.steps, folder)
    log = training.train(
        arguments + options.overrides,
        folder,
        lambda step, metrics: _say(table.progress_line(step, options.steps, metrics)),
    )
    runs = {name: log}
    for other in sorted(output.glob("*/log.jsonl")):
        if other.parent != folder:
            runs[other.parent.name] = read_log(other)
    figure.draw(runs, first.perplexity, folder / "figure.png")
    result = table.table(log, first.perplexity)
    (folder / "table.txt").write_text(result + "\n")
    _say(f"\n{result}\n\n{time.monotonic() - began:.0f} s in all. Files:")
    for file in ("figure.png", "table.txt", "log.jsonl", "verl.log", "checkpoints"):
        _say(f"  {folder / file}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
