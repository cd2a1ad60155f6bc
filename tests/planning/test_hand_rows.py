"""The FLOPs of six steps by the arithmetic of docs/planning.md, against those that are counted."""

import jax
import pytest

from mdmspeech.cli.experiment import load_experiment, make_task
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.planning.decode import find_way, speech_program, thinking_program
from mdmspeech.planning.program import train_program
from mdmspeech.training.mesh import make_mesh

TILE = 512  # positions: attention counts tiles that a causal mask leaves
LORA = 8
FORWARD, LEARNS, PASSES_ON = 2, 6, 4  # FLOPs a parameter: forward; with both gradients; frozen


def layers(c):
    """(parameters of the layers, width of their heads together)."""
    kv, heads = c.num_kv_heads or c.num_heads, (c.head_dim or c.dim // c.num_heads) * c.num_heads
    keys = heads // c.num_heads * kv
    attention = 2 * c.dim * heads + 2 * c.dim * keys
    return c.num_layers * (attention + 3 * c.dim * c.ffn_dim), heads


def attention(length, heads, num_layers, passes, causal=True):
    """passes: 4 forward, 12 with the backward pass."""
    tiles = -(-length // TILE)
    share = (tiles + 1) / (2 * tiles) if causal else 1
    return passes * length * length * share * heads * num_layers


def talker(c, forwards_only=False):
    """One row of the Talker: its layers, its head, its attention."""
    t, length = c.talker, c.data.length
    per = FORWARD if forwards_only else LEARNS
    inside = 4 * (4 * t.dim**2 + 3 * t.dim * t.ffn_dim) + t.dim * 6566
    return per * inside * length + attention(length, t.dim, 4, 4 if forwards_only else 12)


def thinker_forward(c):
    inside, heads = layers(c.thinker)
    return FORWARD * inside * c.data.text + attention(c.data.text, heads, c.thinker.num_layers, 4)


def stage_2(c):
    anchors = PASSES_ON * c.talker.text_dim * c.talker.dim * c.data.text
    return thinker_forward(c) + talker(c) + anchors


def stage_3(c):
    """The teacher refines four times."""
    return stage_2(c) + 4 * talker(c, forwards_only=True)


def stage_1(c):
    t, e, length, frames = c.thinker, c.encoder, c.data.length, c.data.frames
    inside, heads = layers(t)
    head = PASSES_ON * t.dim * t.vocab_size * length
    sides = (
        t.num_layers
        * LORA
        * (
            4 * t.dim
            + 2 * heads
            + 2 * heads // t.num_heads * t.num_kv_heads
            + 3 * (t.dim + t.ffn_dim)
        )
    )
    mind = (PASSES_ON * inside + LEARNS * sides) * length + head
    mind += attention(length, heads, t.num_layers, 12)
    heard = frames // 2
    blocks = e.num_layers * (4 * e.dim**2 + 2 * e.dim * e.ffn_dim)
    convolutions = 3 * e.dim * (e.num_mels * frames + e.dim * heard)
    ear = FORWARD * (blocks * heard + convolutions)
    ear += attention(heard, e.dim, e.num_layers, 4, causal=False)
    adaptor = LEARNS * (5 * e.dim * c.hidden_dim + c.hidden_dim * t.dim) * (heard // 5)
    return mind + ear + adaptor


ROWS = {
    "thinker_8b": (stage_1, 5.50e13),
    "talker_8b": (stage_2, 1.06e13),
    "talker_isd_8b": (stage_3, 1.99e13),
    "talker_1b": (stage_2, 2.34e12),
    "thinker_06b": (stage_1, 1.02e13),
}
IN_EVERY_RUN = ("talker_isd_8b",)


@pytest.mark.parametrize(
    "name",
    [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.full) for name in ROWS],
)
def test_a_step_by_hand(name, tmp_path):
    by_hand, told = ROWS[name]
    config = load_experiment(f"experiments/{name}.py")
    config.train.accum = 1
    mesh = make_mesh(data=1, devices=jax.devices()[:1])
    counted = train_program(config, make_task(config, tmp_path), mesh, 8).model_flops / 8
    assert by_hand(config) == pytest.approx(counted, rel=0.05)
    assert counted == pytest.approx(told, rel=0.01), "as docs/planning.md says"


BLOCK, SEEN = 16, 33 * 16  # 20 s of speech, in blocks of which 32 suffice, and the scratch block


def speech(way, config, rows=1):
    mesh = make_mesh(data=1, devices=jax.devices()[:1])
    return speech_program(TalkerConfig(**config.talker), mesh, find_way(way), rows)


@pytest.mark.parametrize(
    ("way", "forwards", "tokens", "heads"), [("NTP", 16, 1, 1), ("MTP 3", 6, 3, 3)]
)
def test_a_block_of_the_baselines_by_hand(way, forwards, tokens, heads):
    """Next token: a forward a token. Multi-token: six of three tokens, through the trunk and the two
    modules that write; head by head the last one's logits.
    """
    config = load_experiment("experiments/talker_8b.py")
    t, program = config.talker, speech(way, config)
    layers = t.num_layers + heads - 1
    each = 2 * layers * (4 * t.dim**2 + 3 * t.dim * t.ffn_dim) + 4 * layers * SEEN * t.dim
    by_hand = forwards * (each * tokens + 2 * t.dim * 6656 * heads)
    assert by_hand == pytest.approx(program.flops, rel=0.01)
    assert (program.unknown_trips, program.units) == ((1, forwards), 16)
    caches = 2 * (t.num_layers + 5 * (way == "MTP 3")) * 1040 * t.dim * 4
    assert sum(x.size * 4 for x in jax.tree.leaves(program.parts["cache"])) == caches


@pytest.mark.parametrize(("steps", "told"), [(1, 7.07e10), (4, 1.78e11), (16, 6.07e11)])
def test_a_block_of_masked_diffusion_by_hand(steps, told):
    """The first forward commits the block before as well."""
    config = load_experiment("experiments/talker_8b.py")
    t, tokens = config.talker, BLOCK * (1 + steps)
    inside = 4 * (4 * t.dim**2 + 3 * t.dim * t.ffn_dim)
    by_hand = 2 * (inside * tokens + t.dim * 6656 * BLOCK * steps) + 4 * tokens * SEEN * t.dim * 4
    counted = speech(f"S={steps}", config).flops
    assert by_hand == pytest.approx(counted, rel=0.01)
    assert counted == pytest.approx(told, rel=0.01), "as docs/planning.md says"


def test_a_token_of_the_thinker_by_hand():
    """Every parameter but the embedding table once, and attention over the whole cache."""
    config = load_experiment("experiments/thinker_8b.py").thinker
    mesh = make_mesh(data=1, devices=jax.devices()[:1])
    inside, heads = layers(config)
    by_hand = 2 * (inside + config.dim * config.vocab_size) + 4 * 2048 * heads * config.num_layers
    program = thinking_program(ThinkerConfig(**config), mesh, rows=3)
    assert program.flops == pytest.approx(3 * by_hand, rel=0.001)
    assert program.units == 3 and by_hand == pytest.approx(1.63e10, rel=0.01)
