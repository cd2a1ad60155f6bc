"""The permissions of another account: what buckets allow a service account is asked by acting as it.

Source: docs.cloud.google.com/iam/docs/service-account-impersonation.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from mdmspeech.errors import UserError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_acting: Any = None


class NotKnown(UserError):
    """This person may not act as the account, which says nothing of what the account may."""


def credentials_of(account: str) -> Any:
    """Short-lived ones of a service account (its e-mail address), got with this person's log-in.

    Raises:
      NotKnown: nobody is logged in here, or this person may not act as it.
      UserError: there is no such account, or a package is missing.
    """
    try:
        import google.auth
        from google.auth import exceptions, impersonated_credentials
        from google.auth.transport.requests import Request
    except ImportError as error:
        raise UserError(
            f"cannot act as {account}: {error}; pip install mdmspeech[cloud] brings what it needs"
        ) from error
    try:
        own, _ = google.auth.default(scopes=[_SCOPE])
        found = impersonated_credentials.Credentials(own, account, [_SCOPE])
        found.refresh(Request())
    except exceptions.DefaultCredentialsError as error:
        raise NotKnown("nobody is logged in here: gcloud auth application-default login") from error
    except exceptions.GoogleAuthError as error:
        if "NOT_FOUND" in str(error):
            raise UserError(
                f"there is no service account {account}: see gcloud iam service-accounts list"
            ) from error
        raise NotKnown(
            f"you may not act as {account}, so what buckets allow it cannot be asked; grant yourself "
            "roles/iam.serviceAccountTokenCreator on it, or see that it has roles/storage.objectUser "
            "on the bucket of the workdir and roles/storage.objectViewer on those that are read"
        ) from error
    return found


@contextlib.contextmanager
def acting_as(credentials: Any) -> Iterator[None]:
    """gs:// is opened with these credentials inside; None: with this person's."""
    global _acting
    before, _acting = _acting, credentials
    try:
        yield
    finally:
        _acting = before


def acting() -> Any:
    """The credentials of `acting_as`, None outside."""
    return _acting
