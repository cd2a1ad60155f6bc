"""Packed batches of both stages: every record is in its segment as it is alone, segments do not
overlap, anchors and vectors point where they should.
"""

import collections

import numpy as np
import pytest

from mdmspeech.audio.features import whisper_log_mel
from mdmspeech.audio.host_features import log_mel
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.data.pipelines.random_source import RandomQuestions, RandomSpeech, byte_tokenizer
from mdmspeech.data.pipelines.talker_packed import (
    FixedText,
    PacedText,
    anchor_index,
    packed_talker_batches,
)
from mdmspeech.data.pipelines.thinker_packed import GAP, TAIL, lm_batches
from mdmspeech.errors import UserError
from mdmspeech.models import anchors, speech_encoder
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.speech_format import FRAMES_PER_VECTOR, NO_ANCHOR, NULL_ANCHOR
from mdmspeech.text import prompts
from mdmspeech.text.tokenizer import SPEECH, end_of_turn

EOS, PAD, BLOCK = 6563, 6564, 16
SPEECHES, QUESTIONS = RandomSpeech(60), RandomQuestions(40)
TOKENIZER = byte_tokenizer()
CHAT = Conversations(TOKENIZER, prompts.Prompt("Be brief."))


def talker(kind, **changes):
    settings = {
        "batch": 4,
        "length": 256,
        "block": BLOCK,
        "eos": EOS,
        "pad": PAD,
        "seed": 1,
        **changes,
    }
    return packed_talker_batches({"random": SPEECHES}, kind, **settings)


def segments(batch, name="segment"):
    """(row, segment number, slice of its positions) of every segment, which must be contiguous and
    counted from 1.
    """
    for b, row in enumerate(batch[name]):
        for segment in range(1, row.max() + 1):
            at = np.flatnonzero(row == segment)
            assert len(at) and (np.diff(at) == 1).all()
            yield b, segment, slice(int(at[0]), int(at[-1]) + 1)


def record_of(source, batch, row, segment):
    return source[int(batch["id"][row].split(",")[segment - 1].removeprefix("random-"))]


def test_talker_rows_hold_whole_utterances_from_block_to_block():
    batches = talker(PacedText(224, 0.04))
    for _ in range(5):
        batch = next(batches)
        for b, segment, place in segments(batch):
            record = record_of(SPEECHES, batch, b, segment)
            count = len(record["tokens"])
            assert (
                place.start % BLOCK == 0
                and place.stop - place.start == (count // BLOCK + 1) * BLOCK
            )
            assert (batch["tokens"][b, place][:count] == record["tokens"]).all() and (
                batch["tokens"][b, place][count:] == EOS
            ).all()
            assert (batch["position"][b, place] == np.arange(place.stop - place.start)).all()
        padding = batch["segment"] == 0
        assert (batch["tokens"][padding] == PAD).all() and not batch["position"][padding].any()
        assert all((np.sort(row > 0)[::-1] == (row > 0)).all() for row in batch["segment"]), (
            "padding is at the end"
        )


def test_paced_anchors_of_each_utterance_last_as_long_as_it():
    batch = next(talker(PacedText(224, 0.04)))
    found = list(segments(batch, "symbols_segment"))
    assert [(b, s) for b, s, _ in found] == [(b, s) for b, s, _ in segments(batch)]
    for b, segment, place in found:
        record = record_of(SPEECHES, batch, b, segment)
        assert (batch["symbols"][b, place] == record["symbols"]).all()
        assert batch["durations"][b, place].sum() == pytest.approx(len(record["tokens"]), abs=1e-3)
        assert (batch["durations"][b, place] > 0).all()
    assert not batch["durations"][batch["symbols_segment"] == 0].any()


def test_fixed_anchors_are_the_answers_ids_in_order():
    batch = next(talker(FixedText(640, CHAT, BLOCK)))
    texts = {(b, s): place for b, s, place in segments(batch, "text_segment")}
    for b, segment, place in segments(batch):
        record, text = record_of(SPEECHES, batch, b, segment), texts[b, segment]
        ids = batch["text"][b, text]
        assert (batch["text_position"][b, text] == np.arange(len(ids))).all()
        prompt = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": record["question"]},
        ]
        assert ids.tolist() == [
            *TOKENIZER.chat_prompt(prompt),
            *TOKENIZER.encode(record["text"]),
            CHAT.end,
        ]
        anchor = batch["anchor"][b, place]
        assert (anchor.reshape(-1, BLOCK)[:, 4:] == NO_ANCHOR).all()
        heard = anchor.reshape(-1, BLOCK)[:, :4].ravel()
        assert (
            batch["text"][b, heard[heard >= 0]]
            == [*TOKENIZER.encode(record["text"]), CHAT.end][: len(heard)]
        ).all()
        assert (heard[len(record["text"]) + 1 :] == NULL_ANCHOR).all()
    assert (batch["anchor"][batch["segment"] == 0] == NO_ANCHOR).all()


