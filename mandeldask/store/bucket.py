"""Buckets of an object storage: zarr's ObjectStore over obstore, how patient it is, and its errors in a line.

Obstore finds the credentials: of the environment, of the machine or container, or by boto3 of a profile.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from zarr.core.sync import sync
from zarr.storage import ObjectStore

from mandeldask.errors import StoreError
from mandeldask.text import command, pip_install

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
# A server that restarts is back in seconds; one that hangs, or fails over, takes minutes.
PATIENCE_SECONDS = 300.0
REQUEST_SECONDS = 60.0  # of one request: a shard of 64 MiB at 1 MiB/s
OPENING_SECONDS = 4.0  # where a person opens a store: a wrong address is told at once
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN")
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed")
METADATA = ("/latest/api/token", "/security-credentials", "metadata.google", "metadata/identity")  # of a machine
CREDENTIALS = {  # where they are looked for
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE where boto3 is installed",
    "gs": "name the file of a service account in GOOGLE_SERVICE_ACCOUNT",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
REASONS = {  # words of an error -> why there is no connection
    "connection refused": "Connection refused",
    "connection reset": "Connection reset",
    "certificate": "its certificate is not accepted",
    "dns error": "no such host",
    "timed out": "timed out",
    "timedout": "timed out",
}


class UnsupportedError(StoreError):
    """A request that the server does not know."""


def _telling(request: Any) -> Any:
    """A request of zarr's store that tells its errors in our words."""

    async def told(bucket: Bucket, *arguments: Any, **options: Any) -> Any:
        with _told(bucket.url):
            return await request(bucket, *arguments, **options)

    return told


class Bucket(ObjectStore[Any]):
    """A bucket's prefix as a store of zarr's; pickled by its URL alone, for obstore would pickle its keys."""

    def __init__(self, url: str, read_only: bool = True) -> None:
        self.url = url
        super().__init__(self.store, read_only=read_only)

    @property
    def store(self) -> Any:
        """Obstore's handle. It is asked for each time: with other credentials there is another."""
        return _handle(self.url, PATIENCE_SECONDS, _keys())

    @store.setter
    def store(self, _: Any) -> None:
        """Zarr sets it."""

    def __reduce__(self) -> Any:
        return Bucket, (self.url, self.read_only)

    def with_read_only(self, read_only: bool = False) -> Any:
        return Bucket(self.url, read_only)

    get = _telling(ObjectStore.get)
    set = _telling(ObjectStore.set)
    set_if_not_exists = _telling(ObjectStore.set_if_not_exists)
    delete = _telling(ObjectStore.delete)

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """The size of a value and what changes when it is replaced; None where none is."""
        try:
            head = self._ask("head_async", key)
        except FileNotFoundError:
            return None
        return head["size"], hash(head["e_tag"] or head["last_modified"])

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The keys below a prefix, each as it goes on after `prefix/`, with the bytes of its value."""

        async def listed() -> list[Any]:
            return [entry async for page in _obstore(self.url).list(self.store, prefix or None) for entry in page]

        start = len(prefix) + 1 if prefix else 0
        with _told(self.url):
            return iter([(entry["path"][start:], entry["size"]) for entry in sync(listed())])

    def names(self) -> list[str]:
        """What lies at the top; the first request of who opens a store, so that a wrong address is told soon."""
        top = self._ask("list_with_delimiter_async", None, opening=True)
        return sorted([*top["common_prefixes"], *(entry["path"] for entry in top["objects"])])

    def remove(self) -> None:
        """Remove all keys, the root last: what an interrupted removal leaves is still known as a store of ours."""
        keys = [key for key, _ in self.sizes("") if key != "zarr.json"]
        if keys:
            self._ask("delete_async", keys)
        self._ask("delete_async", ["zarr.json"])

    def _ask(self, function: str, argument: Any, opening: bool = False) -> Any:
        """What a function of obstore gives; on zarr's event loop, so that Ctrl-C is heard meanwhile."""
        handle = _handle(self.url, OPENING_SECONDS, _keys()) if opening else self.store

        async def asked() -> Any:
            return await getattr(_obstore(self.url), function)(handle, argument)

        with _told(self.url, opening):
            return sync(asked())


def checked_url(url: str) -> str:
    """SCHEME://BUCKET/PREFIX, written in one way.

    StoreError for a kind that is not known, or that no other process would see; for more than a bucket and a prefix.
    """
    scheme, _, path = url.partition("://")
    scheme = "s3" if scheme.lower() == "s3a" else scheme.lower()
    if "@" in path and not scheme.startswith("abfs"):  # a name and a password, perhaps: not to be shown
        raise StoreError("a store is SCHEME://BUCKET/PREFIX; credentials are no part of it, see AWS_ACCESS_KEY_ID")
    if scheme not in SCHEMES:
        raise StoreError(f"a store is a path, or a URL of {', '.join(f'{s}://' for s in SCHEMES)}; got {url}")
    parts = path.rstrip("/").split("/")
    if not all(parts) or {".", ".."} & set(parts) or re.search(r"[?#%\\*]", path) or not path.isprintable():
        raise StoreError(f"a store is {scheme}://BUCKET/PREFIX, of plain names; got {url.partition('?')[0]!r}")
    return f"{scheme}://{'/'.join(parts)}"


