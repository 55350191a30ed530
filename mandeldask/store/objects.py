"""A bucket of an object storage as a place, through obstore: S3 and what speaks like it, Google's, Azure's.

A place travels to the workers with what is no secret; each process finds the credentials by itself, and what it opens
with them stays in it.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from zarr.storage import ObjectStore

from mandeldask.errors import StoreError
from mandeldask.store import aws

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
# A server that restarts is back in seconds; one that hangs, or fails over, takes minutes. obstore's own tries end
# after QUICK seconds, so that Ctrl-C is heard between them.
PATIENCE = 300.0
QUICK = 4.0
REQUEST_SECONDS = 60.0  # of one request: a shard of 64 MiB at 1 MiB/s
OPENING_SECONDS = 10.0  # the same where a person opens a store: a wrong address is told at once
PAGE = 1000  # keys that a server gives at a time
LISTERS = 8  # rows of tiles that are listed at a time
ROWS = 256  # of which the keys are kept at a time
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed")
METADATA = ("/latest/api/token", "/security-credentials", "metadata.google", "metadata/identity")  # of a machine
CREDENTIALS = {  # where they are looked for
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws/credentials in AWS_PROFILE",
    "gs": "name the file of a service account in GOOGLE_SERVICE_ACCOUNT",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_PROBE = re.compile(r"zarr\.[0-9a-f]{32}\.partial")
_REACHED: set[Objects] = set()  # places that have answered this process


NONE = aws.Options()


@dataclass(frozen=True)
class Objects:
    """A bucket, or what lies below a prefix of one."""

    url: str
    options: aws.Options = NONE

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        def read(obstore: Any, bucket: Any) -> bytes:
            if start < 0:
                return bytes(self._end(obstore, bucket, key, -start)[:size])
            if size is None:
                return bytes(obstore.get(bucket, key, options={"range": {"offset": start}} if start else None).bytes())
            return bytes(obstore.get_range(bucket, key, start=start, length=size))

        try:
            value: bytes = self._ask(read)
        except FileNotFoundError:
            return None
        except _BeyondError:
            return b""
        return value

    def _end(self, obstore: Any, bucket: Any, key: str, size: int) -> bytes:
        try:
            return bytes(obstore.get(bucket, key, options={"range": {"suffix": size}}).bytes())
        except obstore.exceptions.NotSupportedError:  # Azure's
            whole = obstore.head(bucket, key)["size"]
            return bytes(obstore.get_range(bucket, key, start=max(0, whole - size), end=whole))

    def put(self, key: str, value: bytes) -> None:
        self._ask(lambda obstore, bucket: obstore.put(bucket, key, value, use_multipart=False))

    def create(self, key: str, value: bytes) -> bool:
        def create(obstore: Any, bucket: Any) -> bool:
            try:
                obstore.put(bucket, key, value, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return False
            return True

        try:
            if self._ask(create):
                return True
        except _UnsupportedError:  # a server without conditional writes: the last of two that race wins
            if self.get(key) is None:
                self.put(key, value)
        return self.get(key) == value  # ours, where the answer to an earlier try was lost

    def delete(self, key: str) -> None:
        self._delete([key])

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        start = len(prefix) + 1 if prefix else 0

        def page(obstore: Any, bucket: Any) -> list[tuple[str, int]]:
            return _entries(next(obstore.list(bucket, prefix or None, chunk_size=PAGE), ()))

        def row(name: str) -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = self._ask(
                lambda obstore, bucket: _entries(entry for part in obstore.list(bucket, name) for entry in part)
            )
            return found

        entries, rows = self._ask(page), []
        if len(entries) == PAGE:  # then there are more
            if len({key.rpartition("/")[0] for key, _ in entries}) <= LISTERS:  # in long rows: several at a time
                top = self._top(prefix)
                entries, rows = _entries(top["objects"]), top["common_prefixes"]
            else:
                entries = row(prefix)
        yield from ((key[start:], size) for key, size in entries)
        with ThreadPoolExecutor(LISTERS) as listers:
            for first in range(0, len(rows), ROWS):
                for entries in listers.map(row, rows[first : first + ROWS]):
                    yield from ((key[start:], size) for key, size in entries)

    def names(self) -> list[str]:
        top = self._top("", opening=True)
        return sorted([*top["common_prefixes"], *(entry["path"] for entry in top["objects"])])

    def remove(self) -> None:
        keys = [key for key, _ in self.sizes("")]
        # the root last: what an interrupted removal leaves is still known as a store of ours
        self._delete([key for key in keys if key != "zarr.json"])
        self._delete(["zarr.json"])

    def sweep(self, older: float) -> int:
        top = self._top("")["objects"]
        left = [e for e in top if _PROBE.fullmatch(e["path"]) and e["last_modified"].timestamp() < older]
        self._delete([entry["path"] for entry in left])
        return sum(entry["size"] for entry in left)

    def free(self) -> int | None:
        return None

    def zarr(self, read_only: bool = True) -> Any:
        return ZarrObjects(self, read_only)

    def above(self) -> list[Objects]:
        """The prefixes that this one lies below, the nearest first, and the bucket."""
        scheme, _, path = self.url.partition("://")
        parts = path.split("/")
        return [Objects(f"{scheme}://{'/'.join(parts[:n])}", self.options) for n in range(len(parts) - 1, 0, -1)]

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0]

    @property
    def bucket(self) -> str:
        return self.url.split("/")[2]

    @property
    def server(self) -> str:
        """Whom requests go to, as messages name it."""
        return self.options.endpoint or f"the object storage of {self.scheme}://"

    def _top(self, prefix: str, opening: bool = False) -> Any:
        return self._ask(lambda obstore, bucket: obstore.list_with_delimiter(bucket, prefix or None), opening)

    def _delete(self, keys: list[str]) -> None:
        if keys:
            try:
                self._ask(lambda obstore, bucket: obstore.delete(bucket, keys))
            except FileNotFoundError:
                return

    def _ask(self, request: Callable[[Any, Any], Any], opening: bool = False) -> Any:
        """What a request gives; a server that does not answer is waited for, but not where a person opens a store."""
        obstore, deadline = _obstore(self), time.monotonic() + PATIENCE
        while True:
            patient = not opening or self in _REACHED
            try:
                answer = request(obstore, _bucket(self, REQUEST_SECONDS if patient else OPENING_SECONDS, QUICK))
            except (obstore.exceptions.BaseError, OSError, ValueError) as error:
                if not (patient and is_transient(error) and time.monotonic() < deadline):
                    raise _told(self, error, patient) from None
                time.sleep(1)
            else:
                _REACHED.add(self)
                return answer


class ZarrObjects(ObjectStore[Any]):
    """The place as a store of zarr's; pickled by its place alone, for obstore would pickle its keys."""

    def __init__(self, place: Objects, read_only: bool) -> None:
        super().__init__(_bucket(place, REQUEST_SECONDS, PATIENCE), read_only=read_only)
        self.place = place

    def __reduce__(self) -> Any:
        return ZarrObjects, (self.place, self.read_only)

    def with_read_only(self, read_only: bool = False) -> Any:
        return ZarrObjects(self.place, read_only)

    async def get(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().get(*arguments, **options)
        except _obstore(self.place).exceptions.BaseError as error:
            raise _told(self.place, error) from None

    async def set(self, *arguments: Any, **options: Any) -> None:
        try:
            await super().set(*arguments, **options)
        except _obstore(self.place).exceptions.BaseError as error:
            raise _told(self.place, error) from None


class _BeyondError(Exception):
    """A range that begins where the value ends."""


class _UnsupportedError(Exception):
    """A request that the server does not know."""


def objects_of(url: str) -> Objects:
    """The place that a URL stands for.

    Raises
    ------
    StoreError
        A kind that is not known, or that no other process would see; a URL with more than a bucket and a prefix.
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
    return Objects(f"{scheme}://{'/'.join(parts)}", aws.options() if scheme == "s3" else NONE)


def is_transient(error: BaseException) -> bool:
    """Whether a server may answer otherwise in a while: no connection, a request that took too long, 5xx, 429."""
    status = _status(error)
    return status >= 500 or status == 429 or (not status and "HTTP error" in str(error))


def _told(place: Objects, error: Exception, patient: bool = True) -> Exception:
    """The error in our words: obstore's own are pages, and repeat what a server says."""
    text, status = str(error), _status(error)
    code = found[1] if (found := re.search(r"<Code>(\w{1,64})</Code>", text)) else ""
    if status in (401, 403):
        _bucket.cache_clear()  # credentials may be mended while this process lives
    signs = {
        "no key": isinstance(error, FileNotFoundError) and code not in NO_BUCKET,
        "beyond": status == 416,
        "unknown": status == 501 or type(error).__name__ == "NotSupportedError",
        "full": status == 507 or code in ("QuotaExceeded", "XMinioStorageFull"),
    }
    known: dict[str, Exception] = {
        "no key": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
        "beyond": _BeyondError(),
        "unknown": _UnsupportedError(f"{place.server} cannot do what is asked of it"),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    }
    sign = next((sign for sign, holds in signs.items() if holds), None)
    return known[sign] if sign else StoreError(_message(place, error, status, code, patient))


def _message(place: Objects, error: Exception, status: int, code: str, patient: bool) -> str:
    """Rule, value and remedy."""
    text = str(error)
    said = " ".join(str(word) for word in (status or "", code) if word) or _reason(text)
    remedy = f"what is finished stays: `mandeldask resume {place.url}`" if patient else "is AWS_ENDPOINT_URL right?"
    where = CREDENTIALS.get(place.scheme, CREDENTIALS["az"])
    cases = [
        (any(part in text for part in METADATA), f"no credentials for {place.url}: {where}"),
        (code in NO_BUCKET, f"{place.server} has no bucket {place.bucket}: make it first, or choose another --out"),
        (
            status == 401 or code in WRONG_KEYS or "Token" in code,
            f"{place.server} refuses the credentials ({said}): {where}",
        ),
        (
            status == 403,
            f"{place.server} denies access to {place.url} ({said}): it takes credentials that may list, read, write "
            "and delete there",
        ),
        (
            status in (301, 307) or code == "AuthorizationHeaderMalformed",
            f"the bucket {place.bucket} is in another region ({said}): set AWS_REGION",
        ),
        (is_transient(error), f"no answer from {place.server} ({said}): {remedy}"),
    ]
    default = (
        f"{place.server} does not do what is asked of it: {said if status else f'{type(error).__name__}; {where}'}"
    )
    return next((message for holds, message in cases if holds), default)


def _status(error: BaseException) -> int:
    found = re.search(r"status code: (\d{3})|status: (\d{3}),", str(error))
    return int(found[1] or found[2]) if found else 0


def _reason(text: str) -> str:
    """Why there is no connection, in the words of its last cause."""
    reasons = (
        "Connection refused",
        "Connection reset",
        "certificate",
        "dns error",
        "timed out",
        "TimedOut",
        "BadScheme",
    )
    words = {"TimedOut": "timed out", "dns error": "no such host", "certificate": "its certificate is not accepted"}
    found = next((reason for reason in reasons if reason.lower() in text.lower()), "no connection")
    return words.get(found, found)


def _entries(entries: Any) -> list[tuple[str, int]]:
    return [(entry["path"], entry["size"]) for entry in entries]


def _obstore(place: Objects) -> Any:
    try:
        importlib.import_module("obstore.store")
        return importlib.import_module("obstore")
    except ImportError:
        raise StoreError(f"{place.url} needs obstore: pip install 'mandeldask[objects]'") from None


@lru_cache(maxsize=16)
def _bucket(place: Objects, request: float, patience: float) -> Any:
    """Obstore's handle, one a process: it holds the credentials, and is never pickled."""
    stores = _obstore(place).store
    retries = {
        "max_retries": 100,
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    client = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=request)}
    if place.scheme != "s3":
        return stores.from_url(place.url, client_options=client, retry_config=retries)
    here = aws.options()
    endpoint, region = place.options.endpoint or here.endpoint, place.options.region or here.region
    keys = aws.keys()
    if not keys and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise StoreError(f"no credentials for {place.url}: {CREDENTIALS[place.scheme]}")
    if endpoint:
        keys["aws_endpoint_url_s3"] = endpoint
    return stores.S3Store(
        place.bucket,
        prefix=place.url.split("/", 3)[3] if place.url.count("/") > 2 else None,
        region=region or "us-east-1",
        virtual_hosted_style_request=place.options.virtual_hosted,
        client_options=client | {"allow_http": endpoint.startswith("http://")},
        retry_config=retries,
        **keys,
    )
