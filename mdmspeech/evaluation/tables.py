"""The figures of a release as Markdown, with the bars they are held to, and the plots beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdmspeech.evaluation import plots

# What issue 2 asks for. Word error rates in percent.
WER_BARS = {("answers", 1): 15.0, ("answers", 4): 8.0, ("open", 4): 12.0}  # (texts, steps)
RATIO_BAR = 0.9  # spoken facts right over typed facts right
REPEAT_BAR = 15.0
FIRST_AUDIO_BAR = 900  # ms, at S=1


def write_tables(result: dict[str, Any], output: Path) -> Path:
    """Writes <output>/<name>.md and the plots of the parts that `result` has; returns the path of the Markdown."""
    name, folder = result["name"], Path(output) / result["name"]
    writers = {"speaking": _speaking, "reading": _reading, "hearing": _hearing, "latency": _latency, "codec": _codec}
    drawers = {"speaking": plots.steps, "hearing": plots.families, "latency": plots.latency}
    sections = [f"# Scores of {name}\n\nMade by `mdmspeech eval --model {name}`. Do not edit."]
    for part, write in writers.items():
        if part not in result:
            continue
        section = [write(result[part])]
        picture = folder / f"{part}.png"
        if part in drawers:
            drawers[part](picture, result[part])
        if picture.is_file():
            section.append(f"![{part}]({name}/{part}.png)")
        section.append(_made(result[part]))
        sections.append("\n\n".join(section))
    path = Path(output) / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None is shown as a dash."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def _reading(part: dict) -> str:
    rows = [
        (kind, figures["words"], figures["wer"], _between(figures["wer_95"])) for kind, figures in [*part["kinds"].items(), ("all", part)]
    ]
    return (
        "## Reading\n\nWritten texts, spoken, heard by the recogniser and counted against words by hand.\n\n"
        + table(("kind", "words", "WER", "95%"), rows)
        + f"\n\nRead as by hand, before any sound: {part['read_right']} of {part['rows']} texts."
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
        "DNSMOS",
        "length",
        "tail s",
        "EOS missed",
        "tokens/s",
        "in a batch",
        "RTF",
    ]
    rows = []
    for row in sorted(part["rows"], key=lambda r: (r["set"], r["talker"], r["steps"])):
        speed, lengths = row["speed"], row.get("timing", {})
        batch = next((value for key, value in speed.items() if key.startswith("tokens_per_s_batch")), None)
        low, high = row["wer_95"]
        steps = row["steps"] if row["talker"] == "mdm" else "-"
        bar = WER_BARS.get((row["set"], row["steps"])) if row["talker"] == "mdm" else None
        rows.append(
            [
                row["set"],
                row["talker"].upper(),
                steps,
                f"{row['wer']} ({low}..{high})",
                bar and f"<= {bar:g}",
                row["cer"],
                row["mos"].get("ovrl"),
                lengths.get("duration_ratio"),
                lengths.get("tail_s"),
                f"{row['eos_missed']} of {row['count']}",
                speed["tokens_per_s"],
                batch,
                speed["real_time_factor"],
            ]
        )
    return (
        "## Speaking\n\nWord errors (percent) of what an independent recogniser hears against the text that was to be spoken; `answers` are the "
        "model's own, `open` are unseen sentences. Length: against the answer voice's own recordings.\n\n" + table(header, rows)
    )


def _hearing(part: dict) -> str:
    header = ["family", "questions", "typed right", "spoken right", "spoken / typed"]
    groups = {"**all**": part["all"], "**facts**": part["facts"], **part["families"]}
    rows = [[name, g["questions"], g["typed_right"], g["spoken_right"], g["ratio"]] for name, g in groups.items()]
    text = f"## Hearing\n\nThe same questions typed and spoken, in voices and wordings never trained on. Bar: facts {RATIO_BAR}.\n\n"
    text += table(header, rows)
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
        [f"what the ear writes down, {who}", part[name]["clips"], part[name]["wer"], None, None]
        for name, who in (("transcript", "test voices"), ("human_transcript", "real people"))
        if name in part
    ]
    return text + "\n\n" + table(["word errors, percent", "clips", "spoken", "typed", "bar"], errors) if errors else text


def _latency(part: dict) -> str:
    header = ["", *(f"S={step}" for step in part["steps"])]
    columns = list(part["steps"].values())
    rows: list[list[Any]] = [[f"first audio, ms (bar at S=1: {FIRST_AUDIO_BAR})", *(c["first_audio_ms"] for c in columns)]]
    rows.append(["least..most, ms", *("..".join(map(str, c["first_audio_ms_range"])) for c in columns)])
    for stage in columns[0]["stages_ms"]:
        rows.append([f"until then: {stage.replace('_', ' ')}, ms", *(c["stages_ms"][stage] for c in columns)])
    for stage in columns[0]["total_stages_ms"]:
        rows.append([f"whole answer: {stage.replace('_', ' ')}, ms", *(c["total_stages_ms"][stage] for c in columns)])
    rows.append(["answer, s", *(c["answer_s"] for c in columns)])
    rows.append(["real-time factor (bar: below 1 at S=4)", *(c["real_time_factor"] for c in columns)])
    rows.append(["answers with an underrun", *(f"{c['underruns']} of {part['questions']}" for c in columns)])
    rows.append(["longest stall, ms", *(c["stalled_ms"] for c in columns)])
    return "## Latency\n\nMedians, warm, from the end of a question of 2.5 to 3 s.\n\n" + table(header, rows)


def _codec(part: dict) -> str:
    header = ["", "WER (95%)", "CER", "DNSMOS ovrl", "sig", "bak", "P.808"]
    rows = []
    for name in ("original", "resynthesis", "griffin_lim"):
        score, mos = part[name], part[name]["mos"]
        low, high = score["wer_95"]
        rows.append(
            [name.replace("_", "-"), f"{score['wer']} ({low}..{high})", score["cer"], *(mos.get(k) for k in ("ovrl", "sig", "bak", "p808"))]
        )
    codes, bar = part["codes"], part["bar"]
    return (
        f"## Codec\n\n{part['count']} held-out sentences ({part['seconds']:.0f} s) of the answer voice through tokens and back. Bars: WER at most 3 over "
        f"the original's (here {bar['wer_over_original']:+}), DNSMOS at most 0.3 under (here {bar['dnsmos_under_original']:+}).\n\n"
        + table(header, rows)
        + f"\n\n{codes['used']} codes in {codes['tokens']} tokens, entropy {codes['entropy_bits']} bits, perplexity {codes['perplexity']}; decoding "
        f"takes {part['decode']['real_time_factor']} of real time; streamed and one-shot samples differ by at most {part['streamed_difference']:.1e}."
    )


def _made(part: dict) -> str:
    """When, on what and with which recogniser, from the part or its first row."""
    source = part if "made" in part else part.get("rows", [{}])[0]
    made, made_from = source.get("made"), source.get("made_from", {})
    if not made:
        return ""
    heard = f"; recogniser {made_from['recogniser']}" if "recogniser" in made_from else ""
    return f"*{made['date']}, {made['cpu']}, {made['cores']} cores, accelerator: {made['accelerator']}, jax {made['versions'].get('jax')}{heard}.*"
