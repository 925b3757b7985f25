"""The requests to a tracking server. requests finds proxies, certificates and ~/.netrc, and urllib3 sends."""

from __future__ import annotations

import functools
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urljoin

import requests
import requests.adapters
import urllib3

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.config.uris import without_credentials
from mlflow_fasttrace._internal.sender.access import Access
from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.exceptions import Rejected, Unavailable
from mlflow_fasttrace._internal.sender.exchange import MOST_BYTES, OpenConnections
from mlflow_fasttrace._internal.sender.transport import (
    REDIRECTS,
    Body,
    bound_answers,
    network_settings,
    read_answer,
    size_of,
)

logger = logging.getLogger("mlflow_fasttrace.sender")

Result = TypeVar("Result")

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 60.0  # where MLFLOW_HTTP_REQUEST_TIMEOUT does not say
_HEADERS_SECONDS = 5.0
_REDIRECT_STATUS = (307, 308)


class _Adapter(requests.adapters.HTTPAdapter):
    """Has the system look after connections on which nothing comes, as MLflow's client does."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **{"socket_options": _socket_options(), **kwargs})

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **{"socket_options": _socket_options(), **kwargs})


def _socket_options() -> list[tuple[int, int, int]]:
    options: list[Any] = list(urllib3.connection.HTTPConnection.default_socket_options or [])
    if (settings := environment.keepalive()) is not None:
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        options += [
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in zip(names, settings, strict=True)
            if hasattr(socket, name)
        ]
    return options


class Connection:
    """What requests to one tracking server have in common.

    Args:
        access: Who the server is, and how one signs in.
        at_once: How many requests may be under way.
    """

    def __init__(self, access: Access, at_once: int):
        self._access = access
        self._host = access.host.uri
        self._name = without_credentials(self._host)  # for log lines
        self._seconds = environment.request_seconds() or _ANSWER_SECONDS
        self._timeout = urllib3.Timeout(
            connect=min(_CONNECT_SECONDS, self._seconds), read=self._seconds
        )
        self._session = requests.Session()
        self._adapter = _Adapter(pool_connections=4, pool_maxsize=at_once)
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._connections: OpenConnections | None = None  # of that pool
        self._prefix = ""  # goes before every path
        self._known_headers: dict[str, str] = {}
        self._headers_asked = float("-inf")
        self._moved = False

    def begin(
        self, method: str, path: str, body: Body | None, headers: dict[str, str]
    ) -> Callable[[], Answer]:
        """Makes a request. Where the server sends it on, that is followed.

        Args:
            path: Below the server's URI.

        Returns:
            What reads the whole answer. It is called once, and raises `Unavailable` where there is none.

        Raises:
            Unavailable: nothing answers, or nobody can sign in.
            Rejected: these headers or this path cannot be put into a request.
        """
        _check_sendable(path, headers)

        def start() -> Callable[[], Answer]:
            if self._access.signed_request is not None:
                whole = b"".join(body) if isinstance(body, list) else body
                signed = self._access.signed_request(method, path, whole, headers, self._seconds)
                return lambda: signed
            pool = self._open()
            sent = {**self._headers(), **headers}
            if isinstance(body, list):  # or its end would be marked in another way
                sent["Content-Length"] = str(size_of(body))
            answer_of_server = self._send(pool, method, self._prefix + path, body, sent)
            return lambda: self._followed(answer_of_server(), method, path, body, sent)

        return functools.partial(self._or_unavailable, self._or_unavailable(start))

    def _or_unavailable(self, function: Callable[[], Result]) -> Result:
        """What a function returns that talks to the server.

        Raises:
            Unavailable: it fails.
        """
        try:
            return function()
        except (Unavailable, MemoryError):
            raise
        except Exception as error:
            raise Unavailable(
                f"{self._name} does not answer: {type(error).__name__}: {error}",
                kind=type(error),
                unanswered=not isinstance(error, urllib3.exceptions.NewConnectionError),
            ) from error

    def sign_in_anew(self) -> None:
        """Asks for the headers again before the next request."""
        self._headers_asked = float("-inf")

    def _followed(
        self,
        answer: Answer,
        method: str,
        path: str,
        body: Body | None,
        headers: dict[str, str],
    ) -> Answer:
        """An answer, or where it says that the server has moved, what that answers to the same request. What signs in
        goes to its host alone, by the rules of requests."""
        if answer.status not in _REDIRECT_STATUS or not environment.follows_redirects():
            return answer
        url = self._host + path
        for _ in range(REDIRECTS):
            target = urljoin(url, answer.headers.get("Location", ""))
            if answer.status not in _REDIRECT_STATUS or not target.startswith(("http:", "https:")):
                break
            if not self._moved:
                self._moved = True
                logger.warning(
                    "%s%s is now %s", self._name, path, one_line(without_credentials(target))
                )
            if self._session.should_strip_auth(url, target):
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            url = target
            pool, place = self._pool_of(url)
            answer = self._ask(pool, method, place, body, headers)
        return answer

    def _send(
        self,
        pool: urllib3.HTTPConnectionPool,
        method: str,
        place: str,
        body: Body | None,
        headers: dict[str, str],
    ) -> Callable[[], Answer]:
        """Sends a request to the server itself; what is returned reads its answer. Large ones, and those for which no
        connection is open, are answered already."""
        assert self._connections is not None
        if isinstance(body, bytes) and len(body) <= MOST_BYTES:
            begun = self._connections.begin(method, place, body, headers)
            if begun is not None:
                return begun
        else:
            self._connections.give_back()
        answer = self._ask(pool, method, place, body, headers)
        return lambda: answer

    def _ask(
        self,
        pool: urllib3.HTTPConnectionPool,
        method: str,
        place: str,
        body: Body | None,
        headers: dict[str, str],
    ) -> Answer:
        response = pool.urlopen(
            method,
            place,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=self._timeout,
            preload_content=False,
        )
        return Answer(response.status, response.headers, read_answer(response, self._seconds))

    def _open(self) -> urllib3.HTTPConnectionPool:
        """The connections to the server.

        Raises:
            Unavailable: certificates cannot be read, say.
        """
        if self._pool is None:
            try:
                pool, prefix = self._pool_of(self._host + "/")
            except MemoryError:
                raise
            except Exception as error:
                reason = f"{self._name} cannot be connected to: {type(error).__name__}: {error}"
                raise Unavailable(reason, kind=("open", type(error))) from error
            self._prefix = prefix.rstrip("/")
            self._pool, self._connections = pool, OpenConnections(pool, self._seconds)
        return self._pool

    def _pool_of(self, url: str) -> tuple[urllib3.HTTPConnectionPool, str]:
        """The connections for a URL, which are made as requests makes them, and what a request for it
        names there."""
        session, host, adapter = self._session, self._access.host, self._adapter
        verify, cert, proxies = network_settings(session, url, host.verify, host.client_certificate)
        if verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        sample = session.prepare_request(requests.Request("POST", url))
        assert sample.url is not None
        pool: Any = adapter.get_connection_with_tls_context(sample, verify, proxies, cert)
        adapter.cert_verify(pool, sample.url, verify, cert)
        return bound_answers(pool), adapter.request_url(sample, proxies)

    def _headers(self) -> dict[str, str]:
        """The headers of every request. They are asked for again every few seconds only, since a plugin
        may look around on every call.

        Raises:
            Unavailable: they cannot be sent, or cannot be found out.
        """
        now = time.monotonic()
        if now - self._headers_asked >= _HEADERS_SECONDS:
            self._known_headers = self._resolved_headers()
            self._headers_asked = now
        return self._known_headers

    def _resolved_headers(self) -> dict[str, str]:
        """The headers as MLflow's request function and requests put them together: the URI's own
        user and password come first, or else ~/.netrc, then what MLflow was given."""
        try:
            headers = self._access.headers()
        except Unavailable:
            raise
        except Exception as error:
            reason = f"nobody can sign in at {self._name}: {type(error).__name__}: {error}"
            raise Unavailable(reason, kind=("headers", type(error))) from error
        for name, value in headers.items():
            if (unfit := _unfit(value)) is not None:
                raise Unavailable(
                    f"nobody can sign in at {self._name}: the header {name} holds {unfit}; look at the "
                    "variable or file that its value comes from",
                    kind=("header", name),
                )
        sample = self._session.prepare_request(
            requests.Request("POST", self._host + "/", headers=headers)
        )
        return {
            name: text.decode("latin-1") if isinstance(text, bytes) else text
            for name, text in sample.headers.items()
            if name != "Content-Length"
        }


def _check_sendable(path: str, headers: dict[str, str]) -> None:
    """Raises:
    Rejected: these cannot be put into a request.
    """
    for text in (path, *headers.values()):
        if (unfit := _unfit(text)) is not None:
            raise Rejected(f"{text[:200]!r} holds {unfit} and cannot be put into a request")


def _unfit(text: str) -> str | None:
    """What of a text keeps it out of the head of a request; None: nothing."""
    if "\r" in text or "\n" in text or "\0" in text:
        return "a line break or a null character"
    if text.isascii():
        return None
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "characters that are not Latin-1"
    return None
