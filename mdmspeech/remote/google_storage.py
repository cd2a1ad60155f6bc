"""gs://: gcsfs with the timeouts and retries of all our file systems."""

import os

import aiohttp
import gcsfs.core

from mdmspeech.remote import accounts, retrying

# without gcsfs's own retries: from one second up, six times, each logged with a traceback
_request_once = getattr(
    gcsfs.core.GCSFileSystem._request, "__wrapped__", gcsfs.core.GCSFileSystem._request
)


class GoogleStorage(gcsfs.core.GCSFileSystem):
    """gcsfs's plain class. The one that fsspec would take by itself asks a gRPC service for the
    kind of each bucket, with log-in and retries of its own, and is not safe to fork. Retries are by
    request, so that a long upload goes on where it was.
    """

    def __init__(self, *args, **kwargs):
        stall = retrying.stall_seconds()
        limits = aiohttp.ClientTimeout(total=None, sock_connect=stall, sock_read=stall)
        defaults = {"requests_timeout": limits, "use_listings_cache": False}
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            defaults["token"] = (
                "anon"  # an emulator has no accounts; a search for one takes seconds
            )
        if accounts.acting() is not None:
            defaults["token"] = accounts.acting()
        kwargs.pop("finalize_on_close", None)  # of buckets of another kind; etils gives it
        super().__init__(*args, **{**defaults, **kwargs})

    async def _request(self, *args, **kwargs):
        return await retrying.call_async(_request_once, self, *args, **kwargs)
