"""How sure a mini-batch can be of alpha and of the effective beta."""
