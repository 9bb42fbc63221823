"""An endpoint URL, as owners and callers write it -> where the bucket is, and how requests to it are signed.

The bucket's name may stand in the URL's host, in its path, or beside the URL; what follows it in the path is a folder
in the bucket. Hosts are read as their providers document them. At any other server, the host names the bucket if it is
`bucket.s3.` and so on; else a path without a name beside it begins with the bucket, and of a path with one, what stands
before that name belongs to the server.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from worker.http import HOST_NAME, MAX_URL_LENGTH

if TYPE_CHECKING:
    from yarl import URL

BUCKET_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$"
SPECIAL_BUCKETS = ("--x-s3", "--ol-s3", "-s3alias")  # endings; for such names boto3 would choose another host


class AddressError(ValueError):
    """The URL and the name beside it do not say where the bucket is.

    Attributes:
        part: which of the two has to change.
    """

    def __init__(self, part: Literal["url", "name"], text: str) -> None:
        super().__init__(text)
        self.part = part


@dataclass(frozen=True)
class BucketAddress:
    """Where a bucket is.

    Attributes:
        endpoint_url: the server, without the bucket.
        name: the bucket's.
        region: that requests are signed for.
        folder: in the bucket, with slashes between, or empty.
        in_host: whether its name becomes part of the host (virtual-hosted addressing) rather than of the path.
    """

    endpoint_url: str
    name: str
    region: str = "auto"
    folder: str = ""
    in_host: bool = False

    @property
    def origin(self) -> str:
        """Scheme, host and port that its requests go to."""
        from yarl import URL

        server = URL(self.endpoint_url, encoded=True).origin()
        return str(server.with_host(f"{self.name}.{server.host}") if self.in_host else server)


@dataclass(frozen=True)
class _Provider:
    """How a provider writes its hosts.

    Attributes:
        host: a whole one, with the groups `bucket` and `region` where it can name them.
        region: where the host names none.
        write: the region as the provider writes it.
        in_host: whether a bucket is only found by its own host.
    """

    host: re.Pattern[str]
    region: str = "auto"
    write: Callable[[str], str] = str
    in_host: bool = False


_BUCKET = r"(?:(?P<bucket>.+)\.)?"
_AMAZON = r"amazonaws\.com(?:\.cn)?"
_REGION = r"(?P<region>[a-z]+-[a-z-]+-\d+)"
_PROVIDERS = tuple(
    _Provider(re.compile(host), *rest)
    for host, *rest in (
        (rf"{_BUCKET}s3(?:-fips|-external-1)?(?:[.-](?:dualstack\.)?{_REGION})?\.{_AMAZON}", "us-east-1"),
        (rf"{_BUCKET}s3-accelerate(?:\.dualstack)?\.{_AMAZON}", "us-east-1", str, True),
        (rf"{_BUCKET}[0-9a-f]{{32}}(?:\.[a-z]+)?\.r2\.cloudflarestorage\.com",),
        (rf"{_BUCKET}s3\.{_REGION}\.backblazeb2\.com",),
        (rf"{_BUCKET}s3(?:\.{_REGION})?\.wasabisys\.com", "us-east-1"),
        (rf"{_BUCKET}storage\.googleapis\.com",),
        (rf"{_BUCKET}(?P<region>[a-z]{{3}}\d)\.digitaloceanspaces\.com",),
        (rf"s3api-{_REGION}\.runpod\.io", "auto", str.upper),
    )
)
_SUPABASE = ("storage", "v1", "s3")  # in front of the bucket, at Supabase and wherever else it runs
_UNKNOWN = _Provider(re.compile(r"(?P<bucket>[^.]+)\.s3\..+"))  # if the host of a server is like this


def read_address(url: str, name: str | None = None, region: str | None = None) -> BucketAddress:
    """Where the bucket is that this URL names, or this name at this URL.

    Args:
        region: to sign for; the one that the host names, or its provider wants, if None.

    Raises:
        AddressError: no bucket can be found, or two.
    """
    parsed = _parse(url)
    host, path = (parsed.raw_host or "").lower(), tuple(part for part in parsed.parts[1:] if part)
    provider, groups = _find_provider(host)
    known = provider is not _UNKNOWN or path[:3] == _SUPABASE
    held = groups.get("bucket") if known else _find_in_any_host(host, name)
    if held:
        if name not in (None, held):
            raise AddressError("name", "is not the bucket that the URL's host names; leave it out")
        bucket, folder, server_path = held, path, path[:0]
    else:
        bucket, folder, server_path = _find_in_path(path, name, known)
    if bucket != name:
        _check_plain(bucket)
    server = parsed.origin().with_host(host[len(held) + 1 :] if held else host)
    named = groups.get("region")
    return BucketAddress(
        endpoint_url=str(server.with_path("/".join(("", *server_path)))).rstrip("/"),
        name=bucket,
        region=region or (provider.write(named) if named else provider.region),
        folder="/".join(folder),
        # A certificate for all of a server's buckets fits no name with a dot in it.
        in_host=provider.in_host or (held is not None and not ("." in bucket and parsed.scheme == "https")),
    )


def _parse(url: str) -> "URL":
    from yarl import URL

    wrong = AddressError("url", "should be https://host or https://host/bucket, with nothing but host, port and path")
    try:
        parsed = URL(url[: MAX_URL_LENGTH + 1])
    except ValueError:
        raise wrong from None
    host, more = (parsed.raw_host or "").lower(), parsed.raw_user or parsed.raw_query_string or parsed.raw_fragment
    if len(url) > MAX_URL_LENGTH or parsed.scheme not in ("http", "https") or not HOST_NAME.fullmatch(host) or more:
        raise wrong
    if not all(part.isprintable() for part in parsed.parts):
        raise AddressError("url", "may hold no control characters")
    return parsed


def _find_provider(host: str) -> tuple[_Provider, dict[str, str | None]]:
    for provider in _PROVIDERS:
        if match := provider.host.fullmatch(host):
            return provider, match.groupdict()
    return _UNKNOWN, {}


def _find_in_any_host(host: str, name: str | None) -> str | None:
    """The bucket that the host of an unknown server names: `bucket.s3.example.com`."""
    match = _UNKNOWN.host.fullmatch(host)
    return match["bucket"] if match and name in (None, match["bucket"]) else None


def _find_in_path(path: tuple[str, ...], name: str | None, known: bool) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The bucket, its folder, and what of the path is the server's."""
    start = len(_SUPABASE) if path[:3] == _SUPABASE else 0
    if name is not None and not known:
        start = path.index(name) if name in path else len(path)
    server_path, rest = path[:start], path[start:]
    if not rest:
        if name is None:
            raise AddressError("name", "is missing, and the URL names no bucket in its host or path")
        return name, (), server_path
    if name not in (None, rest[0]):
        raise AddressError("name", "is not the bucket that the URL's path begins with; leave it out")
    return rest[0], rest[1:], server_path


def _check_plain(bucket: str) -> None:
    if not re.fullmatch(BUCKET_NAME, bucket) or bucket.endswith(SPECIAL_BUCKETS):
        raise AddressError("url", "names a bucket that cannot be one, or none of the plain kind")
