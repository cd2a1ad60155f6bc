"""What `mdmspeech data --manifest` does: own recordings -> records -> speech tokens, and a report
of both.
"""

import hashlib
from typing import Any

from mdmspeech.errors import UserError

# releases: the phone classifier; the Talker that tells how long sounds last, and says the texts
ALIGNER, BASE = "aligner", "compact"
FEW_MINUTES = 5.0  # with less, a voice is hardly learnt
_SHOWN = 10  # of the recordings that were left out


def take_in(manifest: str, name: str, root: str | None, codec: str | None) -> None:
    """Does it, and prints what came of it. codec: whose tokens; None: those with which the shipped
    Talker says the texts, see `data.recordings.user`.
    """
    from mdmspeech.data.datasets.make import recordings_from_raw
    from mdmspeech.data.recordings.user import import_own
    from mdmspeech.data.storage.record_store import writable_root
    from mdmspeech.inference.paced_synthesizer import pronounce_text

    check_name(name)
    from mdmspeech.cli.release import open_codec

    folder = writable_root(root) / "raw" / name
    # a codec that is not there is told before anything is written
    opened = open_codec(codec or BASE)
    version = aligner_version()
    speaker = None if codec else make_speaker
    done = import_own(
        manifest,
        folder,
        make_aligner,
        pronounce_text,
        speaker=speaker,
        aligned_by=f"{version} {codec or ''}",
    )
    recordings_from_raw(root, name)
    tokens = _tokens(name, root, *opened)
    print(
        f"{name}: {done.recordings} recordings, {done.minutes:.1f} minutes, "
        f"{done.held_out} of them held out; {tokens} speech tokens"
    )
    if done.recordings < done.before:
        print(
            f"{name} had {done.before} recordings before, and has {done.recordings} "
            "now: it is what the manifest lists, and no more"
        )
    if done.left_out:
        print(f"{len(done.left_out)} left out (all of them: {folder / 'left_out.txt'}):")
        print("\n".join(f"  {line}" for line in done.left_out[:_SHOWN]))
    if not done.held_out or done.held_out == done.recordings:
        print(
            "none are left to train on"
            if done.held_out
            else (
                "none are held out, by which training is judged; add recordings, or "
                '"split": "test" to a line'
            )
        )
    if done.minutes < FEW_MINUTES:
        print(
            f"{done.minutes:.1f} minutes are little to learn a voice from; "
            f"{FEW_MINUTES:g} or more are better"
        )


def check_name(name: str) -> None:
    """A UserError for what cannot be the name of a part."""
    from mdmspeech.data.synthesis.build import DATASETS, PART_NAMES
    from mdmspeech.training.stages.start import RANDOM

    taken = (*PART_NAMES, DATASETS, RANDOM)  # data.parts=random is no recordings at all
    if not name.replace("-", "_").isidentifier() or name in taken:
        raise UserError(
            f"--name {name}: use letters, digits, - and _, and none of the corpus's "
            f"own names ({', '.join(taken)})"
        )


def aligner_version() -> str:
    """What `make_aligner` and `make_speaker` are known by: another one gives other results."""
    from mdmspeech.interop.release import CONFIG, find_release

    return hashlib.sha256(
        b"".join((find_release(r) / CONFIG).read_bytes() for r in (ALIGNER, BASE))
    ).hexdigest()[:12]


def make_aligner():
    """The function that aligns recordings, from shipped parts."""
    from mdmspeech.data.recordings.align import pause_symbols
    from mdmspeech.interop.release import load_part
    from mdmspeech.interop.sources import load_speech_encoder
    from mdmspeech.preprocessing import alignment
    from mdmspeech.text.pronounce import pronouncer

    encoder = load_speech_encoder()
    reader: Any = load_part(ALIGNER, "aligner")
    talker: Any = load_part(BASE, "talker")
    pauses = pause_symbols(pronouncer().symbols)
    return alignment.make_aligner(
        (encoder.config, encoder.params),
        (reader.config, reader.params),
        (talker.config, talker.params),
        pauses,
    )


def make_speaker():
    """The function that says symbols at given durations, by the shipped Talker."""
    from mdmspeech.codec.compact.bound import CompactCodec
    from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
    from mdmspeech.interop.release import load_release

    release = load_release(BASE, only=("codec", "talker"))
    codec: Any = release.part("codec")
    talker: Any = release.part("talker")
    return PacedSynthesizer(
        talker.config,
        talker.params,
        CompactCodec(codec.config, codec.params),
        silence=release.silence,
    ).tokens_at


def write_phones(root: str | None, sentences: int) -> int:
    """What the phone classifier learns from, see `preprocessing.phone_states`."""
    from mdmspeech.data.synthesis.voices.hibari import Hibari
    from mdmspeech.interop.sources import load_speech_encoder
    from mdmspeech.preprocessing import alignment, phone_states

    encoder = load_speech_encoder()
    return phone_states.write_phones(
        root, alignment.make_encoder(encoder.config, encoder.params), Hibari(), sentences
    )


def _tokens(name: str, root: str | None, opened: Any, known_as: str) -> int:
    """Makes the speech tokens, unless they are there already; returns how many there are."""
    from mdmspeech.data.datasets import corpus
    from mdmspeech.preprocessing import precompute

    if corpus.is_there(root, "tokens", name):
        known = corpus.whole(root, "tokens", name)
        spoken = corpus.whole(root, "recordings", name)
        if known.about("codec") == {known_as} and known.about("made_from") == spoken.about(
            "made_from"
        ):
            return int(known.counts("tokens").sum())
    return precompute.speech_tokens(root, opened, known_as, (name,))[name]
