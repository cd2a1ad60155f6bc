"""Supervised fine-tuning of the Thinker on written conversations: a low-rank update (LoRA) learns
what to answer and how, from text alone.

Source: docs/method.md, "The Thinker".

    prompt, question -> Thinker with LoRA -> cross-entropy on the answer

Rows hold one prompt and several conversations behind it, each of which sees the prompt and itself:
equal to conversations alone, each after its own prompt (a test compares them). Logits are computed
where an answer is supervised, nowhere else.

B batch, L positions of a row, A supervised positions of a row, D width of the Thinker, V its
vocabulary.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mdmspeech.data.pipelines.chats_packed import PROMPT
from mdmspeech.errors import UserError
from mdmspeech.models import lora
from mdmspeech.models.thinker import Thinker, ThinkerConfig, behind_prompt
from mdmspeech.nn import losses
from mdmspeech.training import distributed
from mdmspeech.training.stages.shared import chat_of, load_named, start_of, tiny_thinker
from mdmspeech.training.stages.stage import Exported, Loaders, Stage
from mdmspeech.training.stages.start import RANDOM
from mdmspeech.training.task import Params, Task
from mdmspeech.training.warm_start import overwrite


class ThinkerSFTTask(Task):
    """Trains the LoRA of a frozen Thinker.

    Args:
      thinker: with `lora_rank` > 0, else UserError.
      pipeline: function (split, seed) -> batches as `batch_spec` says, see
        `data.pipelines.chats_packed`.
      sizes: batch, length (L) and answers (A) of a batch.
      load: (abstract parameters) -> parameters of the Thinker; None where random ones are wanted.
      start: () -> the update to go on from, of a run or of a release; None: a fresh one.
      differing: see `warm_start.overwrite`.
    """

    name, unit, held_out = "thinker_sft", "tokens", "val"
    weights = {"loss": 1.0}
    rows_apart = True

    def __init__(
        self,
        thinker: ThinkerConfig,
        pipeline: Any,
        sizes: dict[str, int],
        *,
        load: Callable[[Params], Params] | None = None,
        start: Callable[[], Params] | None = None,
        differing: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
    ):
        if not thinker.lora_rank:
            raise UserError(
                "thinker.lora_rank is 0: this stage trains a low-rank update of the Thinker; give "
                "it a rank, for example 8"
            )
        self.thinker = Thinker(thinker)
        self._pipeline, self._sizes, self._load = pipeline, sizes, load
        self._start, self._differing = start, differing or {}
        self._label_smoothing = label_smoothing

    def init(self, rng):
        return {"lora": lora.split(self._fresh(rng))[1]}

    def warm_start(self, params):
        if self._start is None:
            return params
        found = self._start()
        update = found if "lora" in found else {"lora": found}  # a run's, or a release's part
        return overwrite(params, update, **self._differing)

    def init_frozen(self, rng):
        return {"thinker": lora.split(self._fresh(rng))[0]}

    def load_frozen(self, abstract):
        return None if self._load is None else {"thinker": self._load(abstract["thinker"])}

    def _fresh(self, rng):
        return self.thinker.init(rng, jnp.zeros((1, 2), jnp.int32))["params"]

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def count(self, batch):
        return int((batch["segment"] > 0).sum())

    def batch_spec(self):
        s = self._sizes
        of = lambda width, dtype=jnp.int32: jax.ShapeDtypeStruct((s["batch"], width), dtype)
        spec = {name: of(s["length"]) for name in ("ids", "segment", "position")}
        spec |= {name: of(s["answers"]) for name in ("at", "target")}
        return spec | {"weight": of(s["answers"], jnp.float32)}

    def loss(self, params, frozen, batch, rng, step):
        """batch: see `data.pipelines.chats_packed.chat_batches`."""
        thinker = lora.combine(frozen["thinker"], params["lora"])
        apply = lambda method, *args: self.thinker.apply({"params": thinker}, *args, method=method)
        hidden_BLD, _ = apply(
            "states",
            apply("embed", batch["ids"]),
            batch["position"],
            behind_prompt(batch["segment"], PROMPT),
        )
        answered_BAD = jnp.take_along_axis(hidden_BLD, batch["at"][..., None], axis=1)
        logits_BAV = apply("logits", answered_BAD)
        loss = losses.weighted_cross_entropy(
            logits_BAV, batch["target"], batch["weight"], self._label_smoothing
        )
        right = losses.weighted_sum(
            (logits_BAV.argmax(-1) == batch["target"]).astype(jnp.float32), batch["weight"]
        )
        return {"loss": loss, "right": right}


def from_config(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    """See `Stage.from_config`."""
    thinker = ThinkerConfig(**config.thinker)
    sizes = {name: config.data[name] for name in ("batch", "length", "answers")}
    return ThinkerSFTTask(
        thinker,
        partial(_batches, config, root, loaders),
        sizes,
        load=load_named(config, "thinker", loaders.thinker, thinker),
        **start_of(config, workdir, loaders),
        label_smoothing=config.get("label_smoothing", 0.0),
    )


def _batches(config: ConfigDict, root, loaders: Loaders, split: str, seed: int):
    from mdmspeech.data.pipelines import chats_packed

    data = config.data
    sources = {}
    for part in data.parts:
        sources |= _sources(part, root, split, seed, config.chats.get("rewordings", 0))
    return chats_packed.chat_batches(
        sources,
        chat_of(config, loaders),
        batch=data.batch,
        length=data.length,
        answers=data.answers,
        seed=seed,
        weights=_shares(config, sources),
        informal=config.chats.informal,
        following=config.chats.following,
        shard=distributed.share(),
        threads=data.threads,
    )


def _sources(part: str, root, split: str, seed: int, reworded: int) -> dict[str, list]:
    """Of one part: each family of the corpus' questions, or a file, here or in the corpus' folder."""
    from mdmspeech.data.pipelines.random_source import random_chats
    from mdmspeech.data.storage.record_store import data_root
    from mdmspeech.data.texts import chats, questions

    if part == RANDOM:
        return {RANDOM: random_chats(seed)}
    if part == chats.QUESTIONS:
        asked = questions.questions()
        by_family = chats.question_chats(asked, questions.families(), split, reworded)
        return {f"{part}/{family}": found for family, found in by_family.items()}
    path = Path(part).expanduser()
    return {part: chats.read_chats(path if path.is_file() else data_root(root) / path, split)}


def _shares(config: ConfigDict, sources: Mapping[str, list]) -> dict[str, float]:
    """Source -> its share of the conversations. `data.weights` are those of the parts; inside a part
    a family of n is drawn in proportion to n ** (1 / `chats.temperature`), as `mixing.Mixture` has it.
    """
    data, temperature = config.data, config.chats.temperature
    weights = data.weights or (1.0,) * len(data.parts)
    shares: dict[str, float] = {}
    for part, weight in zip(data.parts, weights, strict=True):
        mine = {
            name: len(found) ** (1 / temperature)
            for name, found in sources.items()
            if name == part or name.startswith(f"{part}/")
        }
        shares |= {name: weight * size / sum(mine.values()) for name, size in mine.items()}
    return shares


def tiny(config: ConfigDict) -> None:
    """See `Stage.tiny`."""
    tiny_thinker(config)
    config.thinker.lora_rank = 4
    config.data.update(length=256, answers=128, threads=1, weights=())


def _export(run: Mapping[str, Any]) -> Exported:
    sizes = {name: run["thinker"][name] for name in run["thinker"]}
    return Exported("thinker_lora", sizes, "thinker", lambda params: params["lora"])


STAGE = Stage(
    "thinker_sft",
    ("thinker", "weights", "prompt", "chats", "data"),
    from_config,
    tiny,
    exports={"thinker_lora": _export},
    updates_thinker=lambda run: True,
)
