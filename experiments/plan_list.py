"""What `make plan` compiles, in this order: speaking and thinking, then a step of every shipped
configuration on the slices people ask for, the batch a data-parallel device fixed (weak scaling).

Command:  mdmspeech plan --list experiments/plan_list.py
Seen:     experiments/results/plan.md
"""

from mdmspeech.planning.decode import WAY_NAMES
from mdmspeech.planning.tables import Entry

ONE_CHIP = ("v5e:1x1", "v5p:1x1x1", "v6e:1x1")
SLICES = ("v5e-64", "v5p-64", "v6e-64")
LARGER = ("v5e-256", "2xv5e-256")  # how a stage scales over chips and slices
# Stage, rows of a data-parallel device:
# a Thinker's row has 1,536 positions and a minute of speech, a Talker's 1,024 and 256 ids.
LARGE = {"thinker": 2, "talker": 8, "talker_isd": 4}
# all rows at once: a step of more is so many of these, see experiments/large.py
ONE_PART = ("train.accum=1",)
COMPACT = {"compact_talker": 16, "compact_talker_isd": 16, "compact_hearing": 8, "compact_codec": 8}


def get_config():
    # Speaking: a block of one utterance on one chip, what a listener waits for; and of 32 at once.
    talk = lambda chips, way, rows: Entry(
        "experiments/talker_8b.py", chips, rows=rows, what="decode", way=way
    )
    entries = [talk(ONE_CHIP, way, 1) for way in WAY_NAMES]
    entries += [talk(("v5p:1x1x1",), way, 32) for way in ("NTP", "S=1")]
    # Thinking: a token of one answer, and of eight.
    entries += [
        Entry("experiments/thinker_8b.py", ("v5e:2x4", "v6e:2x4"), rows=rows, what="think")
        for rows in (1, 8)
    ]
    # The largest models take minutes a plan; of the smaller ones one kind of chip shows the size.
    for size in ("8b", "1b", "06b"):
        for stage, rows in LARGE.items():
            slices = SLICES if size == "8b" else SLICES[:1]
            if size == "8b" and stage != "talker_isd":
                slices += LARGER
            entries.append(
                Entry(f"experiments/{stage}_{size}.py", slices, rows=rows, settings=ONE_PART)
            )
    entries += [
        Entry(f"experiments/{name}.py", ("v5e-16",), rows=rows) for name, rows in COMPACT.items()
    ]
    return entries
