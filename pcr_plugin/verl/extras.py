"""What a model does at every pass beside the losses of the trainer, and should do once a step."""

from contextlib import AbstractContextManager, nullcontext


class Extras:
    """Contexts for the passes of a step; of a model that does nothing of the kind.

    Attributes:
        has_losses: whether it adds losses of its own. They belong to neither objective, so they
            are off in the passes of these and have one of their own.
    """

    has_losses = False

    def stability_pass(self) -> AbstractContextManager[None]:
        """Around a pass of the KL loss: no losses of the model, and no trace in it."""
        return nullcontext()

    def plasticity_pass(self, *, last: bool) -> AbstractContextManager[None]:
        """Around a pass of the surrogate: no losses of the model; what it counts, counts here.

        Args:
            last: whether the step's optimizer comes next.
        """
        return nullcontext()

    def auxiliary_pass(self) -> AbstractContextManager[None]:
        """Around a pass of the model's own losses: they count, and are logged, here alone."""
        return nullcontext()

    def unseen(self) -> AbstractContextManager[None]:
        """Around passes that the model must not remember."""
        return nullcontext()

    def forgotten_on_error(self) -> AbstractContextManager[None]:
        """Around all passes of a step: one that fails leaves no trace in the model."""
        return nullcontext()
