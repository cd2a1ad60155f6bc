"""Names of voices."""

VOICE = "default"  # a release has one
# names that clients of OpenAI's server ask for when nobody has told them another
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage",
    "shimmer", "verse",
)  # fmt: skip