@pytest.mark.parametrize(
    ("tokens", "text", "block", "per_block"), [(48, 7, 16, 4), (32, 20, 16, 4), (24, 3, 8, 2)]
)
def test_anchor_index_is_the_rule_of_the_model(tokens, text, block, per_block):
    rule = np.asarray(
        anchors.anchor_index(np.array([text]), np.arange(tokens)[None], block, per_block)
    )[0]
    ours = anchor_index(tokens, 100, 100 + text, block, per_block)
    assert (np.where(ours >= 0, ours - 100, ours) == rule).all()


def test_what_a_talker_record_needs_is_named():
    plain = [
        {
            "id": "r7",
            "tokens": np.arange(5),
            "symbols": np.zeros(0, int),
            "frames": np.zeros(0, int),
            "text": "",
        }
    ]
    settings = {"batch": 1, "length": 64, "block": BLOCK, "eos": EOS, "pad": PAD, "seed": 1}
    with pytest.raises(UserError, match="'r7' has no symbols"):
        packed_talker_batches({"own": plain}, PacedText(64, 0.04), **settings)
    with pytest.raises(UserError, match="'r7' has no text"):
        packed_talker_batches({"own": plain}, FixedText(64, CHAT, BLOCK), **settings)
    with pytest.raises(UserError, match="whole blocks of 16"):
        talker(PacedText(64, 0.04), length=60)


def test_more_text_than_anchors_is_told(capsys):
    next(talker(FixedText(640, CHAT, BLOCK)))
    assert "have more text than anchors" in capsys.readouterr().err, (
        "one id a byte is too many for 4 anchors a block"
    )


def stage_one(**changes):
    settings = {"batch": 2, "frames": 1600, "length": 512, "num_mels": 80, "seed": 2, **changes}
    return lm_batches({"random": QUESTIONS}, CHAT, **settings)


