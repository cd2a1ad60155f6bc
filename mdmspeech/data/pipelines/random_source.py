"""Records out of thin air, with the lengths of real ones: for a first try of an experiment without
a corpus, for tests, and for measuring input pipelines.

They are the same kinds of records as the corpus has: `RandomSpeech` gives what
  `datasets.corpus.tokens` gives (for the Talker), `RandomQuestions` what
`datasets.corpus.questions` gives (for the Thinker), `RandomRecordings` what `corpus.speech` gives (for the
codec), `RandomStates` what `corpus.states` gives (for the adaptors),
`RandomSpeechStates` what `speech_states.SpeechStates` gives (for the codec). Everything follows
from (seed, number of the record). Lengths: a text has a log-normal number of words; words, sounds
and their durations make the rest.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mdmspeech.speech_format import (
    CODES,
    DURATION_SECONDS,
    F0_RATE,
    INPUT_RATE,
    OUTPUT_RATE,
    STATE_SECONDS,
    TOKEN_SECONDS,
)
from mdmspeech.text.tokenizer import ChatTokenizer

_WORDS = (
    "a all and are as at be but by can child city come day door eat every far find fish for friend "
    "from garden give go good green had has have he help her here him his home house how in into "
    "is it kitchen know large light little long made make many moon morning mountain music my name "
    "never new night not of old on one open our out people place quiet rain river road said school "
    "see she ship silver small some story street summer sun table tell that the their them then "
    "there these they thing this three time to tomorrow town tree two under up very walk warm was "
    "water way we were what when where which white who why wind window winter with wonderful word "
    "world write year yesterday you young your"
)
WORDS = tuple(_WORDS.split(" "))
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer() -> ChatTokenizer:
    """A chat tokenizer of 259 ids, one a byte, for experiments without a language model's files."""
    names = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in _SPECIAL])
    return ChatTokenizer(tokenizer, CHAT_TEMPLATE, [0, 2])


