"""Training the Talker: masked diffusion (any masking schedule), iterative self-distillation, and
the next-token and multi-token baselines on the same trunk.

Stage 2 is mode "mdm" with global Bernoulli masks; stage 3 is mode "isd" with hierarchical masks,
starting from stage 2, whose frozen copy is the teacher (docs/method.md, "Masking schedules" and
"Iterative self-distillation"); "ntp" and "mtp" are the autoregressive baselines
("Autoregressive baselines"). With paced anchors all of them learn the symbols' durations as well;
with fixed anchors the text is read by the frozen Thinker, inside the step.

B batch, L speech positions, M symbols, N text tokens of the Thinker, D model width, V speech
vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mdmspeech.diffusion import distill, masking, objective
from mdmspeech.diffusion.layout import (
    duplicate_streams,
    mask_mod,
    one_stream,
    shift_right,
    two_stream,
    with_text_prefix,
)
from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.nn import masks
from mdmspeech.nn.losses import accuracy, weighted_cross_entropy, weighted_sum
from mdmspeech.training import multi_token_loss, mup
from mdmspeech.training.gathering import gather_once
from mdmspeech.training.optim import ParamRule
from mdmspeech.training.stages import talker_batches as layout
from mdmspeech.training.stages.shared import each_source, load_named, start_of, tiny_thinker
from mdmspeech.training.stages.stage import Exported, Loaders, Origin, Stage
from mdmspeech.training.stages.start import RANDOM
from mdmspeech.training.task import Params, Task
from mdmspeech.training.warm_start import overwrite

MODES = ("mdm", "isd", "ntp", "mtp")
_AUTOREGRESSIVE = {"ntp": "talker_ntp", "mtp": "talker_mtp"}  # mode -> part of a release, and kind


class TalkerTask(Task):
    """One of the Talker's stages.

    Args:
      mode: "mdm", "isd", "ntp", or "mtp" of a config with `mtp_modules`.
      pipeline: function (split, seed) -> batches, see `data.pipelines.talker_joined`: rows "joined"
        of utterances that go on, or "packed" with separate ones.
      sizes: batch, length, and symbols (paced anchors) or text (fixed ones) of a batch, for
        `batch_spec`; states, the Thinker's width, where the data have its states.
      capacity: share of all positions that the output layer is computed on if no more are hidden
        (the loss part "over_capacity" tells in how many batches more were: these compute all); 1
        always computes all. The hidden positions are gathered in groups of 16 rows or more
        (`objective.gather_masked`): on many devices give each a multiple of 16 rows, or 1 here.
        Choose it well above the mean rate of the masking: masks in 0.3 .. 1.0 hide more than 0.75
        of 16 rows in one batch of fifty, and of 8 rows in one of twelve.
      streams: 1 (earlier blocks partly masked, as everything else) or 2 ([noisy ; clean], what
        decoding sees; twice the positions).
      start: () -> parameters to start from, for "isd" the teacher's as well; None: random ones.
      differing: parameters that are not taken from there: fresh and ignored, see
        `warm_start.overwrite`; a teacher has none fresh.
      new_mask: give the mask's embedding row a new start, because the parameters to start from
        never saw a mask (see `talker.with_new_mask`).
      thinker, load_thinker: the text LLM that fixed anchors read, and (abstract parameters) -> its
        parameters (None: random ones).
      label_smoothing, z_loss: see `nn.losses.cross_entropy`; in "isd" of its cross-entropy part.
      optimizer: rules over parameter paths, see `Task`; None: one for all.
    """

    unit, held_out = "tokens", "val"

    def __init__(
        self,
        config: talker.TalkerConfig,
        mode: str,
        pipeline: Any,
        schedule: masking.Schedule | None = None,
        *,
        sizes: dict[str, int] | None = None,
        distillation: dict[str, Any] | None = None,
        capacity: float = 0.7,
        streams: int = 1,
        start: Callable[[], Params] | None = None,
        differing: Mapping[str, Sequence[str]] | None = None,
        new_mask: bool = False,
        thinker: ThinkerConfig | None = None,
        load_thinker: Callable[[Params], Params] | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        optimizer: Sequence[ParamRule] | None = None,
    ):
        if mode not in MODES:
            raise UserError(f"mode {mode!r} of a Talker is not one of {', '.join(MODES)}")
        if (mode == "mtp") != bool(config.mtp_modules):
            raise UserError(
                f"mode {mode!r} and talker.mtp_modules={config.mtp_modules}: mode 'mtp' trains "
                "modules, 5 in VocalNet, and the other modes have none (0)"
            )
        if (config.anchors == "fixed") != (thinker is not None):
            raise UserError(
                f"anchors {config.anchors!r} and a Thinker {'given' if thinker else 'missing'}: "
                "fixed anchors read one, paced ones none"
            )
        if streams not in (1, 2):
            raise UserError(f"streams is {streams}: 1, or 2 for [noisy ; clean]")
        self.name = f"talker_{mode}"
        self.config, self.mode, self.schedule = config, mode, schedule or masking.Bernoulli()
        self.model = talker.Talker(config)
        self.thinker = None if thinker is None else Thinker(thinker)
        self.weights = (
            {"token": 1.0, "duration": 0.3} if config.anchors == "paced" else {"token": 1.0}
        )
        for k in range(1, 1 + config.mtp_modules):
            self.weights[f"token_{k}"] = multi_token_loss.DECAY**k
        self._sizes, self._capacity, self._streams = sizes or {}, capacity, streams
        self._distillation = distillation or {}
        self._pipeline, self._start, self._load_thinker = pipeline, start, load_thinker
        self._new_mask, self._differing = new_mask, dict(differing or {})
        self.rows_apart = capacity >= 1  # else rows are gathered together
        self.optimizer = optimizer or self.optimizer
        self._loss: dict[str, Any] = dict(label_smoothing=label_smoothing, z_loss=z_loss)

    # ---- Parameters -----------------------------------------------------------------------------

    def init(self, rng):
        return talker.init(self.config, rng)

    def warm_start(self, params):
        params = (
            params if self._start is None else overwrite(params, self._start(), **self._differing)
        )
        return talker.with_new_mask(self.config, params) if self._new_mask else params

    def init_frozen(self, rng):
        parts = {"teacher": self.init(rng)} if self.mode == "isd" else {}
        if self.thinker is not None:
            thinker = self.thinker.init(rng, jnp.zeros((1, 2), jnp.int32))["params"]
            # it writes nothing here; and where its states are in the data, it computes none
            read = {"embedding"} if self._sizes.get("states") else thinker.keys() - {"output"}
            parts["thinker"] = {name: x for name, x in thinker.items() if name in read}
        return parts

    def load_frozen(self, abstract):
        start, ignored = self._start, self._differing.get("ignored", ())
        teacher = (lambda like: overwrite(like, start(), ignored=ignored)) if start else None
        loaders = {"teacher": teacher, "thinker": self._load_thinker}
        if all(loaders[name] is None for name in abstract):
            return None
        fresh = lambda name: jax.jit(lambda key: self.init_frozen(key)[name])(jax.random.key(0))
        return {
            name: load(abstract[name]) if (load := loaders[name]) else fresh(name)
            for name in abstract
        }

    # ---- Batches --------------------------------------------------------------------------------

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def count(self, batch):
        return int(layout.valid(batch).sum())

    def batch_spec(self):
        return layout.batch_spec(self._sizes, self.config.anchors)

    # ---- Losses ---------------------------------------------------------------------------------

    def draw(self, batch, rng):
        """With the tokens that are hidden."""
        if self.mode in _AUTOREGRESSIVE or "hidden" in batch:
            return batch
        drawn = self.schedule.sample(rng, layout.valid(batch), self.config.block)
        return {**batch, "hidden": drawn.mask_BL, "hidden_weight": drawn.weight_BL}

    def loss(self, params, frozen, batch, rng, step):
        """batch: see `batch_spec` and `data.pipelines.talker_joined`."""
        text = None if self.thinker is None else self._read(frozen["thinker"], batch)
        cond, log_durations = self.condition(params, batch, text)
        rows = layout.Rows.of(batch)
        losses = (
            self._next_tokens(params, cond, rows)
            if self.mode in _AUTOREGRESSIVE
            else self._diffusion(params, frozen, cond, text, batch, rows, rng)
        )
        if log_durations is not None:
            error = jnp.abs(log_durations - jnp.log(jnp.maximum(batch["durations"], 0.05)))
            losses["duration"] = weighted_sum(
                error, layout.valid(batch, "symbols_").astype(jnp.float32)
            )
        return losses

    def _read(self, thinker, batch):
        """Text features [B, N, 2 D_thinker]: [Emb(y); h], h the state of the position that has
        consumed y.
        """
        assert self.thinker is not None
        embedded = self.thinker.apply({"params": thinker}, batch["text"], method="embed")
        if "states" in batch:
            states = batch["states"].astype(embedded.dtype)
        else:
            causal = masks.causal(batch["text"].shape[1], segment_BT=batch["text_segment"])
            states, _ = self.thinker.apply(
                {"params": thinker}, embedded, batch["text_position"], causal, method="states"
            )
        return jax.lax.stop_gradient(jnp.concatenate([embedded, states], axis=-1))

    def condition(self, params, batch, text=None):
        """(cond [B, L, D], or the prefix [B, N, D]; log-durations [B, M] or None)."""
        apply = lambda method, *args: self.model.apply({"params": params}, *args, method=method)
        if text is not None:
            return apply("condition_fixed", text, batch["anchor"]), None
        if self.config.anchors == "prefix":
            return apply("prefix", batch["text"]), None
        symbols, durations = batch["symbols"], batch["durations"]
        if layout.is_packed(batch):
            return apply(
                "condition_packed",
                symbols,
                batch["symbols_segment"],
                durations,
                batch["segment"],
                batch["position"],
            )
        return apply(
            "condition_paced", symbols, batch["symbols_valid"], durations, batch["tokens"].shape[1]
        )

    def hidden(self, params, ids_BL, cond, rows, block: int, clean_BL=None):
        """Hidden states [B, L, D] of tokens that attend within their block and to earlier ones;
        with `clean_BL`, to the earlier ones' clean copies.
        """
        length, twin = ids_BL.shape[1], clean_BL is not None
        segment, position = (
            duplicate_streams(x) if twin else x for x in (rows.segment, rows.position)
        )
        ids = jnp.concatenate([ids_BL, clean_BL], axis=1) if twin else ids_BL
        trunk = partial(self.model.apply, {"params": params}, ids)
        if self.config.anchors != "prefix":
            mask = (
                masks.from_mask_mod(mask_mod, two_stream(length, block), segment)
                if twin
                else masks.causal(length, block, segment)
            )
            hidden, _ = trunk(duplicate_streams(cond) if twin else cond, mask, position)
            return hidden[:, :length]
        text = cond.shape[1]
        streams = two_stream(length, block) if twin else one_stream(length, block)
        mask = masks.from_mask_mod(
            mask_mod, with_text_prefix(streams, text), rows.with_text(segment)
        )
        hidden, _ = trunk(None, mask, rows.after_text(segment, position), before_BND=cond)
        return hidden[:, text : text + length]

    def logits(self, params, hidden):
        return self.model.apply({"params": params}, hidden, method="logits")

    def _next_tokens(self, params, cond, rows):
        """Losses of the next token, and "token_k", "accuracy_k" of the one k places behind it."""
        shifted = shift_right(rows.tokens, rows.tokens, rows.position, 1, talker.BOS)
        if self.mode == "ntp":
            states = (self.hidden(params, shifted, cond, rows, 1),)
        else:
            mask = masks.causal(shifted.shape[1], segment_BT=rows.segment)
            states, _ = self.model.apply(
                {"params": params}, shifted, cond, mask, rows.position, method="heads"
            )
        losses = {}
        for k, hidden in enumerate(states):
            logits, tail = self.logits(params, hidden), f"_{k}" * (k > 0)
            target, weight = multi_token_loss.head_targets(
                rows.tokens, rows.valid.astype(jnp.float32), k, rows.segment
            )
            losses[f"token{tail}"] = weighted_cross_entropy(logits, target, weight, **self._loss)
            losses[f"accuracy{tail}"] = accuracy(logits, target, weight)
        return losses

    def _diffusion(self, params, frozen, cond, text, batch, rows, rng):
        # it reads the same rows many times
        teacher = gather_once(frozen["teacher"]) if self.mode == "isd" else None
        batch = self.draw(batch, rng)
        drawn = masking.Masking(batch["hidden"], batch["hidden_weight"])
        noisy = jnp.where(drawn.mask_BL, talker.MASK, rows.tokens)
        states = self._denoise(params, noisy, cond, rows)
        teacher_cond = self.condition(teacher, batch, text)[0] if self.mode == "isd" else None

        def losses_of(picked):
            target, weight = picked.take(rows.tokens), picked.take(drawn.weight_BL) * picked.keep
            logits = self.logits(params, picked.take(states))
            losses = {
                "accuracy": accuracy(logits, target, weight),
                "left_out": picked.left_out(drawn.mask_BL),
            }
            if self.mode == "mdm":
                total, _ = weighted_cross_entropy(logits, target, weight, **self._loss)
                return losses | {
                    "token": (total, masking.loss_weight(self.schedule, weight, rows.valid))
                }

            def teach(ids_BL, *_):
                states = self._denoise(teacher, ids_BL, teacher_cond, rows)
                return self.logits(teacher, picked.take(states))

            return losses | self._distilled(
                teach, noisy, drawn.mask_BL, rows, picked, logits, target, weight
            )

        picked = _Picked.of(drawn.mask_BL, self._capacity)
        if picked.index_GN is None:
            return losses_of(picked)
        # A draw of more hidden tokens than there are places for takes the long way, on all
        # positions: none is ever left out.
        too_many = picked.left_out(drawn.mask_BL)[0] > 0
        losses = jax.lax.cond(
            too_many, lambda: losses_of(_Picked(None, 1.0)), lambda: losses_of(picked)
        )
        return losses | {"over_capacity": (too_many.astype(jnp.float32), jnp.ones(()))}

    def _denoise(self, params, ids_BL, cond, rows):
        """Hidden states [B, L, D] of the noisy tokens."""
        block, clean_BL = self.config.block, rows.tokens
        if self.config.label_shift:
            ids_BL, clean_BL = (
                shift_right(ids, rows.tokens, rows.position, block, talker.BOS)
                for ids in (ids_BL, clean_BL)
            )
        return self.hidden(
            params, ids_BL, cond, rows, block, clean_BL if self._streams == 2 else None
        )

    def _distilled(self, teach, noisy, mask_BL, rows, picked, logits, target, weight):
        settings = dict(self._distillation)
        iterations = settings.pop("iterations", 4)
        allowed = jnp.arange(talker.VOCAB) <= talker.EOS
        allowed = allowed.at[jnp.asarray([talker.BOS, talker.SOS])].set(False)
        gathered = None if picked.index_GN is None else (picked.index_GN, picked.keep)
        rollout = distill.teacher_rollout(
            teach,
            noisy,
            mask_BL,
            rows.valid,
            self.config.block,
            iterations,
            gathered=gathered,
            allowed_V=allowed,
        )
        loss = distill.isd_loss(logits, rollout.logits, target, weight, **settings, **self._loss)
        return {
            "token": (loss.loss_sum, loss.weight_sum),
            "kl": (loss.kl_sum, loss.weight_sum),
            "ce": (loss.ce_sum, loss.weight_sum),
        }


class _Picked(NamedTuple):
    """Positions whose logits are computed: the hidden ones, gathered into a fixed number of places,
    or all (index None).
    """

    index_GN: jax.Array | None
    keep: Any

    @classmethod
    def of(cls, mask_BL, capacity: float):
        return (
            cls(None, 1.0)
            if capacity >= 1
            else cls(*objective.gather_masked(mask_BL, int(capacity * mask_BL.size)))
        )

    def take(self, x_BLX):
        return x_BLX if self.index_GN is None else objective.gather(x_BLX, self.index_GN)

    def left_out(self, mask_BL):
        lost = 0 if self.index_GN is None else objective.overflow(mask_BL, self.index_GN)
        return jnp.asarray(lost, jnp.float32), jnp.sum(mask_BL).astype(jnp.float32)


def from_config(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    """See `Stage.from_config`."""
    model = talker.TalkerConfig(**config.talker)
    if config.mode == "isd" and not config.get("init_from"):
        raise UserError(
            "self-distillation starts from a trained Talker: set init_from to its "
            "run (or 'random', to try things out)"
        )
    thinker = ThinkerConfig(**config.thinker) if model.anchors == "fixed" else None
    schedule = masking.get(
        config.masking.name, **{k: v for k, v in config.masking.items() if k != "name"}
    )
    sizes = {
        name: config.data[name]
        for name in ("batch", "length", "layout", "symbols", "text")
        if name in config.data
    }
    if thinker is not None:
        sizes["states"] = layout.states_width(config)
    pipeline = partial(layout.pipeline, model, root, loaders)
    task = TalkerTask(
        model,
        config.mode,
        partial(pipeline, config),
        schedule,
        sizes=sizes,
        distillation=dict(config.distillation),
        **start_of(config, workdir, loaders),
        thinker=thinker,
        load_thinker=load_named(config, "thinker", loaders.thinker, thinker) if thinker else None,
        optimizer=mup.rules(model, config.optim.weight_decay) if model.base_dim else None,
        **{
            name: config[name]
            for name in ("capacity", "streams", "new_mask", "label_smoothing", "z_loss")
            if name in config
        },
    )
    task.sources = each_source(config, pipeline)
    return task


def tiny(config: ConfigDict) -> None:
    """See `Stage.tiny`."""
    anchors = config.talker.anchors
    if anchors == "paced":
        config.talker.update(dim=64, num_layers=1, num_heads=2, ffn_dim=128, symbol_lookahead=(2,))
        config.data.update(length=128, symbols=128)
        return
    config.data.update(length=256, text=512, threads=1)
    config.talker.update(dim=64, num_layers=2, num_heads=4, ffn_dim=128)
    if anchors == "prefix":
        config.talker.update(num_kv_heads=2, text_vocab_size=512)
        config.weights.tokenizer = RANDOM
    else:
        tiny_thinker(config)
        config.talker.text_dim = 2 * config.thinker.dim


def _export(part: str, run: Mapping[str, Any]) -> Exported:
    """The Talker of a run; it fills masks, or writes the next token or tokens, and these are three
    parts.
    """
    if (right := _AUTOREGRESSIVE.get(str(run.get("mode")), "talker")) != part:
        raise UserError(
            f"trained a Talker of mode {run.get('mode')!r}; give it as --{right.replace('_', '-')}"
        )
    return Exported("talker_mdm" if part == "talker" else part, run["talker"], "talker")


def _origin(run: Mapping[str, Any]) -> Origin:
    """See `Stage.origin`."""
    sizes = run.get("talker")
    fixed = isinstance(sizes, Mapping) and sizes.get("anchors") == "fixed"
    return Origin(autoregressive=run.get("mode") in tuple(_AUTOREGRESSIVE), reads_prompt=fixed)


STAGE = Stage(
    "talker",
    ("talker", "mode", "masking", "distillation", "data"),
    from_config,
    tiny,
    teaches=lambda config: config.mode == "isd",
    origin=_origin,
    choices={
        "mode": MODES,
        "data.layout": layout.LAYOUTS,
        "talker.anchors": tuple(talker.ANCHORS),
        "distillation.direction": distill.DIRECTIONS,
    },
    exports={part: partial(_export, part) for part in ("talker", *_AUTOREGRESSIVE.values())},
)
