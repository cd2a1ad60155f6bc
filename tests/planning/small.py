"""A real task, small: two scanned layers of products in bfloat16, a frozen matrix, and packed
tokens as its batch. Its arithmetic is known by hand.
"""

import jax
import jax.numpy as jnp

from mdmspeech.nn.partition import constrain
from mdmspeech.training.config import base
from mdmspeech.training.task import Task

WIDTH, HIDDEN, LAYERS, VOCAB, LENGTH = 256, 1024, 2, 512, 128


class SmallTask(Task):
    """Embeds tokens, mixes them with a frozen matrix, runs `layers` feed-forward layers under a
    scan, predicts the tokens.
    """

    name, unit = "small", "tokens"

    def __init__(self, rows: int = 16, layers: int = LAYERS, hidden: int = HIDDEN):
        self.rows, self.layers, self.hidden = rows, layers, hidden

    def init(self, rng):
        make = lambda i, *shape: jax.random.normal(jax.random.fold_in(rng, i), shape) * 0.02
        layer = {
            "up": {"kernel": make(1, self.layers, WIDTH, self.hidden)},
            "down": {"kernel": make(2, self.layers, self.hidden, WIDTH)},
        }
        return {"embedding": make(0, VOCAB, WIDTH), "layers": layer}

    def init_frozen(self, rng):
        return {"mix": {"kernel": jax.random.normal(rng, (WIDTH, WIDTH))}}

    def batch_spec(self):
        return {
            "tokens": jax.ShapeDtypeStruct((self.rows, LENGTH), jnp.int32),
            "weight": jax.ShapeDtypeStruct((self.rows, LENGTH), jnp.float32),
        }

    def loss(self, params, frozen, batch, rng, step):
        x = params["embedding"][batch["tokens"]] @ frozen["mix"]["kernel"]

        def layer(x, kernels):
            hidden = constrain(jax.nn.relu(x @ kernels["up"]["kernel"]), "batch", "length", "mlp")
            return constrain(
                x + hidden @ kernels["down"]["kernel"], "batch", "length", "width"
            ), None

        x, _ = jax.lax.scan(layer, x, params["layers"])
        logits = (x @ params["embedding"].T).astype(jnp.float32)
        loss = -jnp.take_along_axis(
            jax.nn.log_softmax(logits), batch["tokens"][..., None], axis=-1
        )[..., 0]
        return {"loss": ((loss * batch["weight"]).sum(), batch["weight"].sum())}


def parameters(task: SmallTask) -> int:
    return VOCAB * WIDTH + 2 * task.layers * WIDTH * task.hidden


def products(task: SmallTask, rows: int) -> tuple[int, int]:
    """(model FLOPs of loss and gradient, of these the forward pass)."""
    tokens = rows * LENGTH
    mix, layers, out = (
        2 * tokens * WIDTH * n for n in (WIDTH, 2 * task.layers * task.hidden, VOCAB)
    )
    # The frozen matrix needs no gradient of its own; what comes before it is a look-up, whose
    # gradient needs one product with it.
    return 2 * mix + 3 * (layers + out), mix + layers + out


def config():
    made = base()
    made.train.dtype = "bfloat16"
    made.stage = "small"
    return made