class RandomSpeech:
    """`source[i]` -> {id, tokens int32 [L], symbols int32 [M], frames int32 [M], text, question}:
    random tokens, one symbol a letter.

    words: median number of a text's words; symbols: ids are below it, 0 is the boundary;
      token_seconds: of the codec that might have made the tokens.
    """

    def __init__(
        self,
        count: int = 2000,
        seed: int = 0,
        *,
        words: float = 6.5,
        symbols: int = 180,
        token_seconds: float = TOKEN_SECONDS,
    ):
        self._count, self._seed, self._words, self._symbols, self._token_seconds = (
            count,
            seed,
            words,
            symbols,
            token_seconds,
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> dict:
        rng = np.random.default_rng((self._seed, int(i), 0))
        question, text = random_text(rng, 6.5) + "?", random_text(rng, self._words) + "."
        letters = np.frombuffer(text.encode(), np.uint8).astype(np.int32) % (self._symbols - 1) + 1
        symbols = np.concatenate([[0], letters, [0]]).astype(np.int32)
        frames = np.concatenate([[10], 1 + rng.poisson(1.6, len(letters)), [8]]).astype(np.int32)
        tokens = int(np.ceil(frames.sum() * DURATION_SECONDS / self._token_seconds))
        return {
            "id": f"random-{i}",
            "tokens": rng.integers(0, CODES, tokens).astype(np.int32),
            "symbols": symbols,
            "frames": frames,
            "text": text,
            "question": question,
        }

    def fields(self, i: int) -> dict[str, str]:
        """{id, text, question} of record i."""
        record = self[i]
        return {name: record[name] for name in ("id", "text", "question")}

    def counts(self, field: str) -> np.ndarray:
        """How many `tokens` or `symbols` each record has, int64 [N]."""
        return self._lengths[field]

    @functools.cached_property
    def _lengths(self) -> dict[str, np.ndarray]:
        records = [self[i] for i in range(self._count)]
        return {
            field: np.array([len(record[field]) for record in records], np.int64)
            for field in ("tokens", "symbols")
        }


class RandomQuestions:
    """`source[i]` -> {id, text, answer, rate, samples, audio int16 at 16 kHz}: noise with the rhythm
    of syllables. `fields` leaves the audio out.
    """

    def __init__(
        self, count: int = 2000, seed: int = 0, *, words: float = 6.5, answer_words: float = 6.5
    ):
        self._count, self._seed, self._words, self._answer_words = count, seed, words, answer_words
        rng = np.random.default_rng((seed, 1))
        times = np.arange(30 * INPUT_RATE) / INPUT_RATE
        syllables = np.clip(np.sin(2 * np.pi * 4.0 * times), 0.02, None)  # four a second
        self._noise = (3000 * syllables * rng.standard_normal(len(times))).astype(np.int16)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> dict:
        fields = self.fields(i)
        first = np.random.default_rng((self._seed, int(i), 3)).integers(0, len(self._noise))
        return {
            **fields,
            "audio": np.take(self._noise, np.arange(first, first + fields["samples"]), mode="wrap"),
        }

    def fields(self, i: int) -> dict:
        """The record without its audio."""
        rng = np.random.default_rng((self._seed, int(i), 2))
        text, answer = (
            random_text(rng, self._words) + "?",
            random_text(rng, self._answer_words) + ".",
        )
        seconds = min(0.45 + len(text) * rng.uniform(0.055, 0.075), 30.0)
        samples = int(seconds * INPUT_RATE)
        return {
            "id": f"random-{i}",
            "text": text,
            "answer": answer,
            "rate": INPUT_RATE,
            "samples": samples,
        }


class RandomRecordings:
    """`source[i]` -> {id, audio int16 at 24 kHz, symbols, frames, f0 float32 at 100 Hz}: each symbol a
    hum of its own loudness, with its true durations.
    """

    def __init__(self, count: int = 64, seed: int = 0, *, symbols: int = 128):
        self._speech, self._seed = RandomSpeech(count, seed, symbols=symbols), seed

    def __len__(self) -> int:
        return len(self._speech)

    def __getitem__(self, i: int) -> dict:
        record, rng = self._speech[i], np.random.default_rng((self._seed, int(i), 4))
        frames = record["frames"]
        loudness = np.repeat(
            rng.uniform(0.0, 0.3, len(frames)), frames * int(DURATION_SECONDS * OUTPUT_RATE)
        )
        f0 = rng.uniform(90.0, 220.0)
        hum = np.sin(2 * np.pi * f0 * np.arange(len(loudness)) / OUTPUT_RATE)
        audio = np.round(32767 * loudness * hum).astype(np.int16)
        pitch = np.full(-(-len(audio) * F0_RATE // OUTPUT_RATE), f0, np.float32)
        return {
            "id": record["id"],
            "audio": audio,
            "symbols": record["symbols"],
            "frames": frames,
            "f0": pitch,
        }

    def fields(self, i: int) -> dict[str, str]:
        """{id} of record i."""
        return {"id": self._speech.fields(i)["id"]}


class RandomStates:
    """As `datasets.corpus.states`: `source[i]` -> {id, text, answer, states float16 [T, width]}, and
    `counts("states")`.
    """

    def __init__(self, width: int, count: int = 64, seed: int = 0):
        self._width, self._seed = width, seed
        rng = np.random.default_rng((seed, 5))
        texts = [random_text(rng, 5.0) for _ in range(count)]
        self._records: list[dict[str, Any]] = [
            {"id": f"random-{i}", "text": text, "answer": "", "states": 25 + 3 * len(text)}
            for i, text in enumerate(texts)
        ]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict:
        record = self._records[i]
        states = np.random.default_rng((self._seed, int(i), 6)).standard_normal(
            (record["states"], self._width)
        )
        return {**record, "states": states.astype(np.float16)}

    def counts(self, column: str) -> np.ndarray:
        """int64 [N]: how many states each has."""
        return np.array([record[column] for record in self._records], np.int64)


class RandomSpeechStates:
    """As `datasets.speech_states.SpeechStates`: every record of `RandomRecordings` has white states, two a token
    of its speech.
    """

    def __init__(self, width: int, seed: int = 0):
        self.width, self._seed = width, seed

    def __contains__(self, record: dict) -> bool:
        return record["id"].startswith("random-")

    def find(self, record: dict) -> np.ndarray:
        """float16 [T, width]"""
        number = int(record["id"].rsplit("-", 1)[-1])
        count = -(-len(record["audio"]) // round(OUTPUT_RATE * STATE_SECONDS))
        rng = np.random.default_rng((self._seed, number, 7))
        return rng.standard_normal((count, self.width)).astype(np.float16)


class RandomThinkerStates:
    """`source[i]` -> {id, text, states float16 [n, width]} of the records of `records`, n ids of each
    answer (its end included) by `count`.
    """

    def __init__(self, records, width: int, count: Callable[[str], int], seed: int = 0):
        self._records, self._width, self._count, self._seed = records, width, count, seed

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict:
        fields = self._records.fields(i)
        rng = np.random.default_rng((self._seed, int(i), 8))
        states = rng.standard_normal((self._count(fields["text"]), self._width)).astype(np.float16)
        return {"id": fields["id"], "text": fields["text"], "states": states}


def random_text(rng: np.random.Generator, words: float) -> str:
    """Some words, `words` in the median; the spread is that of our corpus."""
    count = max(1, round(words * np.exp(rng.normal(0.0, 0.33))))
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), count)).capitalize()


def random_chats(seed: int = 0, count: int = 200) -> list[dict[str, Any]]:
    """Conversations of one to three turns of random words, as `data.texts.chats` gives them."""
    rng = np.random.default_rng((seed, 7))
    say = lambda: " ".join(rng.choice(WORDS, int(rng.integers(1, 6)))) + "."
    return [
        {
            "id": f"random-{n}",
            "family": "random",
            "turns": [(say(), say()) for _ in range(int(rng.integers(1, 4)))],
        }
        for n in range(count)
    ]
