"""The timeline of an answer as text: a bar a stage, then the figures that matter."""

from collections.abc import Mapping
from typing import Any

STAGES = {
    "encoder": "speech encoder",
    "adaptor": "adaptor",
    "thinker_prefill": "Thinker, reading",
    "thinker_decode": "Thinker, writing",
    "talker": "Talker",
    "codec": "codec",
}
_BAR = 32  # characters


def render(timeline: Mapping[str, Any]) -> str:
    """A few lines; stages that are not there are left out.

    "Thinker, writing" is the time spent waiting for it: it goes on while the Talker speaks.
    """
    stages = [(title, float(timeline[key])) for key, title in STAGES.items() if key in timeline]
    longest = max((seconds for _, seconds in stages), default=0.0) or 1.0
    lines = [
        f"{title:<17}{1000 * seconds:8.0f} ms  {'#' * round(_BAR * seconds / longest)}".rstrip()
        for title, seconds in stages
    ]
    if timeline.get("first_audio_s") is not None:
        lines.append(
            f"{'first audio':<17}{1000 * timeline['first_audio_s']:8.0f} ms after "
            "the end of the question"
        )
    if timeline.get("thinker_tokens") and timeline["thinker_decode"]:
        rate = timeline["thinker_tokens"] / timeline["thinker_decode"]
        lines.append(
            f"{'Thinker':<17}{rate:8.1f} tokens a second, {timeline['thinker_tokens']} tokens"
        )
    lines.append(
        f"{'whole answer':<17}{1000 * timeline['total_s']:8.0f} ms for "
        f"{timeline['audio_s']:.2f} s of speech"
    )
    if timeline["real_time_factor"] is not None:
        lines.append(
            f"{'real-time factor':<17}{timeline['real_time_factor']:8.3f}  "
            f"({1 / timeline['real_time_factor']:.1f} times faster than speech)"
        )
    return "\n".join(lines)
