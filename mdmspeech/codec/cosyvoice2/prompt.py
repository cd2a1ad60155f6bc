"""From a recording to a voice: what CosyVoice2's flow continues when it speaks (zero-shot voice
cloning; Du et al., 2024, arXiv 2412.10117).

The recording is trimmed, brought to a level, and given 0.2 s of silence at its end, so that the
speech that follows starts behind a pause (as FunAudioLLM/CosyVoice does it). Then three extractors
hear it: S3 at 16 kHz (tokens), the 24 kHz mel, and a speaker encoder at 16 kHz.
"""

from collections.abc import Callable

import jax.numpy as jnp
import librosa
import numpy as np

from mdmspeech.audio.features import MelConfig, log_mel
from mdmspeech.audio.wave import Source, load_wave, resample
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt
from mdmspeech.codec.cosyvoice2.s3_speech import S3Tokenizer
from mdmspeech.errors import UserError

# seconds, trimmed: less tells little of a voice, S3 hears no more at once and every stream reads it
SHORTEST, LONGEST = 3.0, 30.0
_LONGEST_FILE = 300.0  # seconds
_SILENCE_DB = 40.0  # below the loudest frame
_MARGIN, _PAUSE = 0.05, 0.2  # seconds kept before and behind the speech, and of silence behind it
# RMS of the loud frames (-22 dBFS), and the most that any sample may have
_LEVEL, _PEAK = 0.08, 0.8
_FRAME = 0.025  # seconds in which loudness is measured

Embed = Callable[[np.ndarray], np.ndarray]  # wave [N] at 16 kHz -> speaker vector [E]


def prepare_voice(source: Source, tokenizer: S3Tokenizer, embed: Embed) -> Prompt:
    """A voice from a recording of one speaker, 3 to 30 s of speech.

    Args:
      source: as `audio.wave.load_wave`.
      embed: the speaker encoder, for example `codec.cosyvoice2.campplus.CamPlus`.

    Raises:
      UserError: unreadable audio, silence, or less or more speech than 3 to 30 s.
    """
    mel = MelConfig()
    wave_N = clean(load_wave(source, mel.rate, max_seconds=_LONGEST_FILE), mel.rate)
    heard_N = resample(wave_N, mel.rate, tokenizer.sample_rate)
    (ids,) = tokenizer.encode([heard_N])
    speaker_E = np.asarray(embed(heard_N), np.float32)
    if not np.isfinite(speaker_E).all():
        raise UserError(
            "the speaker encoder gives no finite vector of this recording; give "
            "another recording, or fetch the encoder again"
        )
    return Prompt(ids, np.asarray(log_mel(jnp.asarray(wave_N)[None], mel)[0]), speaker_E).trimmed()


def clean(wave_N: np.ndarray, rate: int) -> np.ndarray:
    """The speech of a recording: silence around it cut off, at a level, with a pause behind it.
    Raises UserError if it is too short or too long.
    """
    size = int(_FRAME * rate)
    _, (start, end) = librosa.effects.trim(
        wave_N, top_db=_SILENCE_DB, frame_length=2 * size, hop_length=size
    )
    margin = int(_MARGIN * rate)
    speech_N = wave_N[max(start - margin, 0) : end + margin]
    seconds = len(speech_N) / rate
    if not SHORTEST <= seconds <= LONGEST:
        cure = "record more" if seconds < SHORTEST else "cut it"
        raise UserError(
            f"the recording has {seconds:.1f} s of speech; a voice needs "
            f"{SHORTEST:g} to {LONGEST:g} s: {cure}"
        )
    frames = speech_N[: len(speech_N) // size * size].reshape(-1, size)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loud = power[power >= power.max() * 1e-3]
    gain = min(_LEVEL / np.sqrt(loud.mean()), _PEAK / np.abs(speech_N).max())
    return np.pad(speech_N * np.float32(gain), (0, int(_PAUSE * rate)))
