"""Training the Talker: masked diffusion (any masking schedule), iterative self-distillation, and the next-token baseline on the same trunk.

Stage 2 is mode "mdm" with global Bernoulli masks; stage 3 is mode "isd" with hierarchical masks, starting from stage 2, whose frozen copy is the teacher
(method.md sections 5 and 6); "ntp" is the autoregressive baseline (section 9). All of them learn the durations of the paced anchors as well.
"""

import jax.numpy as jnp

from mdmspeech.diffusion import distill, masking, objective
from mdmspeech.diffusion.layout import block_causal_mask, causal_mask
from mdmspeech.models import talker
from mdmspeech.training.task import Task
from mdmspeech.training.warm_start import overwrite


class TalkerTask(Task):
    """`mode`: "mdm", "isd" or "ntp". `capacity` is the share of all positions that the output layer may be computed on."""

    unit, held_out = "tokens", "test"

    def __init__(
        self,
        config: talker.TalkerConfig,
        mode: str,
        pipeline,
        schedule=None,
        *,
        distillation=None,
        capacity=0.7,
        start=None,
    ):
        if mode not in ("mdm", "isd", "ntp"):
            raise ValueError(f"mode {mode!r} is not one of mdm, isd, ntp")
        self.name = f"talker_{mode}"
        self.config, self.mode, self.schedule, self.capacity = config, mode, schedule or masking.Bernoulli(), capacity
        self.model = talker.Talker(config)
        self.distillation = distillation or {}
        self.weights = {"token": 1.0, "duration": 0.3}
        self._pipeline = pipeline
        self._started = start() if start else None
        if mode == "isd":
            if self._started is None:
                raise ValueError("isd starts from a trained Talker: set init_from")
            self.frozen = {"teacher": self._started}

    def init(self, rng):
        return talker.init(self.config, rng)

    def warm_start(self, params):
        return params if self._started is None else overwrite(params, self._started)

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def count(self, batch):
        return int(batch["valid"].sum())

    def loss(self, params, frozen, batch, rng, step):
        """batch: see `data.talker.talker_batches`."""
        cond, log_durations = self.condition(params, batch)
        losses = self._ntp(params, cond, batch) if self.mode == "ntp" else self._diffusion(params, frozen, cond, batch, rng)
        valid = batch["symbols_valid"]
        error = jnp.abs(log_durations - jnp.log(jnp.maximum(batch["durations"], 0.05)))
        losses["duration"] = objective.weighted_sum(error, valid.astype(jnp.float32))
        return losses

    def condition(self, params, batch):
        """(cond [B, L, D], log-durations [B, M])."""
        length = batch["tokens"].shape[1]
        arguments = (batch["symbols"], batch["symbols_valid"], batch["durations"], length)
        return self.model.apply({"params": params}, *arguments, method="condition_paced")

    def hidden(self, params, ids_BL, cond_BLD, mask_BLL):
        positions = jnp.arange(ids_BL.shape[1])[None, :]
        return self.model.apply({"params": params}, ids_BL, cond_BLD, mask_BLL, positions)[0]

    def logits(self, params, hidden):
        return self.model.apply({"params": params}, hidden, method="logits")

    def _ntp(self, params, cond, batch):
        tokens, valid = batch["tokens"], batch["valid"]
        shifted = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=talker.BOS)
        logits = self.logits(params, self.hidden(params, shifted, cond, causal_mask(tokens.shape[1], valid)))
        weight = valid.astype(jnp.float32)
        return {
            "token": objective.masked_cross_entropy(logits, tokens, weight),
            "accuracy": objective.accuracy(logits, tokens, weight),
        }

    def _diffusion(self, params, frozen, cond, batch, rng):
        tokens, valid, block = batch["tokens"], batch["valid"], self.config.block
        drawn = self.schedule.sample(rng, valid, block)
        ids = jnp.where(drawn.mask_BL, talker.MASK, tokens)
        attend = block_causal_mask(tokens.shape[1], block, valid)
        capacity = int(self.capacity * tokens.size)
        index_N, keep_N = objective.gather_masked(drawn.mask_BL, capacity)
        target_N = objective.gather(tokens, index_N)
        weight_N = objective.gather(drawn.weight_BL, index_N) * keep_N
        logits_N = self.logits(params, objective.gather(self.hidden(params, ids, cond, attend), index_N))
        losses = {"accuracy": objective.accuracy(logits_N, target_N, weight_N)}
        lost = objective.overflow(drawn.mask_BL, capacity).astype(jnp.float32)
        losses["left_out"] = (lost, jnp.sum(drawn.mask_BL).astype(jnp.float32))
        if self.mode == "mdm":
            losses["token"] = objective.masked_cross_entropy(logits_N, target_N, weight_N)
            return losses
        return losses | self._distilled(
            frozen["teacher"], ids, drawn.mask_BL, attend, batch, (index_N, keep_N), logits_N, target_N, weight_N
        )

    def _distilled(self, teacher, ids, mask_BL, attend, batch, gathered, logits_N, target_N, weight_N):
        cond, _ = self.condition(teacher, batch)

        def teach(ids_BL, index_N):
            return self.logits(teacher, objective.gather(self.hidden(teacher, ids_BL, cond, attend), index_N))

        settings = dict(self.distillation)
        iterations = settings.pop("iterations", 4)
        allowed = jnp.arange(talker.VOCAB) <= talker.EOS
        allowed = allowed.at[jnp.asarray([talker.BOS, talker.SOS])].set(False)
        rollout = distill.teacher_rollout(
            teach, ids, mask_BL, batch["valid"], self.config.block, iterations, gathered=gathered, allowed_V=allowed
        )
        loss = distill.isd_loss(logits_N, rollout.logits, target_N, weight_N, **settings)
        return {
            "token": (loss.loss_sum, loss.weight_sum),
            "kl": (loss.kl_sum, loss.weight_sum),
            "ce": (loss.ce_sum, loss.weight_sum),
        }