def test_features_are_those_of_the_utterance_alone():
    assert TAIL == speech_encoder.TAIL
    batch = next(stage_one())
    for b, segment, place in segments(batch, "mel_segment"):
        wave = record_of(QUESTIONS, batch, b, segment)["audio"].astype(np.float32) / 32768
        count = -(-(len(wave) + 16_000) // 160)
        # more silence changes no frame, and one length compiles once
        padded = np.pad(wave, (0, 10 * 16_000 - len(wave)))
        alone = np.asarray(whisper_log_mel(padded[None]))[0, :count]
        assert place.start % FRAMES_PER_VECTOR == 0 and count == place.stop - place.start
        # float16
        np.testing.assert_allclose(batch["mel"][b, place].astype(np.float32), alone, atol=2e-3)
        assert (batch["mel_position"][b, place] == np.arange(count)).all()
        assert not batch["mel_segment"][b, place.stop : place.stop + GAP].any()
    assert not batch["mel"][batch["mel_segment"] == 0].any()
    assert batch["mel"].dtype == np.float16 and batch["mel"].shape == (2, 1600, 80)


@pytest.mark.parametrize(
    ("samples", "num_mels", "tail"), [(4321, 80, 1.0), (16_000, 128, 0.0), (201, 80, 0.5)]
)
def test_log_mel_in_numpy_is_the_one_in_jax(samples, num_mels, tail):
    wave = (3000 * np.random.default_rng(0).standard_normal(samples)).astype(np.int16)
    ours = log_mel(wave, num_mels, tail)
    padded = np.pad(wave.astype(np.float32) / 32768, (0, 160 * len(ours) - samples))
    np.testing.assert_allclose(
        ours, np.asarray(whisper_log_mel(padded[None], num_mels))[0], atol=2e-4
    )
    with pytest.raises(UserError, match="too short"):
        log_mel(wave[:150], num_mels)


def test_conversations_have_the_speech_in_its_place_and_supervise_the_answer():
    batch, adaptor = next(stage_one()), StackAdaptor(8)
    heard = {(b, s): place for b, s, place in segments(batch, "mel_segment")}
    for b, segment, place in segments(batch):
        record, mel = record_of(QUESTIONS, batch, b, segment), heard[b, segment]
        before, after = TOKENIZER.speech_prompt(
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SPEECH}]
        )
        vectors = adaptor.num_vectors(-(-(mel.stop - mel.start) // 2))
        answer = TOKENIZER.encode(record["answer"])
        speech = batch["speech"][b, place]
        expected = np.arange(mel.start // 10, mel.start // 10 + vectors)
        assert speech.tolist() == [-1] * len(before) + expected.tolist() + [-1] * (
            len(after) + len(answer)
        )
        assert batch["ids"][b, place].tolist() == [*before, *[0] * vectors, *after, *answer]
        assert (batch["position"][b, place] == np.arange(place.stop - place.start)).all()
        learnt = batch["weight"][b, place] == 1
        assert batch["target"][b, place][learnt].tolist() == [*answer, CHAT.end]
        assert learnt.tolist() == [False] * (len(learnt) - len(answer) - 1) + [True] * (
            len(answer) + 1
        )
        assert (batch["ids"][b, place][learnt][1:] == answer).all(), (
            "each id is read where the next is predicted"
        )
    assert list(heard) == [(b, s) for b, s, _ in segments(batch)]
    assert not batch["weight"][batch["segment"] == 0].any()


def test_little_of_a_stage_one_row_is_padding():
    batches = lm_batches(
        {"random": RandomQuestions(600)},
        CHAT,
        batch=8,
        frames=3000,
        length=1536,
        num_mels=80,
        seed=0,
    )
    assert (
        batches.statistics().padding["frames"] < 0.03 < 0.15 < batches.statistics().naive["frames"]
    )


def test_augmentation_follows_the_position_not_the_host():
    whole = stage_one(augmented=1.0)
    first, second = next(whole), next(whole)
    assert (first["mel"] != next(stage_one())["mel"]).any()
    state = stage_one(augmented=1.0)
    next(state)
    resumed = [stage_one(augmented=1.0, shard=(h, 2)) for h in range(2)]
    for host in resumed:
        host.set_state(state.get_state())
    shares = [next(host) for host in resumed]
    for name, value in second.items():
        assert (np.concatenate([share[name] for share in shares]) == value).all(), name


def test_what_stage_one_needs_is_named():
    class Own(RandomQuestions):
        def fields(self, i):
            return {**super().fields(i), **self.change}

    own = Own(3)
    for change, message in [
        ({"answer": ""}, "no answer"),
        ({"rate": 8000}, "8000 Hz"),
        ({"samples": 31 * 16_000}, "no usable record"),
    ]:
        own.change = change
        with pytest.raises(UserError, match=message):
            lm_batches({"own": own}, CHAT, batch=1, frames=3200, length=600, num_mels=80, seed=0)
    with pytest.raises(UserError, match="whole vectors"):
        stage_one(frames=1605)


def test_the_longest_question_is_heard_with_the_tail_there_is_room_for():
    class Long(RandomQuestions):
        def fields(self, i):
            return {**super().fields(i), "samples": int(29.5 * 16_000)}

    batch = next(
        lm_batches({"long": Long(2)}, CHAT, batch=1, frames=3010, length=600, num_mels=80, seed=0)
    )
    assert (batch["mel_segment"] == 1).sum() == 3000


def test_the_end_of_a_turn_comes_from_the_template():
    assert TOKENIZER.decode([end_of_turn(TOKENIZER)]) == "" and end_of_turn(TOKENIZER) == 2
    assert CHAT.question("", "Yes.").tolist() == TOKENIZER.encode(prompts.REPEAT.format("Yes."))

    class Other:
        stop_ids = (7,)
        speech_prompt = TOKENIZER.speech_prompt

    with pytest.raises(UserError, match="stop ids"):
        end_of_turn(Other())


@pytest.mark.slow
def test_a_record_is_augmented_anew_in_every_pass():
    def heard(augmented, count):
        batches = lm_batches(
            {"few": RandomQuestions(4)},
            CHAT,
            batch=2,
            frames=1600,
            length=512,
            num_mels=80,
            seed=2,
            augmented=augmented,
        )
        found = collections.defaultdict(list)
        for batch in (next(batches) for _ in range(count)):
            for row, names in enumerate(batch["id"]):
                for segment, name in enumerate(str(names).split(","), start=1):
                    found[name].append(
                        batch["mel"][row][batch["mel_segment"][row] == segment].tobytes()
                    )
        return found

    clean, often = heard(0.0, 4), heard(0.5, 10)
    assert all(len(set(mels)) == 1 for mels in clean.values())
    changed = {name: [mel for mel in mels if mel != clean[name][0]] for name, mels in often.items()}
    assert all(len(set(mels)) == len(mels) > 1 for mels in changed.values())
    assert 0.35 < sum(map(len, changed.values())) / sum(map(len, often.values())) < 0.65
