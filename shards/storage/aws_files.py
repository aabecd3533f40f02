"""AWS's own files of settings, which obstore does not read: credentials, region and endpoint by profile."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shards.storage.errors import StorageError

REREAD_AFTER = timedelta(seconds=60)  # whoever renews credentials writes them into the file


class AwsFiles:
    """What `~/.aws/credentials` and `~/.aws/config` say, unless the environment says it.

    Args:
        environment: of the process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.profile = environment.get("AWS_PROFILE", "default")
        self.credentials = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
        self.config = Path(environment.get("AWS_CONFIG_FILE", "~/.aws/config")).expanduser()

    def options(self) -> dict[str, Any]:
        """Return what obstore is to be told besides the environment, which it reads itself."""
        told: dict[str, Any] = {}
        environment, configured = self.environment, self.configured()
        if not {"AWS_REGION", "AWS_DEFAULT_REGION"} & environment.keys():
            # Servers other than Amazon's mostly take any; without one, the library refuses to sign.
            told["region"] = configured.get("region", "us-east-1")
        if (endpoint := self.endpoint()) and not environment.get("AWS_ENDPOINT_URL"):
            told["endpoint"] = endpoint
        if "AWS_ACCESS_KEY_ID" not in environment and self.keys():
            told["credential_provider"] = self.provide
        return told

    def endpoint(self) -> str | None:
        """Return the endpoint that is not Amazon's; None: Amazon's."""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        named = [self.environment[name] for name in names if self.environment.get(name)]
        return named[0] if named else self.configured().get("endpoint_url")

    def provide(self) -> dict[str, Any]:
        """Return the credentials of now; obstore asks again when they expire.

        Raises:
            StorageError: they are gone.
        """
        keys = self.keys()
        if not keys:
            raise StorageError(f"{self.credentials} has no credentials of the profile {self.profile!r} any more")
        return {
            "access_key_id": keys["aws_access_key_id"],
            "secret_access_key": keys["aws_secret_access_key"],
            "token": keys.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + REREAD_AFTER,
        }

    def keys(self) -> Mapping[str, str]:
        """Return the profile's section with both keys; empty: there is none."""
        for path, section in ((self.credentials, self.profile), (self.config, self.config_section())):
            found = read_section(path, section)
            if {"aws_access_key_id", "aws_secret_access_key"} <= found.keys():
                return found
        return {}

    def configured(self) -> Mapping[str, str]:
        """Return the profile's section in the file of settings."""
        return read_section(self.config, self.config_section())

    def config_section(self) -> str:
        """Return what the file of settings calls the profile."""
        return "default" if self.profile == "default" else f"profile {self.profile}"


def read_section(path: Path, section: str) -> Mapping[str, str]:
    """Return a section of a file; empty: there is none.

    Raises:
        StorageError: the file cannot be read.
    """
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError) as error:
        # Not its text: that would show lines of the file.
        raise StorageError(f"{path} is no file of AWS settings ({type(error).__name__})") from None
    return dict(parser[section]) if parser.has_section(section) else {}
