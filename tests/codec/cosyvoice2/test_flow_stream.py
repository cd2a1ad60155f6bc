"""Block by block: the mel of one-shot synthesis under the same masks, from a state that does not
grow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import COSYVOICE2 as GOLDEN
from golden import flow_config, sizes
from measured import close

from mdmspeech.codec.cosyvoice2.flow import generate
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig, Prompt, batch_of
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks
from mdmspeech.codec.cosyvoice2.flow_stream import (
    ABSENT,
    PROMPT,
    SPEECH,
    Block,
    MelStream,
    StreamPlan,
    compiled_push,
    push,
    start,
    state_bytes,
)
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_flow import flow_params
from mdmspeech.interop.tensors import read_tensors

SIZES = sizes("flow_full")
CONFIG, SIZE = flow_config(SIZES), SIZES["encoder"]["static_chunk_size"]
_generate = jax.jit(
    generate,
    static_argnums=0,
    static_argnames=("steps", "guidance", "temperature", "chunks", "final"),
)


@pytest.fixture(scope="module")
def params():
    return flow_params(CONFIG, read_tensors(GOLDEN / "flow_full.safetensors"), "the flow")


@pytest.fixture(scope="module")
def golden():
    """The reference's own streaming loop: its tokens, prompt, noise, and the mels of all calls."""
    return np.load(GOLDEN / "token2wav_stream.npz")


@pytest.fixture(scope="module")
def prompt(golden):
    return Prompt(
        golden["in.prompt_token"][0], golden["in.prompt_feat"][0], golden["in.embedding"][0]
    )


def random_tokens(tokens, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, tokens).astype(np.int32)


def random_prompt(tokens, seed=0):
    rng = np.random.default_rng(seed)
    mel = rng.normal(size=(2 * tokens, CONFIG.estimator.num_mels)).astype(np.float32)
    return Prompt(
        random_tokens(tokens, seed), mel, rng.normal(size=CONFIG.speaker_dim).astype(np.float32)
    )


def one_shot(params, plan, tokens, prompt, noise, length=None):
    how = dict(
        steps=plan.steps, guidance=plan.guidance, temperature=plan.temperature, chunks=plan.chunks
    )
    mel, frames = _generate(
        CONFIG, params, batch_of(CONFIG, [tokens], [prompt], length), noise, **how
    )
    return np.asarray(mel)[0, : int(frames[0])]


def streamed(params, plan, tokens, prompt, noise, size):
    stream = MelStream(CONFIG, plan, params, prompt, noise)
    parts = [stream.push(tokens[at : at + size]) for at in range(0, len(tokens), size)]
    return [*parts, stream.finish()]


SHORT = StreamPlan(Chunks(SIZE, left=2, follow_speech=True), steps=3)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(
    ("plan", "tokens", "prompt_tokens", "size"),
    [
        # as it is used: blocks of 16, 10 steps
        (StreamPlan(Chunks(16, left=8, follow_speech=True)), 53, 21, 16),
        (StreamPlan(Chunks(16, left=1), steps=3, guidance=0.0, temperature=0.6), 50, 9, 7),
        (SHORT, 22, 0, SIZE),
        (SHORT, 1, 5, 1),
        (StreamPlan(Chunks(SIZE, left=0), steps=2), 17, 3, 17),
    ],
)
def test_streamed_equals_one_shot(params, plan, tokens, prompt_tokens, size):
    ids, prompt, noise = (
        random_tokens(tokens),
        random_prompt(prompt_tokens),
        jax.random.split(jax.random.key(3), 1),
    )
    parts = streamed(params, plan, ids, prompt, noise, size)
    # those of few tokens in one bucket, which is one program for each plan
    whole = one_shot(params, plan, ids, prompt, noise, max(22, tokens + prompt_tokens))
    assert whole.shape == (2 * tokens, 80)
    close("streamed equals one-shot: flow", np.concatenate(parts), whole, atol=1e-4)


