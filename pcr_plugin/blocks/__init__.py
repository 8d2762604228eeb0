"""Which parameters the rule applies to, and which of them form one block."""

from pcr_plugin.blocks.cells import Cells, cells
from pcr_plugin.blocks.partition import Block, partition
from pcr_plugin.blocks.scopes import in_scope, plain_name

__all__ = ["Block", "Cells", "cells", "in_scope", "partition", "plain_name"]
