"""What a file is, told from its first bytes: its name may lie, and what cannot be read should at
least be called by its name.
"""

from typing import NamedTuple

HEAD = 4096  # bytes that are looked at


class Kind(NamedTuple):
    """words: for messages, "an MP4 or M4A file". demuxer: FFmpeg's name of the container, None for
    what is no sound at all.

    native: libsndfile reads most of it, so that FFmpeg is only a second try. cure: what to do about
      a file that is no sound.
    """

    words: str
    demuxer: str | None
    native: bool = False
    cure: str = "give a recording"


_EXTRACT = "unpack it and give one of the recordings in it"
_AT: list[tuple[int, bytes, Kind]] = [  # (offset, bytes there, kind)
    (0, b"RIFX", Kind("a WAV file", "wav", native=True)),
    (0, b"RF64", Kind("a WAV file", "wav", native=True)),
    (0, b"riff\x2e\x91\xcf\x11", Kind("a Wave64 file", "w64", native=True)),
    (0, b"fLaC", Kind("a FLAC file", "flac", native=True)),
    (0, b"OggS", Kind("an Ogg file", "ogg", native=True)),
    (0, b"ID3", Kind("an MP3 file", "mp3", native=True)),
    (0, b"FORM", Kind("an AIFF file", "aiff", native=True)),
    (0, b".snd", Kind("an AU file", "au", native=True)),
    (0, b"caff", Kind("a CAF file", "caf", native=True)),
    *(
        (4, box, Kind("an MP4, M4A, MOV or 3GP file", "mp4"))
        for box in (b"ftyp", b"moov", b"mdat", b"wide")
    ),
    (0, b"\x1a\x45\xdf\xa3", Kind("a WebM or Matroska file", "matroska")),
    (0, b"#!AMR", Kind("an AMR file", "amr")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("a Windows Media file", "asf")),
    (0, b"FLV\x01", Kind("a Flash video", "flv")),
    (0, b"wvpk", Kind("a WavPack file", "wv")),
    (0, b"MAC ", Kind("a Monkey's Audio file", "ape")),
    (0, b"TTA1", Kind("a True Audio file", "tta")),
    (0, b"\x0b\x77", Kind("an AC-3 file", "ac3")),
    (0, b"\x00\x00\x01\xba", Kind("an MPEG video", "mpeg")),
    (0, b"PK\x03\x04", Kind("a zip archive (or an Office document)", None, cure=_EXTRACT)),
    (0, b"\x1f\x8b", Kind("a gzip archive", None, cure=_EXTRACT)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", None, cure=_EXTRACT)),
    (0, b"Rar!", Kind("a rar archive", None, cure=_EXTRACT)),
    (257, b"ustar", Kind("a tar archive", None, cure=_EXTRACT)),
    (
        0,
        b"\x93NUMPY",
        Kind("a NumPy file", None, cure="pass numpy.load of it, and the rate of its samples"),
    ),
    (0, b"%PDF", Kind("a PDF document", None)),
    (0, b"\x89PNG", Kind("a picture", None)),
    (0, b"\xff\xd8\xff", Kind("a picture", None)),
    (0, b"GIF8", Kind("a picture", None)),
    (0, b"MThd", Kind("a MIDI file: notes, no sound", None)),
    (0, b"\x7fELF", Kind("a program", None)),
    (0, b"SQLite format 3", Kind("a database", None)),
]
_RIFF = {
    b"WAVE": Kind("a WAV file", "wav", native=True),
    b"AVI ": Kind("an AVI video", "avi"),
    b"WEBP": Kind("a picture", None),
}
_WORDS: list[tuple[bytes, Kind]] = [  # beginnings of texts, in small letters
    (
        b"version https://git-lfs",
        Kind("a Git LFS pointer, not the recording itself", None, cure="run git lfs pull"),
    ),
    (b"#extm3u", Kind("a playlist", None, cure="give one of the recordings in it")),
    (b"<!doctype html", Kind("a web page", None, cure="download the recording itself")),
    (b"<html", Kind("a web page", None, cure="download the recording itself")),
    (b"<?xml", Kind("an XML text", None)),
    (b"{", Kind("a text (JSON)", None)),
]


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins with these bytes; None if they tell nothing."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], _RIFF[b"WAVE"])
    for at, mark, kind in _AT:
        if head[at : at + len(mark)] == mark:
            return kind
    if (text := _text(head)) is not None:
        return text
    # MPEG's sync word; layer 0 is AAC's
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return (
            Kind("an AAC file", "aac")
            if head[1] & 0xF6 == 0xF0
            else Kind("an MP3 file", "mp3", native=True)
        )
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return Kind("an MPEG transport stream", "mpegts")
    return None


def _text(head: bytes) -> Kind | None:
    """A kind of text, if the bytes are one."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for mark, kind in _WORDS:
        if begin.startswith(mark):
            return kind
    coding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    for cut in range(4):  # the last character may be cut
        try:
            text = head[: len(head) - cut].decode(coding)
        except UnicodeDecodeError:
            continue
        return (
            Kind("a text", None)
            if text and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
            else None
        )
    return None
