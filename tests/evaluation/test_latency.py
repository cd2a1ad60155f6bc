import pytest
from fakes import FakeAssistant, FakeEnd

from mdmspeech.errors import UserError
from mdmspeech.evaluation.latency import stalled, summary, timed_stream, until_first_audio


def test_a_player_stalls_when_a_piece_comes_after_the_last_one_ended():
    assert stalled([(0.3, 1.0), (0.9, 1.0), (2.0, 1.0)]) == 0.0
    assert stalled([(0.3, 0.5), (1.0, 0.5), (3.0, 0.5)]) == pytest.approx(0.2 + 1.5)


def test_stages_add_up_to_the_first_audio():
    timeline = timed_stream(FakeAssistant().stream(None))
    assert sum(until_first_audio(timeline).values()) == pytest.approx(timeline["first_audio_s"])
    split = {
        **timeline,
        "until_first_audio": {"thinker_decode": 0.05, "talker": 0.06, "codec": 0.03},
    }
    assert until_first_audio(split)["talker"] == 0.06
    assert sum(until_first_audio(split).values()) == pytest.approx(timeline["first_audio_s"])


def test_the_summary_takes_medians():
    timelines = [
        {**timed_stream(FakeAssistant().stream(None)), "first_audio_s": s} for s in (0.2, 0.3, 9.0)
    ]
    found = summary(timelines)
    assert found["first_audio_ms"] == 300
    assert found["first_audio_ms_range"] == [200, 9000]
    assert sum(found["stages_ms"].values()) == pytest.approx(300)
    assert found["real_time_factor"] == 0.25


def test_an_answer_without_speech_is_an_error():
    with pytest.raises(UserError, match="without speech"):
        timed_stream([FakeEnd(FakeAssistant()._speech(""))])
