"""Which paces and temperatures the shipped voice is still understood at: word error rates of an
independent recogniser (mdmspeech/evaluation/recogniser.py).

Command: python -m experiments.voice_ranges (eight minutes of CPU; --recount applies the rules to the kept
  rates). Not an experiment with a config, and no test.
It writes experiments/results/voice_ranges.json and .md; the ranges in
mdmspeech/inference/generation_config.py are what it finds, and a test compares them.

Two rules, each from the default to the last value on the way. Clear: a word error rate of at most
twice the default's plus one word in a hundred; made before the measurement. Usable, beyond which a
request is refused: at most one word in eight; made after it, so that what is hard but possible to
follow stays possible.
"""

import json
import sys
from pathlib import Path

SENTENCES = (
    "The train to the coast leaves early every morning.",
    "My sister planted three apple trees behind the house.",
    "He asked for a cup of tea and some bread.",
    "They walked along the river until the bridge came into view.",
    "Nobody could say why the lights went out.",
    "The library will close an hour later on Friday.",
    "Please put the blue box on the top shelf.",
    "A cold wind blew across the empty market square.",
    "She found the letter under a pile of old newspapers.",
    "We need more water before we climb the mountain.",
    "The children laughed when the dog stole the ball.",
    "His answer surprised everyone in the meeting.",
    "Turn left at the church and follow the road.",
    "The doctor told him to rest for a week.",
    "Fresh snow covered the roofs of the village.",
    "I would rather read a book than watch a film.",
    "The museum shows paintings from many countries.",
    "Our neighbours are building a small wooden boat.",
    "You can see the harbour from the kitchen window.",
    "The teacher wrote a long sentence on the board.",
)
PACES = (0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0)
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
DEFAULTS = {"pace": 1.0, "temperature": 0.0}
STEPS, SEED = 4, 0
USABLE = 12.5  # percent of the words
RESULTS = Path(__file__).parent / "results" / "voice_ranges.json"


def clear(rates: dict[float, float], default: float) -> tuple[float, float]:
    """Lowest and highest value of an option that is about as well understood as the default. rates:
    word error rate in percent of each value.
    """
    return _within(rates, default, 2 * rates[default] + 1)


def usable(rates: dict[float, float], default: float) -> tuple[float, float]:
    """Lowest and highest value that can still be followed."""
    return _within(rates, default, USABLE)


def _within(rates: dict[float, float], default: float, most: float) -> tuple[float, float]:
    ends = []
    for way in (
        sorted((v for v in rates if v <= default), reverse=True),
        sorted(v for v in rates if v >= default),
    ):
        good = [
            value
            for n, value in enumerate(way)
            if all(rates[before] <= most for before in way[: n + 1])
        ]
        ends.append(good[-1])
    return ends[0], ends[1]


def measure() -> dict[str, dict[float, float]]:
    """Word error rate in percent at each value of each option."""
    from tqdm import tqdm

    import mdmspeech
    from mdmspeech.evaluation.recogniser import Recogniser
    from mdmspeech.inference import generation_config

    generation_config.PACES, generation_config.TEMPERATURES = (
        (min(PACES), max(PACES)),
        (min(TEMPERATURES), max(TEMPERATURES)),
    )  # all of them, this once
    voice, recogniser = mdmspeech.load("compact").voice(), Recogniser("base")

    def rate(**option: float) -> float:
        said = voice.say_many(SENTENCES, steps=STEPS, seed=SEED, **option)
        return round(
            100
            * recogniser.spoken_errors(
                [one.audio for one in said], SENTENCES, voice.codec.sample_rate
            ).wer,
            1,
        )

    default = rate()
    jobs = [("pace", value) for value in PACES] + [("temperature", value) for value in TEMPERATURES]
    found: dict[str, dict[float, float]] = {"pace": {}, "temperature": {}}
    for name, value in tqdm(jobs, unit="setting"):
        found[name][value] = default if value == DEFAULTS[name] else rate(**{name: value})
    return found


def page(result: dict) -> str:
    """The result as a page."""
    from mdmspeech.evaluation.provenance import line

    lines = ["# Ranges of pace and temperature", "", *__doc__.strip().split("\n\n")[2:], ""]
    for name, rates in result["wer"].items():
        ranges = [
            f"{rule} from {low:g} to {high:g}"
            for rule in ("clear", "usable")
            for low, high in [result[rule][name]]
        ]
        lines += [f"| {name} | " + " | ".join(rates) + " |", "|---" * (len(rates) + 1) + "|"]
        lines += [
            "| word errors, % | " + " | ".join(f"{rate:.1f}" for rate in rates.values()) + " |",
            "",
            f"It is {' and '.join(ranges)}.",
            "",
        ]
    return "\n".join([*lines, line(result["made"]), ""])


def main() -> None:
    from mdmspeech.evaluation.provenance import provenance

    if sys.argv[1:] == ["--recount"]:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))
        write(
            {
                name: {float(value): rate for value, rate in rates.items()}
                for name, rates in kept["wer"].items()
            },
            kept["made"],
        )
        return
    found = measure()
    words = sum(len(sentence.split()) for sentence in SENTENCES)
    write(
        found,
        provenance(sizes={"sentences": len(SENTENCES), "words": words}, seeds={"speech": SEED}),
    )


def write(found: dict[str, dict[float, float]], made: dict) -> None:
    """Applies the rules and writes both files."""
    result = {
        "wer": {
            name: {f"{value:g}": rate for value, rate in rates.items()}
            for name, rates in found.items()
        },
        **{
            rule.__name__: {name: rule(rates, DEFAULTS[name]) for name, rates in found.items()}
            for rule in (clear, usable)
        },
        "made": made,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(page(result), encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
