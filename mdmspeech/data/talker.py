"""Batches for the Talker: utterances joined into sequences of one fixed length, so that hardly a position is padding.

A sequence is several utterances one after another, as the sentences of a longer answer are: symbols, durations and tokens are simply joined.
Half of the sequences are cut at the full length; the others keep whole utterances and end in EOS up to the end of their block, so that the end of
speech is learnt.
"""

import grain
import numpy as np

DURATION_FRAME = 0.025  # seconds


def talker_batches(
    source, *, batch: int, length: int, symbols: int, block: int, eos: int, pad: int, token_seconds: float, seed: int, group: int = 5
):
    """Endless Grain iterator of batches: tokens int32 [B, L], valid bool [B, L], symbols int32 [B, M], symbols_valid bool [B, M], durations
    float32 [B, M] in speech tokens. `source[i]` is a record of `tokens.TokenStore`; `group` shuffled utterances fill one sequence.
    """
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    data = data.batch(group, batch_fn=list)
    data = data.random_map(lambda utterances, rng: join(utterances, rng.random() < 0.5, length, symbols, block, eos, pad, token_seconds))
    data = data.batch(batch, drop_remainder=True)
    return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2 * batch)))


def join(
    utterances: list[dict], finish: bool, length: int, symbols: int, block: int, eos: int, pad: int, token_seconds: float
) -> dict[str, np.ndarray]:
    """One sequence. `finish`: whole utterances and an end (if at least one fits); otherwise cut at `length`."""
    out = {
        "tokens": np.full(length, pad, np.int32),
        "valid": np.zeros(length, bool),
        "symbols": np.zeros(symbols, np.int32),
        "symbols_valid": np.zeros(symbols, bool),
        "durations": np.zeros(symbols, np.float32),
    }
    at = text = 0
    for utterance in utterances:
        tokens = utterance["tokens"]
        count = len(utterance["symbols"])
        if text + count > symbols or (finish and at and at + len(tokens) > length):
            finish = True
            break
        durations = utterance["frames"] * (DURATION_FRAME / token_seconds)
        durations[-1] += len(tokens) - durations.sum()  # a recording lasts whole tokens: its last silence takes the rest
        take = min(len(tokens), length - at)
        out["tokens"][at : at + take] = tokens[:take]
        out["symbols"][text : text + count] = utterance["symbols"]
        out["durations"][text : text + count] = durations
        at, text = at + take, text + count
        if at == length:
            break
    end = min(-(-at // block) * block, length)
    out["tokens"][at:end] = eos
    out["valid"][:end] = True
    out["symbols_valid"][:text] = True
    return out
