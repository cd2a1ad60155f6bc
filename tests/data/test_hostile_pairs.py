"""Further question and answer pairs from a file of the user's: bad lines cost themselves alone."""

import codecs
import json

import pytest
from hostile_lines import lines_of

from mdmspeech.data.texts import questions
from mdmspeech.errors import UserError

PAIR = {"text": "Why is the sky blue?", "answer": "Air scatters blue light most."}
BAD_PAIRS = [
    "{", "[]", '{"text": "no answer"}', '{"text": 3, "answer": "a"}',
    '{"text": "?!", "answer": "a"}', '{"text": "\\ud800", "answer": "a"}',
    '{"text": "a", "answer": "b", "split": "dev"}',
    '{"text": "a", "answer": "b", "split": ["test"]}', '{"text": "a", "answer": "b", "family": {}}',
    '{"text": "a", "answer": "' + "b" * 2000 + '"}', '{"text": ' + "1" * 5000 + ', "answer": "b"}',
    "[" * 50_000, b"\xff",
]  # fmt: skip


def test_extra_pairs_are_fenced_line_by_line(tmp_path, capsys):
    path = tmp_path / "extra.jsonl"
    last = {**PAIR, "text": "Why\u2028not?"}
    path.write_bytes(
        codecs.BOM_UTF8
        + b"\r\n".join(lines_of(PAIR, *BAD_PAIRS, "", json.dumps(last, ensure_ascii=False)))
    )
    found = questions._read_extra(path)
    assert [(q.text, q.split, q.phrasing) for q in found] == [
        (PAIR["text"], "train", "extra/1"),
        (last["text"], "train", f"extra/{len(BAD_PAIRS) + 3}"),
    ]
    told = capsys.readouterr().err
    assert (
        f"{len(BAD_PAIRS)} lines of" in told
        and "extra.jsonl, line 2: " in told
        and "line 6: " in told
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"text,answer\n", b'{"text": "no answer"}\n', json.dumps(PAIR).encode("utf-16"), None],
)
def test_extra_files_without_a_pair_are_refused(data, tmp_path):
    path = tmp_path / "extra.jsonl"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"extra\.jsonl"):
        questions._read_extra(path)
