"""What a rule could gain if it knew the gradients that its mini-batch only estimates."""
