"""Which records a run is steered by: a validation split carved from the training records, so that
the test split is for final scores alone.

It follows from the texts: a sentence is in it in every part and in every form of the corpus
(recordings, tokens), and a record that is added moves no other.
"""

import hashlib
import re
from collections.abc import Sequence

SHARE = 1 / 40  # of the training texts
LEAST = 2  # of them, where a part has five or more; one of two
_DIGEST = 2**32
SPLITS = ("train", "val", "test")


def validation(texts: Sequence[str]) -> set[int]:
    """Numbers of those of a part's training records that are for validation, all records of a text
    alike.

    They are those whose text has a digest in the lowest `SHARE`; and of a part so small that these
    are fewer than `LEAST` texts, as many with the lowest digests as there are to be: a quarter of
    its texts, never more than half (of one text, none).
    """
    digests = [digest(text) for text in texts]
    different = sorted(set(digests))
    low, least = (
        sum(value < SHARE * _DIGEST for value in different),
        min(LEAST, -(-len(different) // 4)),
    )
    chosen = set(different[: min(max(low, least), len(different) // 2)])  # of one text, none
    return {number for number, value in enumerate(digests) if value in chosen}


def assign(texts: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The splits of a part's records with the validation ones carved out: of those that are "train"
    some become "val", the others stay what they are.
    """
    train = [number for number, split in enumerate(splits) if split == "train"]
    carved = {train[k] for k in validation([texts[number] for number in train])}
    return ["val" if number in carved else split for number, split in enumerate(splits)]


def digest(text: str) -> int:
    """What decides a text's split: below 2**32, the same for a text in any case and punctuation."""
    words = words_of(text) or (text,)
    return int.from_bytes(
        hashlib.sha256(" ".join(words).encode("utf-8", "surrogatepass")).digest()[:4], "big"
    )


def text_id(text: str) -> str:
    """What a text of the corpus is known by, in ids and lists of what is held out: 12 hex digits of
    it as it is written.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation, for counting and comparing."""
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))