def _obstore(url: str) -> Any:
    try:
        importlib.import_module("obstore.store")
        return importlib.import_module("obstore")
    except ImportError:
        raise StoreError(f"{url} needs obstore: {pip_install('objects')}") from None


@lru_cache(maxsize=64)
def _handle(url: str, patience: float, keys: tuple[str, ...]) -> Any:  # noqa: ARG001 (what tells handles apart)
    """Obstore's handle, one a process and its credentials, which it holds: it is never pickled."""
    obstore = _obstore(url)
    if "@" in _endpoint(url):
        raise StoreError(
            "the endpoint (AWS_ENDPOINT_URL) is http://HOST:PORT or https://HOST, without a name or a password"
        )
    retry = {
        "max_retries": 100,
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    client = {
        "allow_http": True,  # where the endpoint is http://
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=min(REQUEST_SECONDS, 3 * patience)),
    }
    return obstore.store.from_url(
        url,
        client_options=client,
        retry_config=retry,
        credential_provider=_credentials(url) if url.startswith("s3:") else None,
    )


def _keys() -> tuple[str, ...]:
    """The credentials of the environment, as they are now: they may be mended while this process lives."""
    return tuple(os.environ.get(name, "") for name in KEYS)


def _credentials(url: str) -> Any:
    """The credentials of a profile that is named, by boto3; None where obstore finds them by itself."""
    key, secret, profile = _keys()[:3]
    if bool(key) != bool(secret):
        lacks = KEYS[1] if key else KEYS[0]
        raise StoreError(f"the environment has half a pair of keys: it lacks {lacks}")
    if not (key or profile) and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise StoreError(f"no credentials for {url}: {CREDENTIALS['s3']}")
    if key or not profile:
        return None
    try:
        return importlib.import_module("obstore.auth.boto3").Boto3CredentialProvider()
    except ImportError:
        raise StoreError(
            f"AWS_PROFILE names {profile}, which boto3 reads: pip install boto3, or export its keys with "
            f"`aws configure export-credentials --profile {profile} --format env`"
        ) from None
    except Exception as error:  # botocore has many kinds
        raise StoreError(f"AWS_PROFILE names {profile}, which cannot be used: {error}") from None


def _endpoint(url: str) -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") if url.startswith("s3:") else ()
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _server(url: str) -> str:
    """Whom requests go to, as messages name it."""
    return _endpoint(url) or f"the object storage of {url.partition(':')[0]}://"


@contextmanager
def _told(url: str, opening: bool = False) -> Iterator[None]:
    """Errors of a request in our words: obstore's own are pages, and repeat what a server says."""
    obstore = _obstore(url)
    try:
        yield
    except (obstore.exceptions.BaseError, FileNotFoundError, PermissionError, ValueError) as error:
        raise _in_words(url, error, opening) from None


def _in_words(url: str, error: Exception, opening: bool) -> Exception:
    text = str(error)
    code = found[1] if (found := re.search(r"<Code>(\w{1,64})</Code>", text)) else ""
    found = re.search(r"status code: (\d{3})|status: (\d{3}),", text)
    status = int(found[1] or found[2]) if found else 0
    if isinstance(error, FileNotFoundError) and code not in NO_BUCKET:
        return error
    if status == 501 or type(error).__name__ == "NotSupportedError":
        return UnsupportedError(f"{_server(url)} cannot do what is asked of it")
    if status == 507 or code in ("QuotaExceeded", "XMinioStorageFull"):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if status in (401, 403):
        _handle.cache_clear()  # a profile's credentials may be mended while this process lives
    return StoreError(_message(url, text, status, code, opening))


def _message(url: str, text: str, status: int, code: str, opening: bool) -> str:
    server, scheme, name = _server(url), url.partition(":")[0], url.split("/")[2]
    reason = next((reason for words, reason in REASONS.items() if words in text.lower()), "no connection")
    said = " ".join(str(word) for word in (status or "", code) if word) or reason
    where = CREDENTIALS.get(scheme, CREDENTIALS["az"])
    remedy = "is AWS_ENDPOINT_URL right?" if opening else f"what is finished stays: `{command('resume', url)}`"
    transient = status >= 500 or status == 429 or (not status and "HTTP error" in text)
    cases = [
        (any(part in text for part in METADATA), f"no credentials for {url}: {where}"),
        (code in NO_BUCKET, f"{server} has no bucket {name}: make it first, or choose another path"),
        (
            status == 401 or code in WRONG_KEYS or "Token" in code,
            f"{server} refuses the credentials ({said}): {where}",
        ),
        (
            status == 403,
            f"{server} denies access to {url} ({said}): it takes credentials that may list, read, write and delete "
            "there",
        ),
        (
            status in (301, 307) or code == "AuthorizationHeaderMalformed",
            f"the bucket {name} is in another region ({said}): set AWS_REGION",
        ),
        (transient, f"no answer from {server} ({said}): {remedy}"),
    ]
    default = f"{server} does not do what is asked of it: {said}; {where}"
    return next((message for holds, message in cases if holds), default)
