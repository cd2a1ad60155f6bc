"""What is heard is counted against the words by hand, not against the program's own."""

import numpy as np

from mdmspeech.evaluation import reading
from mdmspeech.evaluation.scoring import score


class Aloud:
    """A voice and a listener in one: it says a text by a rule, and what was said is "heard" perfectly."""

    def __init__(self, read):
        self.read, self.heard = read, {}

    def say_many(self, texts, **_):
        speeches = []
        for text in texts:
            length = 1000 + len(self.heard)
            self.heard[length] = self.read(text)
            speeches.append(
                type("Said", (), {"audio": np.zeros(length, np.float32), "sample_rate": 16_000})()
            )
        return speeches

    def spoken_errors(self, waves, texts, rate, **_):
        return score(texts, [self.heard[len(wave)] for wave in waves])


def test_a_right_reading_has_no_errors_and_a_wrong_one_has():
    by_hand = {row.written: row.said for row in reading.table()}
    right, wrong = Aloud(by_hand.get), Aloud(lambda text: by_hand[text].replace("no.", "number."))
    assert reading.evaluate_reading(right, right)["wer"] == 0
    figures = reading.evaluate_reading(wrong, wrong)
    assert figures["kinds"]["abbreviations"]["wer"] > 0 == figures["kinds"]["money"]["wer"]


def test_a_wrong_reading_of_the_program_does_not_become_the_reference(monkeypatch):
    by_hand = {row.written: row.said for row in reading.table()}
    monkeypatch.setattr(reading, "normalise", lambda text: "quite another text")
    voice = Aloud(by_hand.get)
    figures = reading.evaluate_reading(voice, voice)
    assert figures["wer"] == 0 == figures["read_right"] and all(
        kind["wer"] == 0 for kind in figures["kinds"].values()
    )


def test_the_program_reads_the_table_as_by_hand():
    voice = Aloud(lambda text: "x")
    figures = reading.evaluate_reading(voice, voice, count=40)
    assert figures["count"] == figures["read_right"] == 40 and figures["wer"] > 90
    assert {"written", "wanted", "read"} == set(figures["items"][0])


def test_rows_come_with_their_characters():
    rows = {row.said: row.written for row in reading.table()}
    assert (
        rows["Milk. Eggs. Bread"] == "Milk\nEggs\nBread"
        and rows["Café au lait"] == "Cafe\u0301 au lait"
        and rows["Name, Age"] == "Name\tAge"
    )
    assert all(row.said and row.written for row in reading.table() if row.written != "=====")
