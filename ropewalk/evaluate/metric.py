"""Which way a metric is better, told by its name."""

# Metrics that a better model lowers; every other one is a score.
LOSSES = ("nats", "bits", "perplexity", "ppl", "loss")


def lower_is_better(metric: str) -> bool:
    """Whether a better model has less of it."""
    return any(word in metric.lower() for word in LOSSES)
