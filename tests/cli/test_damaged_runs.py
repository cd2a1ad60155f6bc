"""A run's config.json that somebody has edited is told, not a traceback."""

import json

import pytest

from mdmspeech.cli.release import part_of_run
from mdmspeech.errors import UserError


@pytest.mark.parametrize("section", [[1], [], None, "talker", 5, True])
def test_sizes_that_are_no_object_are_told(section, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"stage": "talker", "mode": "mdm", "talker": section})
    )
    with pytest.raises(UserError, match="has no sizes in 'talker'"):
        part_of_run(str(tmp_path), "talker")
