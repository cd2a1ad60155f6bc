"""Small corpora laid out as the real ones are, with real audio files in them."""

import io
import json
import tarfile

import numpy as np
import soundfile

from mdmspeech.data.importers import BadItem, Item, open_corpus

SECONDS = 0.5
TEXTS = (
    "Printing, in the only sense.",
    "Modern as it is, it differs.",
    "He said no.",
    "It is two.",
)


def tone(number, rate=16_000, seconds=SECONDS):
    """A tone that only this number has, int16 [N]; its second half is loud."""
    time = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * (200 + 40 * number) * time) * np.where(time < seconds / 2, 0.1, 0.5)
    return np.round(wave * 32767).astype(np.int16)


def encoded(number, ending="wav", rate=16_000, seconds=SECONDS):
    """The same as the bytes of a file."""
    out = io.BytesIO()
    soundfile.write(out, tone(number, rate, seconds), rate, format=ending.upper())
    return out.getvalue()


def put(folder, name, content):
    """Writes a file, text or bytes, and the folders it needs."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def manifest(folder):
    for n in range(3):
        put(folder, f"wavs/{n}.wav", encoded(n))
    lines = [
        {"audio": "wavs/0.wav", "text": TEXTS[0], "speaker": "ann", "language": "en"},
        {"audio": "wavs/1.wav", "text": TEXTS[1], "id": "one", "voice": "bob", "answer": "Yes."},
        {"audio": "wavs/2.wav", "text": TEXTS[2], "split": "test", "licence": "mit"},
    ]
    put(folder, "manifest.jsonl", "\n".join(map(json.dumps, lines)) + "\n")


def vocalnet(folder):
    entries = []
    for n in range(3):
        put(folder, f"VoiceAssistant-430K-vocalnet/audios/{n}.wav", encoded(n))
        out = io.BytesIO()
        np.save(out, np.array([[5, 6, 7 + n]]))
        put(folder, f"VoiceAssistant-430K-vocalnet/cosyvoice2_tokens/{n}.npy", out.getvalue())
        entries.append(
            {
                "id": str(19090 + n),
                "speech": f"VoiceAssistant-430K-vocalnet/audios/{n}.wav",
                "conversations": [
                    {"from": "human", "value": f"<speech>{TEXTS[n] if n else ''}"},
                    {"from": "gpt", "value": f"It depends on the laws of {n} places."},
                ],
                "units": f"VoiceAssistant-430K-vocalnet/cosyvoice2_tokens/{n}.npy",
            }
        )
    put(folder, "VoiceAssistant-430K-vocalnet/VoiceAssistant-430K.json", json.dumps(entries))


def ljspeech(folder):
    lines = []
    for n in range(3):
        put(folder, f"wavs/LJ001-000{n}.wav", encoded(n, rate=22_050))
        lines.append(f'LJ001-000{n}|"{TEXTS[n]}" in 14{n}0|{TEXTS[n]} {n}\n')
    put(folder, "metadata.csv", "".join(lines))
    put(folder, "README", "The LJ Speech Dataset\n\nLICENSE: Public Domain\n")


def librispeech(folder):
    put(
        folder,
        "LibriSpeech/SPEAKERS.TXT",
        "; pipe(|) separated\n;ID  |SEX| SUBSET  |MINUTES| NAME\n"
        "84   | F | dev-clean        | 8.02  | Christie Nowak\n"
        "103  | F | train-clean-100  | 25.1  | Karen Savage\n",
    )
    for n, (split, who) in enumerate(
        (("train-clean-100", 103), ("dev-clean", 84), ("test-other", 367))
    ):
        chapter = f"LibriSpeech/{split}/{who}/12{n}"
        lines = ""
        for k in range(2):
            name = f"{who}-12{n}-000{k}"
            put(folder, f"{chapter}/{name}.flac", encoded(2 * n + k, "flac"))
            lines += f"{name} {TEXTS[k].upper().strip('.')} {n}\n"
        put(folder, f"{chapter}/{who}-12{n}.trans.txt", lines)


def libritts(folder):
    put(
        folder,
        "LibriTTS/speakers.tsv",
        "READER\tGENDER\tSUBSET\tNAME\n103\tF\ttrain-clean-100\tKaren Savage\n",
    )
    for n, (split, who) in enumerate((("train-clean-100", 103), ("dev-other", 116))):
        for k in range(2):
            name = f"LibriTTS/{split}/{who}/124{n}/{who}_124{n}_000000_00000{k}"
            put(folder, f"{name}.wav", encoded(2 * n + k, rate=24_000))
            put(folder, f"{name}.original.txt", f"{TEXTS[k]} No. {n}")
            put(folder, f"{name}.normalized.txt", f"{TEXTS[k]} Number {n}.")
        table = f"LibriTTS/{split}/{who}/124{n}/{who}_124{n}.trans.tsv"
        put(folder, table, f"{who}_124{n}_000000_000000\tx\t{TEXTS[0]} Number {n}.\n")


def vctk(folder):
    put(
        folder,
        "speaker-info.txt",
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\np225  23  F    English    Southern  England\n",
    )
    for n, who in enumerate(("p225", "p226", "s5")):
        put(folder, f"txt/{who}/{who}_001.txt", f"{TEXTS[n]}\n")
        for mic in (1, 2):
            name = f"wav48_silence_trimmed/{who}/{who}_001_mic{mic}.flac"
            put(folder, name, encoded(2 * n + mic - 1, "flac", 48_000))
    # its texts are lost
    put(folder, "wav48_silence_trimmed/p315/p315_001_mic1.flac", encoded(9, "flac", 48_000))


COLUMNS = (
    "client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accents", "locale",
    "segment",
)  # fmt: skip


def common_voice(folder):
    for n in range(4):
        put(folder, f"cv-corpus-17.0/en/clips/common_voice_en_{n}.mp3", encoded(n, "mp3", 32_000))
    for split, numbers in (
        ("train", (0, 1)),
        ("dev", (2,)),
        ("test", (3,)),
        ("validated", range(4)),
    ):
        lines = ["\t".join(COLUMNS)]
        for n in numbers:
            who, clip = f"c{n % 3}aa", f"common_voice_en_{n}.mp3"
            lines.append(f'{who}\t{clip}\t"{TEXTS[n]}\t2\t0\ttwenties\tfemale\t\ten\t')
        put(folder, f"cv-corpus-17.0/en/{split}.tsv", "\n".join(lines) + "\n")


def parquet(folder):
    import pyarrow as pa
    from pyarrow import parquet as pq

    for shard, (split, numbers) in enumerate(
        (("train", (0, 1)), ("train", (2,)), ("validation", (3,)))
    ):
        rows = [
            {
                "audio": {"bytes": encoded(n, "flac"), "path": f"clip{n}.flac"},
                "transcription": TEXTS[n],
                "speaker_id": 10 + n,
                "gender": "female",
            }
            for n in numbers
        ]
        (folder / "data").mkdir(exist_ok=True)
        name = f"data/{split}-0000{shard % 2}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=1)
    put(folder, "README.md", "---\nlicense: cc-by-4.0\n---\n")


def voice_assistant(folder):
    import pyarrow as pa
    from pyarrow import parquet as pq

    rows = [
        {
            "split_name": "trivia_multi_choice",
            "index": str(n),
            "round": "1",
            "question": TEXTS[n],
            "question_audio": {"bytes": encoded(n, rate=22_050), "path": None},
            "answer": f"The answer is {n}.",
            "answer_snac": f" # {n} 2 3 4 5 6 7 # 8 9 10 11 12 13 14 ",
        }
        for n in range(3)
    ]
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/train-00000-of-00001.parquet")
    put(folder, "README.md", "---\nlicense: apache-2.0\n---\n")


def shard(members):
    """A tar of (name, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def sample(n):
    """The members of a record of a shard."""
    if n % 2:
        return [(f"a/{n:04d}.mp3", encoded(n, "mp3")), (f"a/{n:04d}.txt", TEXTS[n % 4] + "\r\n")]
    said = {"text": TEXTS[n % 4], "speaker": f"s{n}", "language": "de", "duration": SECONDS}
    return [(f"a/{n:04d}.json", json.dumps(said)), (f"a/{n:04d}.wav", encoded(n))]


def webdataset(folder):
    put(folder, "train-000000.tar", shard([*sample(0), *sample(1)]))
    put(folder, "train-000001.tar", shard(sample(2)))
    put(folder, "test-000000.tar", shard(sample(3)))


def read(folder, **options):
    """(good, bad) records of all that is in the folder."""
    found = list(open_corpus(str(folder), **options).items())
    good = [item for item in found if isinstance(item, Item)]
    return good, [problem for problem in found if isinstance(problem, BadItem)]
