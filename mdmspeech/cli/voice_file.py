"""`mdmspeech voice`: a recording of somebody in, a small voice file out, in whose voice a model
with CosyVoice2's codec speaks.
"""

import argparse
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "voice",
        help="make a voice from a recording, for CosyVoice2's codec",
        description="Trims a recording of one speaker (3 to 30 s of speech), brings it to a "
        "level, and writes what CosyVoice2's codec needs to go on in that voice: speech tokens, "
        "mel and speaker vector. Only use voices whose speakers agree to it.",
    )
    parser.add_argument(
        "recording", metavar="RECORDING", help="clean speech of one speaker: wav, flac, ogg or mp3"
    )
    parser.add_argument(
        "-o",
        "--output",
        default="voice.safetensors",
        metavar="FILE",
        help="the voice file (default: %(default)s)",
    )
    parser.add_argument(
        "--codec",
        required=True,
        metavar="DIR",
        help=(
            "whose tokens: CosyVoice2-0.5B as published (it has "
            "speech_tokenizer_v2.onnx), or a model folder with that codec"
        ),
    )
    parser.add_argument(
        "--campplus",
        metavar="FILE",
        help="the speaker encoder campplus.onnx (default: the one in the folder of --codec)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    output = Path(args.output)
    if output.suffix != ".safetensors" or output.is_dir() or not output.absolute().parent.is_dir():
        raise UserError(f"cannot write {output}: name a .safetensors file in a folder that exists")
    check_writable(output, "name another file")
    campplus = Path(args.campplus) if args.campplus else Path(args.codec) / "campplus.onnx"
    if not campplus.is_file():
        raise UserError(
            f"{campplus} does not exist; give --campplus FILE: campplus.onnx of "
            "CosyVoice2-0.5B, which makes the speaker vector"
        )
    if not Path(args.recording).is_file():
        raise UserError(f"{args.recording} does not exist; give a recording")
    import hashlib

    from mdmspeech.codec.cosyvoice2.campplus import CamPlus
    from mdmspeech.codec.cosyvoice2.prompt import prepare_voice
    from mdmspeech.codec.cosyvoice2.s3_speech import S3Tokenizer
    from mdmspeech.interop.voice_file import save_voice

    embed, tokenizer = CamPlus(campplus), S3Tokenizer(*_tokenizer(args.codec))
    prompt = prepare_voice(args.recording, tokenizer, embed)
    about = {
        "recording": Path(args.recording).name,
        "recording_sha256": hashlib.sha256(Path(args.recording).read_bytes()).hexdigest(),
        "speaker_encoder_sha256": hashlib.sha256(campplus.read_bytes()).hexdigest(),
    }
    size = save_voice(output, prompt, about)
    print(
        f"{output}: {len(prompt.ids) / tokenizer.token_rate:.1f} s, "
        f"{len(prompt.ids)} tokens, {size / 1e3:.0f} kB"
    )


def _tokenizer(source: str):
    """(sizes, parameters) of the S3 tokenizer of a published folder or of a model folder."""
    from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
    from mdmspeech.interop.cosyvoice2 import FILES, PUBLISHED, find_file
    from mdmspeech.interop.cosyvoice2_tokenizer import load_s3_tokenizer
    from mdmspeech.interop.hub import parse
    from mdmspeech.interop.release import CONFIG, load_part

    if path := find_file(source, "tokenizer"):
        return load_s3_tokenizer(path)
    if not (Path(source) / CONFIG).is_file() and not parse(source):
        raise UserError(
            f"{source} has no {FILES['tokenizer'][0]} and is no model folder; give "
            f"the folder of {PUBLISHED}"
        )
    part = load_part(source, "codec")
    if not isinstance(part.config, CosyVoice2Config):
        raise UserError(
            f"the model {source} has a codec of kind {part.kind}, which has one "
            "voice of its own; give one with CosyVoice2's codec"
        )
    return part.config.tokenizer, part.params["tokenizer"]
