"""Model cards: the metadata by which the Hugging Face Hub finds, filters and credits a model, as YAML
before the Markdown (huggingface.co/docs/hub/model-cards).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mdmspeech.errors import UserError
from mdmspeech.interop.sources import PUBLISHED

LIBRARY = "mdmspeech"
UNKNOWN = "unknown"  # the Hub's word for a licence that nobody has said
_FROM = {"cosyvoice2": "FunAudioLLM/CosyVoice2-0.5B"}  # beginnings of kinds -> where they are from
_IN_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/")
_STEPS = (1, 4)  # the fastest, and the default
_TALKERS = {
    "mdm": "talker",
    "ntp": "talker_ntp",
    "mtp": "talker_mtp",
    "mtp_verified": "talker_mtp",
}
# name of a set of texts in the scores -> as a card calls it
_SETS = {"answers": "answers to spoken questions", "open": "open sentences"}


def metadata(release: Any) -> dict[str, Any]:
    """What a release (`interop.release.Release`) says by itself. Its licence and data it does not
    know.
    """
    kinds = {part.kind for part in release.parts.values()}
    hears, aligns = "adaptor" in release.parts, "aligner" in release.parts
    states = hears or any(part.prompt is not None for part in release.parts.values())
    used = (release.thinker,) * states + (release.encoder,) * (hears or aligns)
    bases = [base for base in map(repository_of, used) if base]
    bases += [
        base for start, base in _FROM.items() if any(kind.startswith(start) for kind in kinds)
    ]
    speaks = bool(set(_TALKERS.values()) & set(release.parts))
    task = "audio-to-audio" if speaks and hears else "text-to-speech"
    tags = ["speech-llm", "spoken-dialogue"] * (speaks and hears)
    tags += ["masked-diffusion"] * ("talker" in release.parts) + ["streaming"] * speaks
    return {
        "license": UNKNOWN,
        "language": ["en"],  # texts are read aloud by English rules (`text.normalise`)
        "library_name": LIBRARY,
        **({"pipeline_tag": task} if speaks else {}),
        **({"base_model": bases} if bases else {}),
        "tags": [*tags, "speech", "jax", "safetensors"],
    }


def default_card(release: Any) -> str:
    """A card that says what is inside. Of a folder of this machine it has the name alone."""
    thinker, encoder = (
        repository_of(source) or Path(source).name for source in (release.thinker, release.encoder)
    )
    lines = [
        f"# {release.name}",
        "",
        f"Speaks with {thinker} as Thinker and hears through {encoder}.",
        "",
    ]
    for name, part in release.parts.items():
        count = sum(np.size(leaf) for leaf in flatten_dict(part.params).values())
        lines.append(f"- {name} ({part.kind}): {count / 1e6:.1f} M parameters")
    return "\n".join(lines) + "\n"


def repository_of(source: Any) -> str:
    """The repository of the Hub that a pretrained part is from: by its name, or by its place in the
    Hub's cache; "" where neither says it.
    """
    text = str(source)
    found = _IN_CACHE.search(Path(text).as_posix() + "/")
    return PUBLISHED.get(text) or (f"{found[1]}/{found[2]}" if found else "")


def complete(card: str, known: Mapping[str, Any]) -> str:
    """The card with those of the metadata that it does not have itself.

    Raises:
      UserError: its own are no YAML, or not what the Hub takes.
    """
    import yaml
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if not REGEX_YAML_BLOCK.search(card):
        return f"---\n{ModelCardData(**known).to_yaml()}\n---\n\n{card}"
    try:
        whole = ModelCard(card)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"the metadata of the card are not what the Hugging Face Hub takes "
            f"({' '.join(str(error).split())[:200]}); correct them, or leave them out"
        ) from error
    own = whole.data.to_dict()
    added = {key: value for key, value in known.items() if key not in own}
    if not added:
        return card
    block = ModelCardData(**own, **added).to_yaml(original_order=list(own))
    return f"---\n{block}\n---\n{whole.text}"


def model_index(name: str, scores: Mapping[str, Any], parts: Any) -> list[dict[str, Any]]:
    """The scores of `mdmspeech eval` as the field "model-index" of a card.

    Args:
      scores: its JSON file, of which 1 and 4 steps are told. parts: names of those in the release;
        Talkers that are not in it are left out.

    Raises:
      UserError: no scores in it.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}  # (task, data) -> metrics
    for row in scores.get("speaking", {}).get("rows", ()):
        if _TALKERS.get(row["talker"]) not in parts or row["steps"] not in _STEPS:
            continue
        how = f"{row['steps']} step{'s' * (row['steps'] > 1)}, talker {row['talker']}"
        said = found.setdefault(("text-to-speech", _SETS.get(row["set"], row["set"])), [])
        said.append(_metric("wer", f"word error rate of what is said, {how}", row["wer"]))
        if mos := row.get("mos"):
            said.append(_metric("dnsmos", f"DNSMOS OVRL, {how}", mos["ovrl"]))
    heard = {"transcript": "questions of unseen voices", "human_transcript": "recorded people"}
    for key, who in heard.items():
        if score := scores.get("hearing", {}).get(key):
            rate = _metric("wer", "word error rate of what is heard", score["wer"])
            found["automatic-speech-recognition", who] = [rate]
    if score := scores.get("codec", {}).get("resynthesis"):
        rate = _metric("wer", "word error rate after the codec", score["wer"])
        found["audio-to-audio", "recordings of the answer voice"] = [rate]
    if not found:
        raise UserError(
            "there are no scores of this release: give the JSON file of `mdmspeech eval`"
        )
    results = [
        {
            "task": {"type": task},
            "dataset": {
                "name": f"mdmspeech eval: {data}",
                "type": f"mdmspeech-{data.replace(' ', '-')}",
            },
            "metrics": metrics,
        }
        for (task, data), metrics in found.items()
    ]
    return [{"name": name, "results": results}]


def _metric(kind: str, name: str, value: float) -> dict[str, Any]:
    return {"type": kind, "name": name, "value": value}
