"""`mdmspeech data inspect`: what a folder of other people's recordings holds, how much of it can be
used, and why the rest cannot.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError

_PICTURES = (".png", ".svg", ".pdf")
_BAR = 40  # characters
_SHOWN = 100  # letters of an example


def add(jobs) -> None:
    """Declares it among the jobs of `mdmspeech data`."""
    parser = jobs.add_parser(
        "inspect",
        help="look through a corpus before anything long starts",
        description="Finds out which format a folder has, reads all of it once and says what is in "
        "it: hours, rates, lengths, speakers, languages, licences, duplicates, clipped and silent "
        "sound, what stands in two splits, and what would be rejected and why. Nothing is written. "
        "Ctrl-C says what is known so far.",
    )
    parser.add_argument("path", metavar="PATH", help="folder of a corpus, or one file of it")
    parser.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help="manifest, vocalnet, ljspeech, librispeech, libritts, vctk, common_voice, parquet, "
        "voice_assistant or webdataset (default: find out)",
    )
    parser.add_argument("--speaker", metavar="NAME", help="only the recordings of one speaker")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the format, such as mic=mic2 (vctk), tables=validated (common_voice), "
        "text_column=NAME (parquet), language=de, licence=mit",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N records")
    parser.add_argument(
        "--longest",
        type=float,
        default=30.0,
        metavar="S",
        help="longer recordings are rejected (default: %(default)g s)",
    )
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw the lengths and the largest speakers"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it. 0 also with bad records; 130 after Ctrl-C. UserError: nothing can be used."""
    _check(args)
    import tqdm

    from mdmspeech.data.importers import open_corpus
    from mdmspeech.data.importers.survey import Survey, survey

    corpus = open_corpus(args.path, args.format, speaker=args.speaker, **named_values(args.option))
    found, code = Survey(), 0
    report: dict[str, Any] = {**corpus.about(), "limit": args.limit, "stopped": False}
    if not args.json:
        print(f"{args.path}: {corpus.format}, {_count(report['parts'], 'part')}")
    bar = tqdm.tqdm(
        survey(corpus.items(), found, limit=args.limit, max_seconds=args.longest),
        total=args.limit,
        desc="looking",
        unit="rec",
        mininterval=0.5,
        leave=False,
        file=sys.stderr,
    )
    try:
        with bar:
            for _ in bar:
                pass
    except KeyboardInterrupt:
        report["stopped"], code = True, 130
    report |= found.report()
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print("\n".join(lines_of(report)))
    if args.plot and report["usable"]:
        draw(args.plot, report)
    if not report["usable"] and not report["stopped"]:
        first = next((row["first"][0] for row in report["rejected"].values()), "it has none")
        raise UserError(
            f"none of the {report['records']:,} records of {args.path} can be used, first: {first}"
        )
    return code


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    seconds, bad = report["seconds"], report["records"] - report["usable"]
    lines = []
    if report["stopped"]:
        lines.append(f"stopped after {_count(report['records'], 'record')}; so far:")
    elif report["limit"] is not None:
        lines.append(f"the first {_count(report['records'], 'record')}:")
    lines.append(
        f"{report['usable']:,} of {_count(report['records'], 'record')} can be used, "
        f"{_hours(report['hours'])}"
        + "".join(f"; {name} {value:g} s" for name, value in seconds.items())
    )
    if report["answer_hours"] or report["answer_tokens"]:
        lines.append(
            f"answers: {_hours(report['answer_hours'])} of audio, "
            f"{report['answer_tokens']:,} with tokens"
        )
    lines += _bars(report["lengths"])
    for title, key, unknown in (
        ("sample rates", "rates", ""),
        ("languages", "languages", "not said"),
        ("licences", "licences", "not said"),
    ):
        told = ", ".join(f"{name or unknown} ({count:,})" for name, count in report[key].items())
        lines.append(f"{title}: {told or 'none'}")
    lines.append(
        "splits: "
        + ", ".join(
            f"{split}: {row['records']:,} ({_hours(row['hours'])})"
            for split, row in report["splits"].items()
        )
    )
    largest = ", ".join(
        f"{row['speaker'][:24] or '(no name)'}: {row['records']:,} ({_hours(row['hours'])})"
        for row in report["largest_speakers"]
    )
    lines.append(f"speakers: {report['speakers'] or 'not said'}; largest: {largest or 'none'}")
    for title, key in (("texts", "duplicate_texts"), ("recordings", "duplicate_audio")):
        lines.append(f"{title} that were there before: {_examples(report[key])}")
    for title, key in (("texts", "text"), ("recordings", "audio")):
        row = report["leakage"][key]
        if counts := {split: row[split] for split in row if split != "first"}:
            told = ", ".join(f"{count:,} of {split}" for split, count in counts.items())
            lines.append(
                f"{title} that stand in the training split as well: {told}"
                + (f" ({', '.join(row['first'])})" if row["first"] else "")
            )
    lines.append(
        f"clipped: {report['clipped_share']:.3%} of the samples; "
        f"silent: {report['silent_share']:.1%}"
    )
    if report["unsayable"]:
        told = ", ".join(
            f"{row['character']} {row['name'].lower()} ({row['times']:,})"
            for row in report["unsayable"]
        )
        lines.append(f"characters that an English voice leaves out: {told}")
    lines.append(f"rejected: {bad:,}" + (":" if bad else ""))
    for kind, row in report["rejected"].items():
        lines.append(f"  {row['records']:,} x {kind}")
        lines += [f"    {_cut(told)}" for told in row["first"]]
    return lines


