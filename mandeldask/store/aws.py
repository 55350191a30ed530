"""What the environment and AWS's usual files say of S3: where the server is, and with which keys to go there.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
"""

from __future__ import annotations

import os
from configparser import Error, RawConfigParser
from typing import NamedTuple

from mandeldask.errors import StoreError

# Where else obstore finds credentials by itself, beside the machine's metadata: containers, and tokens of Kubernetes.
ELSEWHERE = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


class Options(NamedTuple):
    """What is no secret, and travels with a store; empty where nothing is said."""

    endpoint: str = ""
    region: str = ""
    virtual_hosted: bool = False


def options() -> Options:
    """The options that this process is given."""
    endpoint = _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    region = _first("AWS_REGION", "AWS_DEFAULT_REGION")
    if not (endpoint and region):
        profile = _section("AWS_CONFIG_FILE", "config", _profile())
        endpoint = endpoint or profile.get("endpoint_url", "")
        region = region or profile.get("region", "")
    if "@" in endpoint or not (endpoint == "" or endpoint.startswith(("http://", "https://"))):
        raise StoreError(
            "the endpoint of S3 (AWS_ENDPOINT_URL) is http://HOST:PORT or https://HOST, without a name or a password"
        )
    return Options(endpoint, region, _first("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").lower() in ("1", "true"))


def keys() -> dict[str, str]:
    """The keys that the environment or the usual files hold; {} where neither does, and obstore may look elsewhere.

    Raises
    ------
    StoreError
        A profile that is named and not there, or holds no keys of its own; half a pair of keys.
    """
    if _first("AWS_ACCESS_KEY_ID") or _first("AWS_SECRET_ACCESS_KEY"):
        return _pair({name: _first(f"AWS_{name.upper()}") for name in NAMES}, "the environment")
    profile = _profile()
    sections = [_section(*file, profile) for file in FILES]
    for section in sections:
        found = {name: section.get(f"aws_{name}", "") for name in NAMES}
        if found["access_key_id"] or found["secret_access_key"]:
            return _pair(found, f"profile {profile}")
    if _first("AWS_PROFILE"):
        there = "holds no keys of its own" if any(sections) else "is in neither of AWS's files"
        raise StoreError(
            f"AWS_PROFILE names {profile}, which {there}: name another, or export its keys with "
            f"`aws configure export-credentials --profile {profile} --format env`"
        )
    return {}


NAMES = ("access_key_id", "secret_access_key", "session_token")
FILES = (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))


def _pair(found: dict[str, str], source: str) -> dict[str, str]:
    for name in NAMES[:2]:
        if not found[name]:
            raise StoreError(f"{source} has half a pair of keys: it lacks AWS_{name.upper()}")
    return {name: value for name, value in found.items() if value}


def _profile() -> str:
    return _first("AWS_PROFILE", "AWS_DEFAULT_PROFILE") or "default"


def _section(variable: str, name: str, profile: str) -> dict[str, str]:
    """What a file says of a profile; {} where there is no such file, or no such profile in it."""
    path = os.path.expanduser(os.environ.get(variable) or f"~/.aws/{name}")
    parser = RawConfigParser(strict=False, default_section="")
    try:
        parser.read(path, encoding="utf-8")
    except (Error, OSError, UnicodeDecodeError) as error:  # its text would show a line of the file
        raise StoreError(f"cannot read {path}: {type(error).__name__}; mend it, or set {variable}") from None
    section = f"profile {profile}" if name == "config" and profile != "default" else profile
    return dict(parser[section]) if parser.has_section(section) else {}


def _first(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
