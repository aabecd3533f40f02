"""What a storage answers when it does not give or take what was asked for, in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shards.errors import DataError

STATUS = re.compile(r"(?:status(?: code)?:?|HTTP error:?|Client error) *(?:code *)?\(?([1-5]\d\d)\b", re.IGNORECASE)
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# What a server or a library says of credentials that have run out and are renewed by somebody else, or of a clock.
EXPIRED = re.compile(r"ExpiredToken|token (?:has|is) expired|RequestTimeTooSkewed", re.IGNORECASE)
# Query strings hold signatures, and error texts of libraries hold whole requests.
SECRETS = re.compile(r"\?[^\s\"')]+|(?:AWSAccessKeyId|Signature|X-Amz-[A-Za-z-]+)=[^&\s]+|//[^/\s@]+:[^/\s@]+@")
# Errors of the libraries of fsspec's file systems that pass: they have no class in common.
PASSING = re.compile(r"Connect|Timeout|Protocol|Disconnected|Payload|^(GenericError|CutBody|JoinError|ReadError)$")
MAX_DETAIL = 300  # characters of a library's own text


class StorageError(DataError):
    """A storage refuses, or cannot be reached; the message names URL, status and what to do."""


class NotFound(StorageError):
    """There is no such object, bucket or host."""


class Unreachable(StorageError):
    """It did not answer, or only with errors that pass, for as long as was waited: the same may succeed later."""


@dataclass(frozen=True)
class Problem:
    """What is known of an error of a backend."""

    status: int | None
    detail: str
    missing: bool
    retry: bool


def read_problem(error: Exception) -> Problem:
    """Return what is known of an error of obstore, fsspec or the operating system."""
    text = SECRETS.sub("…", " ".join(str(error).partition("Debug source")[0].split()))
    found = STATUS.search(text)
    status = int(found[1]) if found else getattr(error, "status", None)
    missing = isinstance(error, FileNotFoundError | NotADirectoryError) or status == 404
    name = type(error).__name__
    if name in ("PermissionDeniedError", "UnauthenticatedError") and status is None:
        status = 403 if name == "PermissionDeniedError" else 401
    local = isinstance(error, IsADirectoryError | PermissionError) or getattr(error, "errno", None) in (28, 122)
    final = missing or local or (status is not None and status not in RETRIED_STATUS)
    known = isinstance(error, OSError) or bool(PASSING.search(name))
    return Problem(status, text[:MAX_DETAIL], missing, bool(EXPIRED.search(text)) or (known and not final))


def storage_error(url: str, doing: str, problem: Problem, waited_s: float) -> StorageError:
    """Return the error for a user.

    Args:
        url: of the object.
        doing: what failed, such as "read".
        problem: what is known of it.
        waited_s: how long it was tried.
    """
    status = f" (status {problem.status})" if problem.status else ""
    if problem.missing and "NoSuchBucket" in problem.detail:
        return NotFound(f"{url}: there is no such bucket{status}: check its name, AWS_ENDPOINT_URL and AWS_REGION")
    if problem.missing:
        return NotFound(f"{url} does not exist{status}: check its name")
    if problem.retry:
        return Unreachable(
            f"{url} could not be {doing} for {waited_s:.0f} s{status}: check the network and the server, then run the "
            f"same command again; the last answer was: {problem.detail}"
        )
    if problem.status in (401, 403) or "credential" in problem.detail.lower():
        return StorageError(
            f"{url} may not be {doing}{status}: check the credentials in the environment (of s3:// AWS_ACCESS_KEY_ID "
            f"and so on, or AWS_SKIP_SIGNATURE=true for a public bucket); the answer was: {problem.detail}"
        )
    return StorageError(f"{url} could not be {doing}{status}: {problem.detail}")
