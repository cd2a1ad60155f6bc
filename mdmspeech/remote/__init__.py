"""Files on a disk or on object storage, by path or URL ("gs://", "s3://", "hf://", what fsspec
knows): the one layer through which a bucket is read and written. Importing it is cheap.
"""

from mdmspeech.remote.accounts import NotKnown, acting, acting_as, credentials_of
from mdmspeech.remote.filesystem import register
from mdmspeech.remote.folders import hole, local_folder, origin, whole
from mdmspeech.remote.local_copies import cache_folder, local_copy
from mdmspeech.remote.objects import (
    Stat,
    copy,
    download,
    exists,
    is_dir,
    is_file,
    list_names,
    read_bytes,
    read_json,
    read_range,
    read_text,
    remove,
    sha256,
    size,
    stat,
    upload,
    write_bytes,
    write_text,
)
from mdmspeech.remote.paths import Place, is_remote, join, local, name, parent, scheme, shown
from mdmspeech.remote.retrying import NotFound

__all__ = [
    "NotFound", "NotKnown", "Place", "Stat", "acting", "acting_as", "cache_folder", "copy",
    "credentials_of", "download", "exists", "hole", "is_dir", "is_file", "is_remote", "join",
    "list_names", "local", "local_copy", "local_folder", "name", "origin", "parent", "read_bytes",
    "read_json", "read_range", "read_text", "register", "remove", "scheme", "sha256", "shown",
    "size", "stat", "upload", "whole", "write_bytes", "write_text",
]  # fmt: skip
