"""Results of speed as JSON rows and pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdmspeech.evaluation import plots
from mdmspeech.evaluation.provenance import line
from mdmspeech.evaluation.report import write_json
from mdmspeech.evaluation.speed.machine import Machine
from mdmspeech.evaluation.speed.talkers import TRAINED, Row
from mdmspeech.evaluation.tables import TALKERS
from mdmspeech.files import write_text

_HEAD = (
    "| {} | forwards a block | ms a block | quartiles | tokens/s | beside NTP | bare products, ms | engine / bare "
    "| beside NTP, bare | bound, ms |"
)


def rows_of(
    rows: Sequence[Row], machine: Machine, made: Mapping[str, Any], dtype: str = "float32"
) -> dict[str, Any]:
    """JSON-ready: one entry a way, size and batch. dtype: of the weights."""
    return {
        "made": dict(made),
        "dtype": dtype,
        "machine": machine.told(),
        "rows": [
            {
                "size": row.size,
                "way": row.way,
                "batch": row.batch,
                "forwards": round(row.forwards, 2),
                "block_ms": round(1e3 * row.block.median, 3),
                "quartiles_ms": [round(1e3 * x, 3) for x in row.block.spread],
                "tokens_per_second": round(row.rate, 1),
                "bare_ms": round(1e3 * row.bare, 3),
                "bound_ms": round(1e3 * row.bound, 3),
            }
            for row in rows
        ],
    }


def with_errors(result: dict[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """`rows_of` with the word errors of every way that `scores` (of `mdmspeech eval`) has, by set of
    texts: of one row of the release that was measured, if one was, else of the compact shape.
    """
    sizes = dict.fromkeys(row["size"] for row in result["rows"])
    scored = next((size for size in sizes if size.endswith(TRAINED)), "compact")
    errors: dict[str, dict[str, Any]] = {}
    for row in scores["speaking"]["rows"]:
        found = {name: row[name] for name in ("wer", "wer_95")}
        errors.setdefault(_way(row), {})[row["set"]] = found
    for row in result["rows"]:
        # whatever its number of tokens a forward
        way = " ".join(word for word in row["way"].split() if not word.isdigit())
        if (row["size"], row["batch"]) == (scored, 1) and way in errors:
            row["wer"] = errors[way]
    return result


def _title(told: str, result: Mapping[str, Any]) -> list[str]:
    return [f"# {told}", "", line(result["made"]), ""]


def talker_page(result: Mapping[str, Any]) -> str:
    """The table of `rows_of`, in Markdown."""
    machine = result["machine"]
    out = [
        *_title("How fast Talkers speak", result),
        f"In the same run this machine copies {machine['copy_gbs']:.1f} GB/s, streams weights at "
        f"{machine['read_gbs']:.1f} GB/s and multiplies square matrices at "
        f"{machine['matmul_gflops']:.0f} GFLOP/s. One engine, one trunk, random weights unless it is "
        "a release, "
        f"{result.get('dtype', 'float32')}; "
        "all ways take turns. *Bare products* are the matrix products of the same shapes alone, each "
        "in its best layout; *bound* is bytes of weights over bandwidth or arithmetic over the "
        "matrix rate, whichever is more, for each forward. MTP 3: five modules, three tokens a "
        "forward; *verified*: the next forward checks them, what is written is what one token a "
        "forward would be (by a release's trained modules).",
    ]
    for size, batch in dict.fromkeys((r["size"], r["batch"]) for r in result["rows"]):
        rows = [r for r in result["rows"] if (r["size"], r["batch"]) == (size, batch)]
        ntp = next(r for r in rows if r["way"] == "NTP")
        out += ["", f"## {size}, batch {batch}", "", _HEAD.format("")]
        out += ["|" + " --- |" * (_HEAD.count("|") - 1)]
        for r in rows:
            low, high = r["quartiles_ms"]
            out.append(
                f"| {r['way']} | {r['forwards']:g} | {r['block_ms']:.1f} | {low:.1f} .. {high:.1f} | "
                f"{r['tokens_per_second']:,.0f} | {ntp['block_ms'] / r['block_ms']:.2f} | "
                f"{r['bare_ms']:.1f} | {r['block_ms'] / r['bare_ms']:.2f} | "
                f"{ntp['bare_ms'] / r['bare_ms']:.2f} | {r['bound_ms']:.1f} |"
            )
    return "\n".join(out) + "\n"


def first_audio_page(result: Mapping[str, Any]) -> str:
    """The table of `live.first_audio` and of turns in a session."""
    rows = result["first_audio"]
    out = [
        *_title("How long the first sound takes", result),
        "From the end of a recorded question to the first samples, ms, median (95th percentile); all "
        "ways take turns on each question.",
        "",
        "| | " + " | ".join(_way(row) for row in rows) + " |",
        "|" + " --- |" * (len(rows) + 1),
        _line("**first sound**", [row["first_audio_ms"] for row in rows]),
    ]
    for stage in rows[0]["stages_ms"]:
        out.append(_line(stage.replace("_", " "), [row["stages_ms"][stage] for row in rows]))
    out.append(
        "| real-time factor | "
        + " | ".join(f"{row['real_time_factor']:.2f}" for row in rows)
        + " |"
    )
    out.append("| underruns | " + " | ".join(str(row["underruns"]) for row in rows) + " |")
    out += [
        "",
        "In a session, from the end of the turn (500 ms of silence) to the first samples:",
        "",
    ]
    out += ["| begun after | answered | first sound, ms | underruns |", "| --- | --- | --- | --- |"]
    for name, one in result["turns"].items():
        wait = name.partition("=")[2]
        when = "the end of the turn" if wait == "None" else f"{wait} s of silence"
        out.append(_turns(when, one))
    return "\n".join(out) + "\n"


def parts_page(result: Mapping[str, Any]) -> str:
    """The table of `parts.measure`."""
    machine = result["machine"]
    out = [
        *_title(f"How fast the {result['part']} works", result),
        f"In the same run this machine streams weights at {machine['read_gbs']:.1f} GB/s and multiplies "
        f"square float32 matrices at {machine['matmul_gflops']:.0f} GFLOP/s; *bound* is bytes of weights "
        "over bandwidth or arithmetic over the matrix rate, whichever is more. All jobs take turns.",
        "",
        "| | of | ms | quartiles | a second | bound, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        low, high = row["quartiles_ms"]
        bound = f"{row['bound_ms']:.1f}" if row["bound_ms"] else ""
        out.append(
            f"| {row['what']} | {row['unit']} | {row['ms']:.1f} | {low:.1f} .. {high:.1f} | "
            f"{row['per_second']:.1f} | {bound} |"
        )
    if "peak_memory_gb" in result:
        out += ["", f"Peak memory of the process, weights included: {result['peak_memory_gb']} GB."]
    return "\n".join(out) + "\n"


def sessions_page(result: Mapping[str, Any]) -> str:
    """The table of `live.sustained`."""
    out = [
        *_title("How many can talk at once", result),
        "Sessions that ask at the same time, in real time; first sound after the end of the turn.",
        "",
        "| sessions | answered | first sound, ms | underruns |",
        "| --- | --- | --- | --- |",
    ]
    out += [_turns(count, one) for count, one in result["sessions"].items()]
    return "\n".join(out) + "\n"


def _way(row: Mapping[str, Any]) -> str:
    return f"S={row['steps']}" if row["talker"] == "mdm" else TALKERS[row["talker"]]


def _line(name: str, spreads: Sequence[Mapping[str, float]]) -> str:
    cells = [f"{one['median']:.0f} ({one['p95']:.0f})" for one in spreads]
    return f"| {name} | " + " | ".join(cells) + " |"


def _turns(name: str, one: Mapping[str, Any]) -> str:
    wait = one["first_audio_ms"]
    told = f"{wait['median']:.0f} ({wait['p95']:.0f})" if wait else "none"
    return f"| {name} | {one['answered']} of {one['turns']} | {told} | {one['underruns']} |"


PAGES = {
    "talker": talker_page,
    "thinker": parts_page,
    "hearing": parts_page,
    "codec": parts_page,
    "first-audio": first_audio_page,
    "sessions": sessions_page,
}


def write(stem: str, part: str, result: Mapping[str, Any]) -> None:
    """STEM.json and .md; of talkers and of the first sound .png, too, and if there are word errors
    STEM_errors.png.
    """
    write_json(Path(f"{stem}.json"), result)
    write_text(Path(f"{stem}.md"), PAGES[part](result))
    if part == "talker":
        plots.talker_speeds(Path(f"{stem}.png"), result)
        if any("wer" in row for row in result["rows"]):
            plots.speed_and_errors(Path(f"{stem}_errors.png"), result)
    elif part == "first-audio":
        plots.latency(Path(f"{stem}.png"), {_way(row): _bar(row) for row in result["first_audio"]})


def _bar(row: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    stages = {name: one["median"] for name, one in row["stages_ms"].items()}
    return stages, row["first_audio_ms"]["median"]
