"""What `make plan` compiles: every shipped configuration on the slices people ask for, the batch a
data-parallel device fixed (weak scaling).

Command:  mdmspeech plan --list experiments/plan_list.py
Seen:     experiments/results/plan.md
"""

from mdmspeech.planning.tables import Entry

# In this order, because the list takes hours.
SLICES = ("v5p-64", "v6e-64", "v5e-64", "v5p-512", "v5e-256", "v6e-256", "v5p-8", "v5e-16")
SMALL = ("v5e-16", "v5p-8", "v6e-16")  # of models that fit many times into one chip
# Stage, rows of a data-parallel device:
# a Thinker's row has 1,536 positions and a minute of speech, a Talker's 1,024 and 256 ids.
LARGE = {"thinker": 2, "talker": 8, "talker_isd": 4}
# all rows at once: a step of more is so many of these, see experiments/large.py
ONE_PART = ("train.accum=1",)


def get_config():
    entries = []
    for size in ("8b", "1b", "06b"):
        entries += [
            Entry(f"experiments/{stage}_{size}.py", SLICES, rows=rows, settings=ONE_PART)
            for stage, rows in LARGE.items()
        ]
        # One block of four steps, one utterance on one chip: what a listener waits for.
        entries.append(
            Entry(
                f"experiments/talker_{size}.py",
                ("v5e:1x1", "v5p:1x1x1", "v6e:1x1"),
                rows=1,
                what="decode",
            )
        )
    entries += [
        Entry("experiments/compact_talker.py", (*SMALL, "v5p-64"), rows=16),
        Entry("experiments/compact_talker_isd.py", (*SMALL, "v5p-64"), rows=16),
        Entry("experiments/compact_hearing.py", SMALL, rows=8),
        Entry("experiments/compact_codec.py", SMALL, rows=8),
    ]
    return entries
