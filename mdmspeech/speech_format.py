"""What speech looks like everywhere in the house: token ids, rates, times, and the sentinels of the
anchors. Numbers only; every room may import it.

16 kHz wave heard -> 100 log-mel frames a second -> 50 encoder states a second -> 10 speech vectors
a second for the Thinker text -> 25 speech tokens a second -> 24 kHz wave spoken
"""

# Speech tokens: the codes of finite scalar quantisation (`codec.fsq`; the vocabulary of S3-v2),
# then five ids with a meaning of their own.
LEVELS, DIGITS = 3, 8
CODES = LEVELS**DIGITS  # 6561
BOS, SOS, EOS, PAD, MASK = (
    6561,
    6562,
    6563,
    6564,
    6565,
)  # begins, text comes first, ends, fills what nobody reads, hides what is to be found
VOCAB = 6566

TOKEN_RATE = 25  # speech tokens a second
TOKEN_SECONDS = 1 / TOKEN_RATE

# Samples.
INPUT_RATE = 16_000  # Hz, of speech that is heard: Whisper, the S3 tokenizer, recognisers
OUTPUT_RATE = 24_000  # Hz, of speech that is spoken: the codecs, and recordings they learn from

# Whisper's features (Radford et al., 2022, arXiv 2212.04356), which the S3 tokenizer takes over.
WHISPER_FFT, WHISPER_HOP = 400, 160  # samples
WHISPER_SECONDS = 30  # the most that is heard at once
FRAME_RATE = INPUT_RATE // WHISPER_HOP  # 100 log-mel frames a second
STATE_SECONDS = 0.02  # of an encoder state: two frames
FRAMES_PER_VECTOR = 10  # of a speech vector that the Thinker reads: five states

# The corpus.
DURATION_SECONDS = 0.025  # of the unit in which a record's `frames` tell how long its symbols last
F0_RATE = 100  # values a second of a record's `f0`
F0_SECONDS = 1 / F0_RATE

# Besides text positions, in an anchor index:
# a position without anchor, and an anchor after the end of the text.
NO_ANCHOR, NULL_ANCHOR = -1, -2
ANCHORS_PER_BLOCK = 4
START = -1  # besides text ids, in a prefix: what stands before the text
