"""One output of a step from the outputs of its passes, under veRL's own keys."""

from typing import Any

from pcr_plugin.verl import host

Output = dict[str, Any]
# veRL's names of the losses of multi-token prediction.
_LATER_TOKENS = "mtp_losses"


def concatenate(outputs: list[Output]) -> Output:
    """The output of one pass over a mini-batch from the outputs over its parts.

    Args:
        outputs: what `forward_backward_batch` returned for each part.

    Returns:
        `loss` and `metrics` with one value per micro-batch, as a single pass has them.
    """
    if not any(outputs):
        return {}  # not the last stage of a pipeline
    append_to_dict = host.name("verl.utils.py_functional", "append_to_dict")
    metrics: dict[str, Any] = {}
    for output in outputs:
        append_to_dict(metrics, output["metrics"])
    losses = [value for output in outputs for value in output["loss"]]
    return {"model_output": outputs[-1]["model_output"], "loss": losses, "metrics": metrics}


def merge(
    plasticity: Output, stability: Output, beta: float, auxiliary: Output | None = None
) -> Output:
    """A stock step's output: the surrogate's metrics, the KL's, and the sum of the losses.

    Args:
        plasticity: output of the surrogate pass.
        stability: output of the KL pass, whose coefficient was 1.
        beta: the KL coefficient.
        auxiliary: output of the pass of the model's own losses, if there was one.

    Returns:
        The output with the keys and meaning of the stock step.
    """
    if not plasticity:
        return {}
    losses = [
        pla + beta * sta for pla, sta in zip(plasticity["loss"], stability["loss"], strict=True)
    ]
    metrics = with_kl(plasticity["metrics"], stability["metrics"], beta)
    # The surrogate's passes have logged them, too; of two halves veRL would report the first one's.
    own = (auxiliary or {}).get("metrics", {})
    metrics |= {name: value for name, value in own.items() if name.startswith(_LATER_TOKENS)}
    return {**plasticity, "loss": losses, "metrics": metrics}


def with_kl(surrogate: dict[str, Any], kl: dict[str, Any], beta: float) -> dict[str, Any]:
    """The metrics of both losses, of one micro-batch or in lists of them.

    Args:
        surrogate: metrics of the loss without the KL.
        kl: metrics of the KL loss, whose coefficient was 1.
        beta: the KL coefficient.
    """
    metrics = dict(surrogate)
    # Ranks without an output (not the last pipeline stage) have no metrics to merge.
    if "kl_loss" in kl:
        count = kl["kl_coef"]
        metrics["kl_loss"] = kl["kl_loss"]
        metrics["kl_coef"] = [beta] * len(count) if isinstance(count, list) else beta
    return metrics


def as_metrics(values: dict[str, float]) -> dict[str, Any]:
    """Numbers in the form that veRL averages over ranks and steps.

    A plain float is not accepted by veRL's aggregation, and a list is reduced by what its name
    contains ("min", "max").

    Args:
        values: metric name to value.
    """
    kind = host.name("verl.utils.metric", "Metric")
    mean = host.name("verl.utils.metric", "AggregationType").MEAN
    return {name: kind(aggregation=mean, value=value) for name, value in values.items()}


def with_metrics(output: Output, values: dict[str, float]) -> Output:
    """The output with our metrics added; without any, of a stage that has no losses, as it is.

    Args:
        output: of a step.
        values: metric name to value.
    """
    if output:
        output["metrics"].update(as_metrics(values))
    return output
