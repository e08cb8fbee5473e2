"""curl's easy handles: one request each, told which browser it is once and used again for requests of the same kind.

Most of what a request costs otherwise is telling a new handle which browser it is. Method and kind of body never change
on a handle, so nothing of one request can be left over in the next but what `EasyHandle.prepare` sets each time. curl's
list of header lines is kept in the same way, for requests that differ in a few values (`LineLists`).
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

from curl_cffi import Curl, CurlError, CurlInfo, CurlOpt, ffi, lib  # noqa: TID251 - one of its two doors

from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.headers import Lines, Plan
from chat2api.upstream.transfer import Receiver

NO_SOCKET = -1  # CURL_SOCKET_TIMEOUT and CURL_SOCKET_BAD

_LISTS_KEPT = 32
"""Lists of header lines that are kept for the requests of one plan."""

_SUPPRESSED = (b"Expect:", b"Content-Type:")
_HTTP_1 = 2  # CURL_HTTP_VERSION_1_1
_RAW_FRAMES = 1  # CURLWS_RAW_MODE
_HTTP_2_OVER_TLS = 4  # CURL_HTTP_VERSION_2TLS: the plain `2` of the profiles would ask http origins for h2c
_FIXED_OPTIONS: tuple[tuple[CurlOpt, int | bytes], ...] = (
    (CurlOpt.HTTP_VERSION, _HTTP_2_OVER_TLS),
    (CurlOpt.PROTOCOLS_STR, b"http,https"),
    (CurlOpt.NOSIGNAL, 1),
    (CurlOpt.TCP_KEEPALIVE, 1),
    (CurlOpt.NOPROXY, b""),
    (CurlOpt.SUPPRESS_CONNECT_HEADERS, 1),
)
_SOCKET_OPTIONS: tuple[tuple[CurlOpt, int | bytes], ...] = (
    (CurlOpt.HTTP_VERSION, _HTTP_1),
    (CurlOpt.PROTOCOLS_STR, b"ws,wss"),
    (CurlOpt.FRESH_CONNECT, 1),
    (CurlOpt.WS_OPTIONS, _RAW_FRAMES),
)
_URL, _HTTPHEADER, _BODY_SIZE = int(CurlOpt.URL), int(CurlOpt.HTTPHEADER), int(CurlOpt.POSTFIELDSIZE_LARGE)

Shape = tuple[str, Literal["none", "empty", "some", "upload", "socket"]]
"""What an easy handle is for: the method, and what body goes with it, or that it becomes a web socket."""


def shape_of(request: Request) -> Shape:
    """Give the kind of handle that a request needs."""
    if request.body:
        return request.method, "some"
    if request.upgrade:
        return request.method, "socket"
    if request.upload is not None:
        return request.method, "upload"
    return request.method, "none" if request.body is None and request.method != "POST" else "empty"


class LineLists:
    """curl's lists of header lines for the requests of one plan, each list for one request at a time."""

    def __init__(self, plan: Plan) -> None:
        """Have no list yet. Each will end with what keeps curl from adding headers of its own."""
        self._texts = [ffi.new("char[]", line) for line in (*plan.lines, *_SUPPRESSED)]
        self._places = plan.places
        self._free: list[Any] = []

    def take(self, values: list[bytes]) -> tuple[Any, list[Any]]:
        """Give a list with these values in the plan's places, and what must be kept as long as curl reads it."""
        nodes = self._free.pop() if self._free else self._make()
        texts = [ffi.new("char[]", value) for value in values]
        for place, text in zip(self._places, texts, strict=True):
            nodes[place].data = text
        return nodes, texts

    def give_back(self, nodes: Any) -> None:
        """Take a list back that curl reads no more."""
        if len(self._free) < _LISTS_KEPT:
            self._free.append(nodes)

    def _make(self) -> Any:
        nodes = ffi.new("struct curl_slist[]", len(self._texts))
        for number, text in enumerate(self._texts):
            nodes[number].data = text
            nodes[number].next = nodes + number + 1 if number + 1 < len(self._texts) else ffi.NULL
        return nodes


