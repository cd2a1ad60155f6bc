"""Multipart bodies: fields and one file, in memory. A file's name is not even looked at."""

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from mdmspeech.serving.fields import Fields
from mdmspeech.serving.request_error import RequestError

_MOST_PARTS = 64
_LONGEST_FIELD = 16_384  # bytes of a field that is no file


async def form_body(request: web.Request, file: str, most: int) -> tuple[bytes, Fields]:
    """The content of the part `file`, and the other parts, each a text.

    RequestError: no multipart body, a damaged one, no such part, or more than `most` bytes.
    """
    if request.content_type != "multipart/form-data":
        raise RequestError(
            "the body is no multipart/form-data; send the recording as the part 'file'", file
        )
    try:
        return await _read(request, file, most)
    except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(
            f"the multipart body is damaged ({type(error).__name__}); send it anew"
        ) from error


async def _read(request: web.Request, file: str, most: int) -> tuple[bytes, Fields]:
    content, fields, count = None, dict[str, str](), 0
    async for part in await request.multipart():
        count += 1
        if not isinstance(part, BodyPartReader) or part.name is None or count > _MOST_PARTS:
            raise RequestError("a part of the multipart body has no name, or there are too many")
        room = most if part.name == file else _LONGEST_FIELD
        data = bytearray()
        while chunk := await part.read_chunk(2**16):
            data += chunk
            if len(data) > room:
                raise RequestError(
                    f"the part {part.name[:40]!r} is larger than {room} bytes",
                    part.name[:40], code="request_too_large", status=413,
                )  # fmt: skip
        if part.name == file:
            content = bytes(data)
        else:
            fields[part.name] = data.decode("utf-8")
    if content is None:
        raise RequestError(f"the part {file!r} is missing; send the recording as it", file)
    return content, Fields(fields)