def test_a_block_is_late_by_the_lookahead_only(params):
    """With chunks that follow the speech, every block of tokens brings out all frames but those of
    the last three tokens.
    """
    parts = streamed(
        params,
        SHORT,
        random_tokens(12),
        random_prompt(6),
        jax.random.split(jax.random.key(0), 1),
        SIZE,
    )
    assert [len(part) for part in parts] == [2 * (SIZE - 3), 2 * SIZE, 2 * SIZE, 6]


@pytest.mark.slow
@pytest.mark.parity
def test_golden_streaming_calls(golden, params, prompt):
    """Every call of the reference's streaming loop, each on the whole prefix; and our stream, which
    sees each token once.
    """
    tokens, noise = golden["in.token"][0], jnp.asarray(golden["in.noise"][0].T)
    calls = golden["stream.out.hift_input_frames"].tolist()
    cached = 8  # mel frames that the vocoder is given again in every call but the first
    theirs, at = [], 0
    for n, count in enumerate(calls):
        theirs.append(
            golden["stream.out.hift_input_mel"][0, :, at + (cached if n else 0) : at + count].T
        )
        at += count
    ends = np.cumsum([len(mel) for mel in theirs]) // 2
    assert ends[-1] == len(tokens)
    for n, (mel, end) in enumerate(zip(theirs, ends.tolist(), strict=True)):
        last = n == len(theirs) - 1
        batch = batch_of(CONFIG, [tokens if last else tokens[: end + 3]], [prompt], length=44)
        got, frames = _generate(
            CONFIG, params, batch, noise, chunks=None if last else Chunks(SIZE), final=last
        )
        assert frames.tolist() == [2 * end]
        close(
            "token2wav_stream stream.out.hift_input_mel",
            got[0, 2 * end - len(mel) : 2 * end],
            mel,
            atol=2e-4,
        )

    parts = streamed(params, StreamPlan(Chunks(SIZE, left=20)), tokens, prompt, noise, SIZE)
    ours = np.concatenate(parts)
    same = 2 * int(ends[-2])  # the last call of theirs attends everywhere, which no stream can
    close(
        "token2wav_stream stream.out.hift_input_mel",
        ours[:same],
        np.concatenate(theirs[:-1]),
        atol=2e-4,
    )
    assert np.abs(ours[same:] - theirs[-1]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parity
def test_ragged_rows_equal_single_rows(params):
    """Rows with prompts and texts of different lengths share the clock; each gives the mel it has
    alone.
    """
    plan, lengths, prompt_lengths = SHORT, [13, 5, 8], [4, 9, 0]
    prompts, tokens = (
        [random_prompt(n, n) for n in prompt_lengths],
        [random_tokens(n, n) for n in lengths],
    )
    noise = jax.random.split(jax.random.key(5), 3)
    before = -(-max(prompt_lengths) // SIZE) * SIZE  # prompts end together, on a block
    total = -(-(before + max(lengths) + CONFIG.encoder.lookahead) // SIZE) * SIZE
    ids, kinds, cond = (
        np.zeros((3, total), np.int32),
        np.full((3, total), ABSENT, np.int8),
        np.zeros((3, 2 * total, 80), np.float32),
    )
    for row, (prompt, own) in enumerate(zip(prompts, tokens, strict=True)):
        first, end = before - len(prompt.ids), before + len(own)
        ids[row, first:end], kinds[row, first:before], kinds[row, before:end] = (
            np.concatenate([prompt.ids, own]),
            PROMPT,
            SPEECH,
        )
        cond[row, 2 * first : 2 * before] = prompt.mel
    step = jax.jit(push, static_argnums=(0, 1))
    voice, state = start(
        CONFIG, plan, params, jnp.stack([prompt.speaker for prompt in prompts]), noise
    )
    out = [[], [], []]
    for at in range(0, total, SIZE):
        block = Block(
            ids[:, at : at + SIZE], kinds[:, at : at + SIZE], cond[:, 2 * at : 2 * (at + SIZE)]
        )
        state, mel, speech = step(CONFIG, plan, params, voice, state, block)
        for row in range(3):
            out[row].append(np.asarray(mel)[row][np.asarray(speech)[row]])
    for row in range(3):
        whole = one_shot(params, plan, tokens[row], prompts[row], noise[row : row + 1], length=17)
        close(
            "ragged rows equal single rows: flow stream", np.concatenate(out[row]), whole, atol=1e-4
        )


def test_the_state_does_not_grow_and_every_block_runs_the_same_program(params):
    plan = SHORT
    voice, state = start(
        CONFIG,
        plan,
        params,
        jnp.ones((1, CONFIG.speaker_dim)),
        jax.random.split(jax.random.key(0), 1),
    )
    block = Block(
        jnp.zeros((1, SIZE), jnp.int32),
        jnp.full((1, SIZE), SPEECH, jnp.int8),
        jnp.zeros((1, 2 * SIZE, 80)),
    )
    after, mel, speech = jax.eval_shape(
        lambda state: push(CONFIG, plan, params, voice, state, block), state
    )
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(after) == shapes(state)
    assert mel.shape == (1, 2 * SIZE, 80) and speech.shape == (1, 2 * SIZE)
    caches = jax.tree.leaves((state.encoder, state.estimator))
    assert state_bytes(CONFIG, plan) == sum(leaf.nbytes for leaf in caches)


def test_a_push_needs_no_second_state(params):
    """The old state's memory becomes the new one's; what else a push needs is small beside a long
    history.
    """
    plan = StreamPlan(Chunks(SIZE, left=200), steps=3)
    voice, state = start(
        CONFIG,
        plan,
        params,
        jnp.ones((1, CONFIG.speaker_dim)),
        jax.random.split(jax.random.key(0), 1),
    )
    block = Block(
        jnp.zeros((1, SIZE), jnp.int32),
        jnp.full((1, SIZE), SPEECH, jnp.int8),
        jnp.zeros((1, 2 * SIZE, 80)),
    )
    memory = (
        compiled_push(CONFIG, plan).lower(params, voice, state, block).compile().memory_analysis()
    )
    size = state_bytes(CONFIG, plan)
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < size / 2


def test_size_of_the_published_state():
    """What the module's docstring says, in MB of 10^6 bytes; nothing is allocated."""
    size = lambda left, guidance: (
        state_bytes(FlowConfig(), StreamPlan(Chunks(16, left), guidance=guidance)) / 1e6
    )
    assert 1.2 < size(0, 0.7) < 1.4
    assert 147 < size(9, 0.7) - size(8, 0.7) < 149
    assert 0.49 < size(8, 0.0) / size(8, 0.7) < 0.51


def test_bad_plans_are_named(params):
    speaker, keys = jnp.ones((1, CONFIG.speaker_dim)), jax.random.split(jax.random.key(0), 1)
    with pytest.raises(UserError, match="give its chunks a `left`"):
        start(CONFIG, StreamPlan(Chunks(16)), params, speaker, keys)
    with pytest.raises(UserError, match="chunks of 2 tokens are shorter than the 3"):
        start(CONFIG, StreamPlan(Chunks(2, left=1)), params, speaker, keys)
    with pytest.raises(UserError, match="at least 1 Euler step"):
        start(CONFIG, StreamPlan(Chunks(16, left=1), steps=0), params, speaker, keys)
    with pytest.raises(UserError, match="a noise key a row"):
        start(CONFIG, StreamPlan(), params, speaker, jax.random.key(0))
    stream = MelStream(CONFIG, SHORT, params, random_prompt(0), keys)
    with pytest.raises(UserError, match="the block has token ids"):
        stream.push(np.array([CONFIG.vocab_size]))
    assert stream.push(random_tokens(0)).shape == (0, 80) and stream.finish().shape == (0, 80)
    with pytest.raises(UserError, match="this utterance is finished"):
        stream.push(random_tokens(1))
