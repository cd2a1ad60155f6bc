"""The figures of a release as Markdown, with the bars they are held to, and the plots beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdmspeech.evaluation import plots
from mdmspeech.evaluation.knowledge import REWORDED
from mdmspeech.evaluation.provenance import line
from mdmspeech.evaluation.report import figures
from mdmspeech.files import write_text

# The bars that a release is held to. Word error rates in percent.
WER_BARS = {("answers", 1): 15.0, ("answers", 4): 8.0, ("open", 4): 12.0}  # (texts, steps)
RATIO_BAR = 0.9  # facts right when spoken, of those right when typed
REPEAT_BAR = 15.0
TALKERS = {"mdm": "MDM", "ntp": "NTP", "mtp": "MTP", "mtp_verified": "MTP verified"}
FIRST_AUDIO_BAR = 900  # ms, at S=1


def write_tables(result: dict[str, Any], output: Path) -> Path:
    """Writes <output>/<name>.md and the plots of the parts that `result` has; returns the path of
    the Markdown.
    """
    name, folder = result["name"], Path(output) / result["name"]
    writers = {
        "speaking": _speaking,
        "reading": _reading,
        "hearing": _hearing,
        "recognition": _recognition,
        "knowledge": _knowledge,
        "latency": _latency,
        "codec": _codec,
    }
    drawers = {"speaking": plots.steps, "hearing": plots.families, "latency": _latency_bars}
    command = f"mdmspeech eval --model {result.get('release', name)}"
    if split := result.get("split"):
        command += f" --split {split}"
    sections = [f"# Scores of {name}\n\nMade by `{command}`. Do not edit."]
    for part, write in writers.items():
        if part not in result:
            continue
        section = [write(result[part])]
        picture = folder / f"{part}.png"
        if part in drawers:
            drawers[part](picture, result[part])
        if picture.is_file():
            section.append(f"![{part}]({name}/{part}.png)")
        section += [_before(result[part]), _made(result[part])]
        sections.append("\n\n".join(filter(None, section)))
    path = Path(output) / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n\n".join(sections) + "\n")
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None is shown as a dash."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |"
        for line in lines
    )


def _latency_bars(picture: Path, part: dict) -> None:
    bars = {
        f"S={step}": (figures["stages_ms"], figures["first_audio_ms"])
        for step, figures in part["steps"].items()
    }
    plots.latency(picture, bars)


def _reading(part: dict) -> str:
    rows = [
        (kind, figures["words"], figures["wer"], _between(figures["wer_95"]))
        for kind, figures in [*part["kinds"].items(), ("all", part)]
    ]
    return (
        (
            "## Reading\n\nWritten texts, spoken, heard by the recogniser and "
            "counted against words by hand.\n\n"
        )
        + table(("kind", "words", "WER", "95%"), rows)
        + (f"\n\nRead as by hand, before any sound: {part['read_right']} of {part['count']} texts.")
    )


def _between(interval: Sequence[float]) -> str:
    return f"{interval[0]} to {interval[1]}"


def _speaking(part: dict) -> str:
    header = [
        "texts",
        "Talker",
        "S",
        "WER (95%)",
        "bar",
        "CER",
        f"DNSMOS ({_all(row['mos'].get('clips') for row in part['rows'])} clips)",
        "length",
        "tail s",
        "EOS missed",
        "tokens a forward",
        f"tokens/s ({_all(row['speed'].get('timed', 5) for row in part['rows'])} texts)",
        "in a batch",
        "RTF",
    ]
    rows = []
    for row in sorted(part["rows"], key=lambda r: (r["set"], r["talker"], r["steps"])):
        speed, lengths = row["speed"], row.get("timing", {})
        batch = next(
            (value for key, value in speed.items() if key.startswith("tokens_per_s_batch")), None
        )
        low, high = row["wer_95"]
        steps = row["steps"] if row["talker"] == "mdm" else "-"
        bar = WER_BARS.get((row["set"], row["steps"])) if row["talker"] == "mdm" else None
        rows.append(
            [
                row["set"],
                TALKERS[row["talker"]],
                steps,
                f"{row['wer']} ({low}..{high})",
                bar and f"<= {bar:g}",
                row["cer"],
                row["mos"].get("ovrl"),
                lengths.get("duration_ratio"),
                lengths.get("tail_s"),
                _ends(row),
                row.get("tokens_a_forward", "-"),
                speed["tokens_per_s"],
                batch,
                speed["real_time_factor"],
            ]
        )
    return (
        "## Speaking\n\nWord errors (percent) of what an independent recogniser "
        "hears against the text that was to be spoken; `answers` are the "
        "model's own, `open` are unseen sentences. Length: against the answer "
        "voice's own recordings. DNSMOS judges the first clips of each row "
        "only, and the "
        "speed of one text at a time is the median of a few.\n\n"
        + table(header, rows)
        + ("\n\n" + _NO_ENDS if any(not _chosen(row) for row in part["rows"]) else "")
        + ("\n\n" + _BASELINES if any(row["talker"] != "mdm" for row in part["rows"]) else "")
    )


_NO_ENDS = (
    "Paced anchors fix the length before a token is spoken: no end can be missed, *by "
    "construction*, and that none was is no finding. A release with fixed anchors has to find each "
    "end itself, and its rows count the ends it missed: experiments/results/fixed_anchors.md."
)
_BASELINES = (
    "Next-token (NTP) and multi-token Talkers (MTP: five modules, three tokens a forward) are the "
    "baselines. Those beside the shipped one began from it and had 100 steps of their own loss each, "
    "over the same recordings. *Verified*: the next forward checks what the modules wrote, and what "
    "stands is what the multi-token Talker's own next-token head would have written alone."
)


def _chosen(row: dict) -> int:
    """How many ends the Talker had to find (results of before this was counted hold the reasons)."""
    return row.get(
        "ends_chosen",
        sum(count for reason, count in row.get("stop_reasons", {}).items() if reason != "length"),
    )


def _ends(row: dict) -> str:
    return f"{row['eos_missed']} of {_chosen(row)}" if _chosen(row) else "none to find"


def _recognition(part: dict) -> str:
    header = ["clips", "", "Whisper-base", "shipped", "shipped less Whisper (95%)"]
    rows: list[list[str | None]] = []
    for name, one in part["sets"].items():
        ours, theirs, more = one["ours"], one["whisper"], one["difference"]
        rows.append(
            [
                f"{name}, {one['clips']}",
                "word errors, percent",
                *(f"{x['wer']} ({_between(x['wer_95'])})" for x in (theirs, ours)),
                f"{more['points']} ({_between(more['points_95'])})",
            ]
        )
        if "rare" in ours:
            right = [f"{x['rare_right']} of {x['rare']}" for x in (theirs, ours)]
            rows.append(["", "rare words right", *right, None])
    spent = part["clip_ms"]
    return (
        "## Recognition\n\nThe same clips, one at a time, written down by the shipped ear and by "
        f"Whisper-base as it was published ({part['recogniser']}). Bar: never worse.\n\n"
        + table(header, rows)
        + f"\n\nA clip of the first set takes {spent['ours']:g} ms, and Whisper-base, which reads 30 s "
        f"whatever was said, {spent['whisper']:g} ms (medians, in turns; other code, other precision)."
    )


def _all(counts) -> str:
    """One number if all rows have it, else the least and the most."""
    found = sorted({count for count in counts if count is not None})
    return "-".join(map(str, dict.fromkeys([found[0], found[-1]]))) if found else "?"


def _hearing(part: dict) -> str:
    header = ["family", "questions", "typed right", "spoken right", "both", "both / typed (95%)"]
    groups = {"**all**": part["all"], "**facts**": part["facts"], **part["families"]}
    rows = [
        [name, g["questions"], g["typed_right"], g["spoken_right"], g["both_right"], _share(g)]
        for name, g in groups.items()
    ]
    text = (
        "## Hearing\n\nThe same questions typed and spoken, in voices and "
        "wordings never trained on. The last column: of the questions answered "
        "rightly when "
        "typed, the share answered rightly when spoken, with Wilson's "
        f"interval. Bar: facts {RATIO_BAR}.\n\n"
    )
    text += table(header, rows)
    if "rejudged" in part:
        text += "\n\n" + _rejudged(part["rejudged"], part["facts"])
    errors: list[list[Any]] = [
        [
            f"repeat after me, {who}",
            part[name]["clips"],
            part[name]["spoken"]["wer"],
            part[name]["typed"]["wer"],
            f"<= {REPEAT_BAR:g}",
        ]
        for name, who in (("repeat", "test voices"), ("human_repeat", "real people"))
        if name in part
    ]
    errors += [
        [f"what it writes down, {who}", part[name]["clips"], part[name]["wer"], None, None]
        for name, who in (("transcript", "test voices"), ("human_transcript", "real people"))
        if name in part
    ]
    return (
        text + "\n\n" + table(["word errors, percent", "clips", "spoken", "typed", "bar"], errors)
        if errors
        else text
    )


def _knowledge(part: dict) -> str:
    rows = [
        [
            name,
            found["questions"],
            found["right"],
            "{:g}..{:g}".format(*found["right_95"]),
            found["unknown"],
            found["words"],
        ]
        for name, found in part["sets"].items()
    ]
    told = (
        "Typed questions to choose a Thinker by: facts of fine-tuning in words that it never saw, "
        "general questions that no test asks, and sentences to repeat."
        if REWORDED in part["sets"]
        else "Typed questions about what fine-tuning never saw: everyday ones, and facts "
        "of countries, cities, elements and words that were kept out of it."
    )
    return f"## Knowledge\n\n{told}\n\n" + table(
        ["set", "questions", "right", "share (95%)", "do not know", "words an answer"], rows
    )


def _share(group: dict) -> str | None:
    if group["share"] is None:
        return None
    low, high = group["share_95"]
    return f"{group['share']:g} ({low:g}..{high:g})"


def _rejudged(before: dict, facts: dict) -> str:
    """The old counts beside the new."""
    rows = [
        [
            way.split("_")[0],
            old["before"],
            old["before"] - old["stand"],
            old["stand"],
            old["found"],
            facts[way],
        ]
        for way, old in ((way, before["facts"][way]) for way in ("typed_right", "spoken_right"))
    ]
    header = [
        f"facts right, of {before['facts']['questions']}",
        "counted before",
        "of these wrongly",
        "that stand",
        "overlooked before",
        "now",
    ]
    told = (
        "The same answers, judged again. The judge of before took letters "
        "joined into words for a spelling, an echo of the question for its "
        "answer, and "
        "one country's name inside another's; and it wanted words of the "
        'expected sentence where others say the same ("the language is '
        'Spanish").'
    )
    return f"{told}\n\n{table(header, rows)}\n\nJudged again: {line(before['by'])}"


def _before(part: dict) -> str:
    """The figures that a part took the place of, beside its own."""
    pairs: list[list[Any]] = []
    for row in part.get("rows", [part]):
        old, new = row.get("before", {}), figures(row)
        name = f"{row['set']} {row['talker']} S={row['steps']}: " if "set" in row else ""
        pairs += [
            [f"{name}{key}", value, new.get(key), old["made"].get("date")]
            for key, value in old.get("figures", {}).items()
            if new.get(key) != value
        ]
    return (
        "What changed:\n\n" + table(["figure", "before", "now", "made before at"], pairs)
        if pairs
        else ""
    )


def _latency(part: dict) -> str:
    header = ["", *(f"S={step}" for step in part["steps"])]
    columns = list(part["steps"].values())
    rows: list[list[Any]] = [
        [
            f"first audio, ms (bar at S=1: {FIRST_AUDIO_BAR})",
            *(c["first_audio_ms"] for c in columns),
        ]
    ]
    rows.append(
        ["least..most, ms", *("..".join(map(str, c["first_audio_ms_range"])) for c in columns)]
    )
    for stage in columns[0]["stages_ms"]:
        rows.append(
            [
                f"until then: {stage.replace('_', ' ')}, ms",
                *(c["stages_ms"][stage] for c in columns),
            ]
        )
    for stage in columns[0]["total_stages_ms"]:
        rows.append(
            [
                f"whole answer: {stage.replace('_', ' ')}, ms",
                *(c["total_stages_ms"][stage] for c in columns),
            ]
        )
    rows.append(["answer, s", *(c["answer_s"] for c in columns)])
    rows.append(
        ["real-time factor (bar: below 1 at S=4)", *(c["real_time_factor"] for c in columns)]
    )
    rows.append(
        ["answers with an underrun", *(f"{c['underruns']} of {part['questions']}" for c in columns)]
    )
    rows.append(["longest stall, ms", *(c["stalled_ms"] for c in columns)])
    return "## Latency\n\nMedians, warm, from the end of a question of 2.5 to 3 s.\n\n" + table(
        header, rows
    )


def _codec(part: dict) -> str:
    header = ["", "WER (95%)", "CER", "DNSMOS ovrl", "sig", "bak", "P.808"]
    rows = []
    for name in ("original", "resynthesis", "griffin_lim"):
        score, mos = part[name], part[name]["mos"]
        low, high = score["wer_95"]
        rows.append(
            [
                name.replace("_", "-"),
                f"{score['wer']} ({low}..{high})",
                score["cer"],
                *(mos.get(k) for k in ("ovrl", "sig", "bak", "p808")),
            ]
        )
    codes, bar = part["codes"], part["bar"]
    return (
        f"## Codec\n\n{part['count']} held-out sentences ({part['seconds']:.0f} "
        "s) of the answer voice through tokens and back. Bars: WER at most 3 "
        "over "
        f"the original's (here {bar['wer_over_original']:+}), DNSMOS at most "
        f"0.3 under (here {bar['dnsmos_under_original']:+}).\n\n"
        + table(header, rows)
        + f"\n\n{codes['used']} codes in {codes['tokens']} tokens, entropy "
        f"{codes['entropy_bits']} bits, perplexity {codes['perplexity']}; decoding takes "
        f"{part['decode']['real_time_factor']} of real time; streamed and one-shot samples differ "
        f"by at most {part['streamed_difference']:.1e}."
    )


def _made(part: dict) -> str:
    """When, by which code, on what and with which recogniser, from the part or its first row."""
    source = part if "made" in part else part.get("rows", [{}])[0]
    made, made_from = source.get("made"), source.get("made_from", {})
    if not made:
        return ""
    return line(
        made, also=f", recogniser {made_from['recogniser']}" if "recogniser" in made_from else ""
    )
