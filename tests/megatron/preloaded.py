"""What every rank needs, imported in the order it has to be: the shims, then what they change."""

import importlib

from tests.support import megatron_cpu, megatron_verl_cpu

megatron_cpu.install()
megatron_verl_cpu.install()
for module in ("tests.megatron.running", "tests.megatron.scenarios"):
    importlib.import_module(module)
