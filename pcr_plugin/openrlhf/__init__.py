"""The binding to OpenRLHF 0.11 and DeepSpeed; the one folder that imports them.

`python -m pcr_plugin.openrlhf` is OpenRLHF's own command with the keys `--actor.update_rule` and
`--actor.pcr.*`.

| file           | what                                                                        |
|----------------|-----------------------------------------------------------------------------|
| `options`      | the keys as OpenRLHF's command line has them, and the rule they stand for   |
| `refusals`     | what cannot be trained with a rule, said in the driver and in the worker    |
| `trainer`      | OpenRLHF's trainer of the actor with two gradients                          |
| `strategy`     | its DeepSpeed strategy, whose `backward` and `optimizer_step` are ours      |
| `kl_term`      | the KL term of the loss, handed over by OpenRLHF's own `kl_loss * kl_ctl`   |
| `step`         | one optimizer step: backward passes, then the update                        |
| `units`        | the estimator of the variances, and what it is told of the micro-batches    |
| `gradients`    | `pcr_plugin.gradients.Gradients` on what DeepSpeed has reduced              |
| `slots*`       | where DeepSpeed keeps it, stage by stage                                    |
| `tested`       | the releases that all of this is tested with                                |
"""
