"""Media from other machines: public addresses alone, at every redirect, and no more than fits."""

import contextlib
import dataclasses
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from evr1.serve.errors import Refusal

REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)
# IPv6 that stands for IPv4: of gateways (RFC 6052), and a form of old that no network has any more.
_OF_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given to anybody
_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class Fetcher:
    """What reads media over HTTP.

    Attributes:
        allow: any public host.
        hosts: that are read from whatever their addresses are.
        limit: bytes of a medium.
        timeout_s: for all of it.
    """

    allow: bool
    hosts: tuple[str, ...]
    limit: int
    timeout_s: float = 30.0

    def __call__(self, url: str, param: str) -> bytes:
        """Returns what an address holds.

        Args:
            url: http or https.
            param: field of the request that names it.

        Raises:
            Refusal: it may not be read, or cannot be.
        """
        end = time.monotonic() + self.timeout_s
        for _ in range(REDIRECTS + 1):
            try:
                found = self._read(url, param, end)
            except (OSError, ValueError, http.client.HTTPException) as error:
                kind = type(error).__name__  # its words may hold what was in an answer
                raise _refused(param, f"could not be fetched ({kind})", "media_fetch") from None
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise _refused(param, f"more than {REDIRECTS} redirects", "media_fetch")

    def _read(self, url: str, param: str, end: float) -> bytes | str:
        """Returns the bytes, or where they have moved."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in _PORTS or not host or parts.username is not None:
            raise _refused(param, "no http or https address, or one with a name in it")
        if not self.allow and host not in self.hosts:
            raise _refused(param, "addresses are not fetched here (--allow_http); send a data: URL")
        port = parts.port or _PORTS[parts.scheme]
        address = self._address(host, port, param)
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path = quote(path, safe="!#$%&'()*+,/:;=?@[]~")  # but what is quoted already
        with _Connection(parts, address, port, left).open_for(left) as connection:
            connection.request("GET", path, headers={"User-Agent": "evr1", "Accept": "*/*"})
            with connection.getresponse() as answer:
                if answer.status in _MOVED and (where := answer.getheader("Location")):
                    return where
                if answer.status != 200:
                    raise _refused(param, f"its server says {answer.status}", "media_fetch")
                return self._body(answer.read1, param, end)

    def _body(self, read: Callable[[int], bytes], param: str, end: float) -> bytes:
        data = bytearray()
        while part := read(1 << 16):
            data += part
            if len(data) > self.limit:
                raise Refusal(413, f"{param}: over {self.limit} bytes", "media_too_large", param)
            if time.monotonic() >= end:
                raise TimeoutError
        if time.monotonic() >= end:  # it was cut off
            raise TimeoutError
        return bytes(data)

    def _address(self, host: str, port: int, param: str) -> str:
        """Returns an address of a host; of one that is not named in `hosts`, all are public."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        if host not in self.hosts and not all(map(is_public, addresses)):
            raise _refused(param, "its address is not public")
        return addresses[0]


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was looked at, whatever its name stands for by now."""

    def __init__(self, parts: SplitResult, address: str, port: int, timeout_s: float):
        super().__init__(parts.hostname or "", port, timeout=timeout_s)
        self._address, self._is_secure = address, parts.scheme == "https"
        self._made: socket.socket | None = None

    @contextlib.contextmanager
    def open_for(self, seconds: float) -> Iterator["_Connection"]:
        """Yields the connection, which is cut after some time: the time-out of a socket begins anew
        with each byte, and a server may send one now and then."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.closing(self):
                yield self
        finally:
            timer.cancel()

    def _cut(self) -> None:
        if self._made is not None:
            with contextlib.suppress(OSError):
                self._made.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        """Connects, with TLS where the address says so."""
        made = socket.create_connection((self._address, self.port), self.timeout)
        if not self._is_secure:
            self.sock = self._made = made
            return
        context = ssl.create_default_context()
        with_tls = context.wrap_socket(
            made, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = self._made = with_tls
        with_tls.do_handshake()


def is_public(address: str) -> bool:
    """Returns whether an IP address is one of the public network.

    >>> [is_public(a) for a in ("127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254", "8.8.8.8")]
    [False, False, False, True]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if any(ip in network for network in _OF_IPV4):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def _refused(param: str, reason: str, code: str = "media_not_allowed") -> Refusal:
    return Refusal(400, f"{param}: {reason}", code, param)
