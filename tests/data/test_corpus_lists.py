"""The lists of corpora as they come: marks, line ends, quotes; JSON lists; manifests."""

import json

import pytest
from corpora import encoded, put, read

from mdmspeech.data.importers import BadItem, open_corpus, tables
from mdmspeech.data.recordings.manifests import read_manifest
from mdmspeech.data.storage.json_lines import BadRecord

WRITTEN = [  # a list of LJSpeech's layout as bytes, and the texts that are in it
    (b"a|x|One.\r\nb|x|Two.\r\n", ["One.", "Two."]),
    (b"\xef\xbb\xbfa|x|One.\nb|x|Two.", ["One.", "Two."]),
    (b"a|x|One.\rb|x|Two.\r", ["One.", "Two."]),
    (b"a|One.\n\n  \nb|Two.|\n", ["One.", "Two."]),
    (b'a|x|"One."\nb|x|"Yes," he said, "no"\n', ['"One."', '"Yes," he said, "no"']),
    (b'a|x|"One | two"\nb|x|"He said ""no"", then."\n', ["One | two", 'He said "no", then.']),
    (b'a|x|"One\nb|x|2"" wide\n', ['"One', '2"" wide']),
    (b"a | x | One. \nwavs/b|x|Two.\n", ["One.", "Two."]),
    (b"a.wav|x|One.\nb|x|One\\|two\n", ["One.", "One|two"]),
    ("a|x|Caf\u00e9 \u2028 x\nb|x|Z\u0308\n".encode(), ["Caf\u00e9 \u2028 x", "Z\u0308"]),
]


@pytest.mark.parametrize(("data", "texts"), WRITTEN, ids=range(len(WRITTEN)))
def test_marks_line_ends_and_quotes_of_a_list(data, texts, tmp_path):
    for name in "ab":
        put(tmp_path, f"wavs/{name}.wav", encoded(0))
    put(tmp_path, "metadata.csv", data)
    good, bad = read(tmp_path)
    assert not bad and [item.text for item in good] == texts
    assert [item.id for item in good] == ["a", "b"]


LISTS = [  # a JSON list as bytes, the ids in it, the words of what is wrong
    (b'[{"id": 1}, {"id": 2}]', [1, 2], []),
    (b'\xef\xbb\xbf [\r\n{"id": 1},\n\n{"id": 2}\n]\r\n', [1, 2], []),
    (b'[{"id": 1}, {"id": 2}', [1, 2], ["not JSON from character 22 of the file on"]),
    (b'[{"id": 1}, {"id" 2}, {"id": 3}]', [1], ["not JSON from character 13"]),
    (b'[{"id": 1}]\n{"id": 2}\n', [1], ["not JSON from character 12"]),
    (b'[{"id": 1}, 5, null, [2], {"id": 3}]', [1, 3], ["but a int", "but null", "but a list"]),
    (b'[{"id": 1}, {"x": "\\ud800"}, {"id": 3}]', [1, 3], ["half a character"]),
    (b'[{"id": 1, "x": "\xe9"}, {"id": 3}]', [3], ["half a character"]),
    (b'[{"id": "\xc3\xa9' + b"\xc3\xa9" * 70_000 + b'"}, {"id": 3}]', ["é" * 70_001, 3], []),
    (b"[]", [], []),
]


@pytest.mark.parametrize(("data", "ids", "wrong"), LISTS, ids=range(len(LISTS)))
def test_a_json_list_is_read_item_by_item(data, ids, wrong, tmp_path):
    path = put(tmp_path, "x.json", data)
    found = [value for _, value in tables.read_objects(str(path))]
    assert [value["id"] for value in found if isinstance(value, dict)] == ids
    bad = [str(value) for value in found if isinstance(value, BadRecord)]
    assert len(bad) == len(wrong)
    assert all(words in problem for words, problem in zip(wrong, bad, strict=True)), bad


HOSTILE = [
    '{"audio": "a.wav", "text": "half \\ud800 a sign"}',
    '{"audio": "a\\u0000.wav", "text": "Good."}',
    '{"audio": "a.wav", "text": "Good.", "id": ' + "7" * 5000 + "}",
    '{"audio": "a.wav", "text": "Good.", "id": ["a"]}',
    '{"audio": "a.wav", "text": "Good.", "id": ""}',
    '{"audio": "a.wav", "text": "Good.", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"audio": "a.wav", "text": "Good.", "symbols": [1.5], "frames": [1]}',
    '{"audio": "a.wav", "text": "Good.", "symbols": [1, 2], "frames": [1]}',
    '{"audio": "a.wav", "text": "Good.", "f0": [1e999]}',
    '{"audio": 5, "text": "Good."}',
    '{"audio": "a.wav"}',
    "# a comment",
    "[1, 2]",
    "null",
    '{"audio": "a.wav", "text": "Good."',
    b"\xff\xfe\x00\x01",
    '{"audio": "a.wav", "text": "' + "la " * 2000 + '"}',
]


@pytest.mark.parametrize("listed", [False, True])
def test_a_manifest_is_judged_as_by_the_reader_of_own_recordings(listed, tmp_path):
    """Line by line the same reasons, whether its lines are streamed or read at once."""
    put(tmp_path, "a.wav", encoded(0))
    good = '{"audio": "a.wav", "text": "Good."}'
    if listed:
        rows = [row for row in HOSTILE if isinstance(row, str) and _is_json(row)]
        data = ("[" + ",\n ".join([good, *rows]) + "]").encode()
    else:
        rows = [good, *HOSTILE, "\ufeff" + good.replace("{", '{"id": 2, ')]
        data = b"\r\n".join(row if isinstance(row, bytes) else row.encode() for row in rows)
    put(tmp_path, "m.jsonl", data)
    old = read_manifest(tmp_path / "m.jsonl", 16_000).entries
    new = list(open_corpus(str(tmp_path)).items())
    assert len(old) == len(new) > 10
    for one, other in zip(old, new, strict=True):
        assert isinstance(one, BadRecord) == isinstance(other, BadItem)
        if isinstance(one, BadRecord):
            assert " ".join(str(one).split()) == str(other)


def _is_json(row):
    try:
        json.loads(row)
    except (ValueError, RecursionError):
        return False
    return True
