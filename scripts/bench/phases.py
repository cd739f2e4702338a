"""The least time that the three phases of a GRPO step take on a device: their operations and bytes, and its speeds.

    step_work(SHAPES["Qwen3-0.6B"], Step(sequences=32, prompt=128, answer=256))["rollout"].seconds(speeds)

A phase takes at least its operations at the device's peak, its bytes at the memory's speed, and what other devices send it at
the link's, whichever is longest: the roofline of Williams et al. 2009, https://doi.org/10.1145/1498765.1498785. A matrix
product costs 2 operations a weight and token, its backward pass twice that
(Kaplan et al. 2020, section 2.1, https://arxiv.org/abs/2001.08361).

Counted are matrix products, attention, weights, KV cache and optimizer state. Not counted: activations that go to memory and back,
kernels that start, rewards, the weights' way to the engine. So a real step takes longer.

Needs the standard library only: measure_step.py runs where the workshop is not installed.
"""

from dataclasses import dataclass

from workshop.checks.memory import ModelShape, kv_cache_bytes

PHASES = ("rollout", "log-probabilities", "update")
ADAMW_TRANSFERS = 7  # weight, mean and mean square are read and written, the gradient is read


@dataclass(frozen=True)
class Speeds:
    """Of one device."""

    flops: float  # operations a second
    bandwidth: float  # bytes a second between the device and its memory
    link: float = float("inf")  # bytes a second from the other devices


@dataclass(frozen=True)
class Work:
    """Of one phase on one device."""

    operations: float
    bytes: float  # to and from the device's memory
    received: float = 0.0  # bytes from other devices

    def seconds(self, speeds: Speeds) -> float:
        """At least."""
        return max(self._each(speeds).values())

    def limit(self, speeds: Speeds) -> str:
        """What decides: "operations", "memory" or "link"."""
        each = self._each(speeds)
        return max(each, key=lambda name: each[name])

    def _each(self, speeds: Speeds) -> dict[str, float]:
        return {
            "operations": self.operations / speeds.flops,
            "memory": self.bytes / speeds.bandwidth,
            "link": self.received / speeds.link,
        }


@dataclass(frozen=True)
class Step:
    """One optimizer step as one device sees it."""

    sequences: int  # completions
    prompt: int  # tokens of each
    answer: int  # tokens of each
    micro_batches: int = 1
    weight_bytes: float | None = None  # of the whole model as it is read; None: bytes_each a parameter
    bytes_each: int = 2  # of a number that is computed with
    trained: int | None = None  # parameters; None: all
    trained_bytes: int = 2  # of a trained weight, its gradient and each of its moments
    checkpointing: bool = False  # the forward pass is done twice
    devices: int = 1  # that share weights, gradients and optimizer state (FSDP); 1: each has its own


def step_work(shape: ModelShape, step: Step) -> dict[str, Work]:
    """Operations and bytes of each of PHASES."""
    weights = step.weight_bytes or float(shape.parameters * step.bytes_each)
    trained = shape.parameters if step.trained is None else step.trained
    # One more token for each sequence reads all weights and the cache as long as it is by then.
    cache = kv_cache_bytes(shape, step.sequences * (step.prompt + step.answer // 2), step.bytes_each)
    forward = _forward(shape, step)
    passes = (3 if trained == shape.parameters else 2) + step.checkpointing  # frozen weights get no gradient
    gathers = 2 if step.devices > 1 else 0  # forward and backward; checkpointing finds a layer gathered
    foreign = (step.devices - 1) / step.devices
    optimizer = ADAMW_TRANSFERS * trained * step.trained_bytes / step.devices
    return {
        "rollout": Work(forward, step.answer * (weights + cache)),
        "log-probabilities": Work(
            forward, step.micro_batches * weights, step.micro_batches * (gathers > 0) * weights * foreign
        ),
        "update": Work(
            passes * forward,
            step.micro_batches * passes * weights + optimizer,
            step.micro_batches * gathers * weights * foreign,
        ),
    }


def _forward(shape: ModelShape, step: Step) -> float:
    """Operations of one pass over all sequences; the head looks at answers only."""
    length = step.prompt + step.answer
    layers = 2.0 * shape.layers * shape.linear_weights * length
    head = 2.0 * shape.embedding_parameters * step.answer
    # Queries against keys and weights against values, 2 operations each; a token sees half of them on average.
    attention = 4.0 * shape.layers * shape.heads * shape.head_size * length * length / 2
    return step.sequences * (layers + head + attention)
