"""After a whole warm-up nothing is compiled any more, whatever is said, asked or heard."""

import numpy as np
import pytest
import small_speech

from mdmspeech.inference import conditioning, engine, paced_synthesizer, prefix_synthesizer
from mdmspeech.inference import conversation as talking
from mdmspeech.inference import speech_frontend as hearing
from mdmspeech.inference import thinker_runner as thinking
from mdmspeech.inference.conversation import Conversation
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.prefix_synthesizer import PrefixSynthesizer


@pytest.fixture
def few(monkeypatch):
    """Few sizes of everything."""
    monkeypatch.setattr(engine, "ROWS", (1, 2))
    monkeypatch.setattr(engine, "BLOCKS", (2, 4))
    for module in (conditioning, paced_synthesizer):
        monkeypatch.setattr(module, "SYMBOLS", (8, 24))
    for module in (conditioning, prefix_synthesizer):
        monkeypatch.setattr(module, "TEXTS", (4, 8))
    monkeypatch.setattr(conditioning.PrefixReader, "longest", 7)
    monkeypatch.setattr(thinking, "PROMPTS", (16, 24, 32, 64))
    monkeypatch.setattr(hearing, "SECONDS", (1, 2))


@pytest.mark.slow
def test_nothing_is_compiled_while_people_talk(few, compiled, codec):
    voice = PacedSynthesizer(
        small_speech.TALKER, small_speech.talker_params(), codec, pronounce=small_speech.spell
    )
    voice.warm_up(all=True)
    compiled.clear()
    for text in ("no", "a red apple is here", "yes it is"):
        stream = voice.stream(steps=3, seed=5, temperature=0.5)
        stream.end(text)
        while not stream.done:
            stream.step()
    texts = []
    for symbols in ([0, 3, 4, 0], [0, *range(1, 20), 0]):
        text = conditioning.PacedText(voice.reader, voice.block)
        text.extend(symbols, closed=True)
        texts.append(text.inputs)
    for count in (1, 2):
        rows = [voice.engine.open(steps=2, target_len=60) for _ in range(count)]
        for blocks in (1, 1, 2):
            voice.engine.advance(rows, texts[:count], blocks)
    assert compiled == []


@pytest.mark.slow
def test_nothing_is_compiled_while_a_text_prefix_is_read_and_spoken(few, compiled, codec):
    params = small_speech.ending_params(small_speech.PREFIX, likely=12)
    tokenizer = small_speech.text_tokenizer()
    voice = PrefixSynthesizer(small_speech.PREFIX, params, codec, tokenizer)
    voice.warm_up(all=True)
    compiled.clear()
    # of one id, of as many as there may be, and of more
    for text in ("No", "Yes it is", "It is a red apple and a good answer. And very good is it"):
        stream = voice.stream(steps=3, seed=5, temperature=0.5)
        for word in text.split():
            stream.feed(word + " ")
            while stream.ready():
                stream.step()
        stream.end()
        while not stream.done:
            stream.step()
    assert len(stream._spoken) > 2
    voice.engine.decode([text.inputs for text in voice.heard(voice.plan(text).segments[:2], None)])
    assert compiled == []


def test_nothing_is_compiled_while_it_thinks(few, compiled):
    runner = small_speech.thinker()
    runner.warm_up(all=True)
    compiled.clear()
    for words in (1, 3, 7, 12):
        question = runner.question(" ".join(["apple"] * words))
        assert len(list(runner.answer(runner.read([question])))) > 0
    assert compiled == []


def test_nothing_is_compiled_in_a_conversation_with_a_history(few, compiled, monkeypatch):
    """Which a server is sent with the question, and instructions of its own."""
    monkeypatch.setattr(talking, "PROMPTS", (16, 24, 32, 64))
    runner = small_speech.thinker()
    Conversation(runner, 192).warm_up(all=True)
    compiled.clear()
    for turns, instructions in ((0, None), (1, None), (0, "be very kind"), (3, "be " * 40)):
        talk = Conversation(runner, 192)
        for _ in range(turns):
            talk.insert("yes it is", "what is it and is a red apple good ?")
        list(talk.ask("and is it ?", instructions=instructions))
        assert not talk.dropped
    assert compiled == []


def test_nothing_is_compiled_while_it_listens(few, compiled):
    frontend = hearing.ctc_frontend(
        small_speech.ENCODER, small_speech.encoder_params(), *small_speech.spelling()
    )
    frontend.warm_up(None)
    compiled.clear()
    for seconds in (0.4, 1.0, 1.7):
        frontend.encode(small_speech.question(seconds))
    assert compiled == []


def test_parts_are_opened_once_by_whichever_thread_comes_first():
    from concurrent.futures import ThreadPoolExecutor
    from time import sleep

    from mdmspeech.inference.factory import _once

    made = []
    once = _once(lambda: sleep(0.02) or made.append(1) or object())
    with ThreadPoolExecutor(8) as pool:
        assert len({id(done) for done in pool.map(lambda _: once(), range(8))}) == 1 == len(made)


def test_an_error_of_a_part_is_told(assistant, monkeypatch):
    def fail(**_):
        raise ValueError("no such weights")

    monkeypatch.setattr(assistant.thinker, "warm_up", fail)
    monkeypatch.setattr(assistant.frontend, "warm_up", lambda seconds: np.zeros(0))
    with pytest.raises(ValueError, match="no such weights"):
        assistant.warm_up()


def test_nothing_is_compiled_while_an_answer_is_drafted(few, compiled):
    """Also in a conversation."""
    runner = small_speech.thinker()
    talk = Conversation(runner, 256)
    runner.warm_up()
    talk.warm_up()
    compiled.clear()
    for question in ("what is it ?", "a red apple is a very good answer to it . is it ?"):
        asked = runner.tokenizer.encode(question)
        # whatever is written, a draft stands behind it
        context = [n for word in range(30) for n in (word, *asked[:3])]
        list(runner.answer(runner.read([runner.question(question)]), context=context))
        list(talk.ask(question))
        talk.settle("yes it is")
    assert compiled == []