class _Body:
    """A request body that curl reads, and may rewind to send again only while it has not had all of it."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def load(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def seek(self, offset: int, origin: int) -> None:
        if origin != 0 or (offset < self._at and self._at == len(self._data)):
            raise OSError("the backend may have acted on this request already")
        self._at = offset


class Company(Protocol):
    """What a handle needs of the multi handle that it works in."""

    channel: Channel
    ca_file: str

    def add(self, easy: "EasyHandle") -> None:
        """Start a request with the loop's next turn."""
        ...

    def remove(self, easy: "EasyHandle") -> None:
        """Take a request out, whatever it is doing."""
        ...

    def resume(self, easy: "EasyHandle") -> int:
        """Let a paused request go on; give curl's result code."""
        ...

    def settle(self, easy: "EasyHandle", *, shared: bool) -> None:
        """Let a stream's socket wait for beats; see `Handle`."""
        ...

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Call back once curl has given what it has; see `Handle`."""
        ...

    def grant(self) -> None:
        """Do what curl's callbacks asked for."""
        ...

    def give_back(self, easy: "EasyHandle") -> bool:
        """Keep a handle for later; False when there are enough."""
        ...

    def line_lists(self, plan: Plan) -> LineLists:
        """Give the lists of this plan."""
        ...


class EasyHandle(Curl):
    """An easy handle of one channel and shape, without curl_cffi's websocket buffer of 128 KiB; see `Handle`."""

    _WS_RECV_BUFFER_SIZE = 1

    def __init__(self, multi: Company, shape: Shape) -> None:
        """Make a handle for requests of that shape."""
        super().__init__(cacert=multi.ca_file)
        self.shape = shape
        self.single = False
        """Whether it has options that no other request may inherit."""
        self.receiver: Receiver | None = None
        self.socket = NO_SOCKET
        self.settled = False
        self._multi = multi
        self._body = _Body()
        self._size = ffi.new("int64_t *")
        self._lists: LineLists | None = None
        """Where the header lines are from: the list, and the texts in it that are the request's own."""
        self._lines: Any = None
        self._own_texts: list[Any] = []
        self._configure(multi.channel)
        self._ensure_cacert()
        self._data_context = ffi.from_handle(self._write_handle)
        self._head_context = ffi.from_handle(self._header_handle)

    @property
    def pointer(self) -> Any:
        """curl's own handle."""
        return self._curl

    def _configure(self, channel: Channel) -> None:
        method, body = self.shape
        if channel.profile.impersonate:
            self.impersonate(channel.profile.impersonate, default_headers=False)
        for option, value in _FIXED_OPTIONS:
            self.setopt(option, value)
        self.setopt(CurlOpt.PROXY, (channel.proxy or "").encode())
        self.setopt(CurlOpt.ACCEPT_ENCODING, channel.profile.accept_encoding.encode())
        self.setopt(CurlOpt.WRITEFUNCTION, None)
        self.setopt(CurlOpt.HEADERDATA, None)
        if body == "some":
            self.setopt(CurlOpt.POST, 1)
            self.setopt(CurlOpt.READDATA, self._body)
            self.setopt(CurlOpt.SEEKDATA, self._body)
        elif body == "upload":
            self.single = True
            self.setopt(CurlOpt.POST, 1)
        elif body == "empty":
            self.setopt(CurlOpt.POST, 1)
            self.setopt(CurlOpt.POSTFIELDS, b"")
            self.setopt(CurlOpt.POSTFIELDSIZE_LARGE, 0)
            self.setopt(CurlOpt.FRESH_CONNECT, 1)
        elif body == "socket":
            self.single = True
            for option, value in _SOCKET_OPTIONS:
                self.setopt(option, value)
        elif method == "HEAD":
            self.setopt(CurlOpt.NOBODY, 1)
        if method not in ("GET", "HEAD", "POST") or (method == "GET" and body in ("some", "empty")):
            self.setopt(CurlOpt.CUSTOMREQUEST, method.encode())

    def prepare(self, request: Request, lines: Lines, pinned: bytes | None) -> None:
        """Set all that differs between two requests of one shape."""
        self._set(_URL, (_socket_url(request.url) if request.upgrade else request.url).encode())
        if request.body:
            self._body.load(request.body)
            self._size[0] = len(request.body)
            self._set(_BODY_SIZE, self._size)
        elif request.upload is not None:
            self.setopt(CurlOpt.READDATA, request.upload)
            self.setopt(CurlOpt.SEEKDATA, request.upload)
            self._size[0] = -1 if request.upload.length is None else request.upload.length
            self._set(_BODY_SIZE, self._size)
        self._lists = self._multi.line_lists(lines.plan)
        self._lines, self._own_texts = self._lists.take(lines.values)
        self._set(_HTTPHEADER, self._lines)
        if pinned is not None:
            self.single = True
            self.setopt(CurlOpt.RESOLVE, [pinned])

    def _drop_lines(self) -> None:
        if self._lists is not None:
            self._lists.give_back(self._lines)
            self._lists, self._lines = None, None
            self._own_texts.clear()

    def _set(self, option: int, value: object) -> None:
        # Like setopt, which spends more on looking for the kind of an option than curl does on setting it.
        if code := lib._curl_easy_setopt(self._curl, option, value):
            self._check_error(code, "setopt", option)

    def start(self, receiver: Receiver) -> None:
        """Begin; see Handle."""
        self.receiver = receiver
        self._data_context.callback = receiver.on_data
        self._head_context.callback = receiver.head
        self._multi.add(self)

    def settle(self, *, shared: bool) -> None:
        """Let the body come in beats; see Handle."""
        self._multi.settle(self, shared=shared)

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Have that called when curl has given all; see Handle."""
        self._multi.afterwards(callback)

    def resume(self) -> int:
        """Go on after PAUSE; see Handle."""
        return self._multi.resume(self)

    def send_frame(self, kind: int, payload: bytes) -> int:
        """Send a frame of a web socket; see Handle."""
        self.setopt(CurlOpt.WS_OPTIONS, 0)
        try:
            self.ws_send(payload, kind)
        except CurlError as error:
            return int(error.code)
        finally:
            self.setopt(CurlOpt.WS_OPTIONS, _RAW_FRAMES)
            self._multi.grant()
        return 0

    def stop(self) -> None:
        """Stop at once; see Handle."""
        self._multi.remove(self)

    def release(self, *, keep: bool) -> None:
        """Close the handle, or keep it empty: no header, body or receiver of a request stays longer than it runs."""
        self.receiver = None
        if not keep or self.single or not self._multi.give_back(self):
            self.close()
            return
        self._data_context.callback = self._head_context.callback = None
        self._body.load(b"")
        self._drop_lines()  # curl does not look at its list before `prepare` gives it another one

    def close(self) -> None:
        """Give everything back to curl; idempotent."""
        super().close()
        self._drop_lines()

    def raised(self) -> BaseException | None:
        """Give what one of the callbacks raised."""
        return self._get_callback_exception()

    def connected_after(self) -> float | None:
        """Give how long the connection took; see Handle."""
        micros = self.number(CurlInfo.PRETRANSFER_TIME_T)
        return micros / 1e6 if micros else None

    def sent(self) -> tuple[int, int]:
        """Give how much has left; see Handle."""
        return self.number(CurlInfo.REQUEST_SIZE), self.number(CurlInfo.SIZE_UPLOAD_T)

    def tunnel_stands(self) -> bool:
        """Whether a proxy has opened the way; see Handle."""
        return self.number(CurlInfo.HTTP_CONNECTCODE) == 200

    def number(self, info: CurlInfo) -> int:
        """Give one of curl's numbers about the transfer."""
        return cast(int, self.getinfo(info))


def _socket_url(url: str) -> str:
    """Give the web socket's URL for the http(s) URL by which everything else knows it."""
    return "ws" + url.removeprefix("http")