def draw(path: str, report: dict[str, Any]) -> None:
    """The lengths and the largest speakers as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from mdmspeech.files import written_whole

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    lengths, speakers = figure.subplots(1, 2, width_ratios=(2, 1))
    begins = [row["from"] for row in report["lengths"]]
    width = begins[1] if len(begins) > 1 else 2.0
    lengths.bar(
        begins, [row["records"] for row in report["lengths"]], width, align="edge", color="#30638e",
        edgecolor="white",
    )  # fmt: skip
    lengths.set(xlabel="seconds", ylabel="records")
    lengths.set_title(f"{report['usable']:,} records, {_hours(report['hours'])}", loc="left")
    rows = report["largest_speakers"][::-1]
    names = [row["speaker"][:16] or "(no name)" for row in rows]
    speakers.barh(range(len(rows)), [row["hours"] for row in rows], color="#d1495b")
    speakers.set_yticks(range(len(rows)), names)
    speakers.set(xlabel="hours")
    speakers.set_title("largest speakers", loc="left")
    with written_whole(path) as part:
        figure.savefig(part, dpi=110)


def _check(args: argparse.Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: give 1 or more records")
    if not 0 < args.longest < float("inf"):
        raise UserError(f"--longest {args.longest:g}: give a positive number of seconds")
    if args.plot is not None:
        from mdmspeech.files import check_writable

        if Path(args.plot).suffix.lower() not in _PICTURES:
            raise UserError(f"--plot {args.plot}: name it {', '.join(_PICTURES)}")
        check_writable(args.plot, "name another file")


def named_values(given: list[str]) -> dict[str, str]:
    """What --option says. Raises UserError."""
    options = {}
    for option in given:
        name, sign, value = option.partition("=")
        if not sign or not name or not value:
            raise UserError(f"--option {option}: write NAME=VALUE, mic=mic2 for example")
        options[name.strip()] = value.strip()
    return options


def _bars(lengths: list[dict[str, float]]) -> list[str]:
    most = max((row["records"] for row in lengths), default=0)
    width = lengths[1]["from"] if len(lengths) > 1 else 2
    return [
        f"  {row['from']:4g}-{row['from'] + width:g} s".ljust(12)
        + f"{row['records']:>9,} "
        + "#" * round(_BAR * row["records"] / most)
        for row in lengths
    ]


def _examples(row: dict[str, Any]) -> str:
    return f"{row['records']:,}" + (f" ({', '.join(row['first'])})" if row["first"] else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"


def _cut(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}..."
