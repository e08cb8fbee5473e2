"""Files and the blob store: create, upload, confirm, index, download.

Signed links carry their own permission in the query. As at the real store, a request that also brings an Authorization
header is refused.
"""

import hashlib
import hmac
import struct
import zlib
from dataclasses import dataclass, field
from urllib.parse import quote

from chat2api.simulator.accounts import AccountBook
from chat2api.simulator.refusals import refuse, refuse_field, refuse_text
from chat2api.simulator.routes import API, Call, Route, route
from chat2api.simulator.wire import Answer, Object, json_answer

_LINK_LIFETIME = 3_600
_USE_CASES = ("multimodal", "my_files", "ace_upload", "profile_picture")
_FILE_ID = r"(?P<file>file[-_][0-9A-Za-z]{8,64})"


@dataclass(slots=True)
class StoredFile:
    """One file, from its creation on; `content` None until it was uploaded."""

    id: str
    owner: str
    name: str
    size: int
    use_case: str
    mime_type: str
    created_at: float
    conversation_id: str | None = None
    content: bytes | None = None
    confirmed: bool = False
    index_polls_left: int = 0
    downloads_refused: int = 0


def _png(width: int = 8, height: int = 8) -> bytes:
    """Give a small blue picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + b"\x30\x60\xc0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURE = _png()
"""The picture that every image answer gives."""


@dataclass(slots=True)
class Files:
    """All files of all accounts."""

    book: AccountBook
    stored: dict[str, StoredFile] = field(default_factory=dict)
    _interpreter: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        """Give the operations."""
        conversation = API + r"/conversation/(?P<conversation>[0-9A-Za-z-]{8,64})"
        return [
            route("file_create", "POST", API + "/files", self.create),
            route("file_uploaded", "POST", f"{API}/files/{_FILE_ID}/uploaded", self.confirm),
            route("file_get", "GET", f"{API}/files/{_FILE_ID}", self.get),
            route("file_download", "GET", f"{API}/files/{_FILE_ID}/download", self.download),
            route("file_download", "GET", f"{API}/files/download/{_FILE_ID}", self.download),
            route("file_download", "GET", f"{conversation}/attachment/{_FILE_ID}/download", self.download),
            route("file_download", "GET", f"{conversation}/interpreter/download", self.download_interpreter),
            route("blob_put", "PUT", "/blob/" + _FILE_ID, self.put_blob, "open"),
            route("blob_get", "GET", "/blob/" + _FILE_ID, self.get_blob, "open"),
            route("blob_get", "GET", API + "/estuary/content", self.get_content),
        ]

    def usable(self, call: Call, file_id: str) -> bool:
        """Tell whether the caller may name the file in a message."""
        file = self.stored.get(file_id)
        return file is not None and file.owner == call.caller.key and file.confirmed

    def add_image(self, call: Call, conversation_id: str, scheme: str) -> str:
        """Store a picture that the backend made and give its id, in the form that goes with the scheme."""
        if scheme == "sediment":
            file_id = "file_00000000" + self.book.random_bytes("file", 12).hex()
        else:
            file_id = "file-" + self._letters(24)
        file = StoredFile(
            file_id, call.caller.key, "picture.png", len(PICTURE), "multimodal", "image/png", call.now, conversation_id
        )
        file.content, file.confirmed = PICTURE, True
        self.stored[file_id] = file
        return file_id

    def add_interpreter_file(self, conversation_id: str, message_id: str, path: str, content: bytes) -> None:
        """Store a file that the interpreter wrote."""
        file_id = "file-" + self._letters(24)
        name = path.rpartition("/")[2]
        file = StoredFile(
            file_id, "", name, len(content), "ace_upload", "text/csv", 0.0, conversation_id, content, True
        )
        self.stored[file_id] = file
        self._interpreter[conversation_id, message_id, path] = file_id

    def create(self, call: Call) -> Answer:
        """Answer the id and the address for the upload."""
        body = call.body()
        name, size, use_case = body.get("file_name"), body.get("file_size"), body.get("use_case")
        if not isinstance(name, str) or not name:
            raise refuse_field("file_name", "Input should be a valid string", "string_type")
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise refuse_field("file_size", "Input should be a valid integer", "int_type")
        if not isinstance(use_case, str) or use_case not in _USE_CASES:
            raise refuse_field("use_case", "Input should be a known use case", "enum")
        file_id = "file-" + self._letters(22)
        mime_type = body.get("mime_type")
        self.stored[file_id] = StoredFile(
            file_id,
            call.caller.key,
            name,
            size,
            use_case,
            mime_type if isinstance(mime_type, str) else "application/octet-stream",
            call.now,
        )
        link = self._link(call, file_id, write=True)
        library = "lib-" + file_id[-8:]
        return json_answer({"status": "success", "upload_url": link, "file_id": file_id, "library_file_id": library})

    def confirm(self, call: Call) -> Answer:
        """Take note that the upload is done."""
        file = self._own(call)
        if file.content is None:
            raise refuse_text(400, "File has not been uploaded")
        file.confirmed = True
        file.index_polls_left = call.options.pending_index_polls
        answer: Object = {
            "status": "success",
            "download_url": self._link(call, file.id),
            "metadata": None,
            "file_size_tokens": len(file.content) // 4,
        }
        return json_answer(answer)

    def get(self, call: Call) -> Answer:
        """Answer the file's state; its index is ready after some polls."""
        file = self._own(call)
        pending = file.index_polls_left > 0
        file.index_polls_left -= pending
        answer: Object = {
            "id": file.id,
            "name": file.name,
            "creation_time": "2026-01-01T00:00:00+00:00",
            "state": "ready" if file.confirmed else "processing",
            "ready_time": "2026-01-01T00:00:01+00:00" if file.confirmed else None,
            "size": file.size,
            "metadata": {},
            "use_case": file.use_case,
            "retrieval_index_status": "pending" if pending or not file.confirmed else "success",
            "file_size_tokens": file.size // 4,
            "variants": None,
        }
        return json_answer(answer)

    def download(self, call: Call) -> Answer:
        """Answer a signed link."""
        file = self._own(call)
        wanted = call.parts.get("conversation")
        if file.content is None or (wanted is not None and file.conversation_id != wanted):
            raise refuse("not_found")
        if file.downloads_refused < call.options.pending_downloads:
            file.downloads_refused += 1
            return json_answer({"status": "retry"})
        link = self._link(call, file.id)
        return json_answer({"status": "success", "download_url": link, "file_name": file.name, "metadata": {}})

    def download_interpreter(self, call: Call) -> Answer:
        """Answer a signed link to a file in the sandbox."""
        query = call.request.query
        key = (call.parts["conversation"], query.get("message_id", ""), query.get("sandbox_path", ""))
        file_id = self._interpreter.get(key)
        if file_id is None:
            raise refuse("not_found")
        return json_answer({"status": "success", "download_url": self._link(call, file_id)})

    def put_blob(self, call: Call) -> Answer:
        """Take the bytes."""
        file = self._by_link(call, write=True)
        if call.request.header("x-ms-blob-type") != "BlockBlob" or call.request.header("x-ms-version") is None:
            raise refuse_text(400, "A required header is missing: x-ms-blob-type, x-ms-version")
        if len(call.request.body) != file.size:
            raise refuse_text(400, "The size differs from the announced one")
        file.content = call.request.body
        file.mime_type = call.request.header("content-type") or file.mime_type
        return Answer(201, b"", (("etag", '"0x8DC0"'),))

    def get_blob(self, call: Call) -> Answer:
        """Give the bytes to the holder of a signed link."""
        return _content(self._by_link(call, write=False))

    def get_content(self, call: Call) -> Answer:
        """Give the bytes to the signed-in owner, for links relative to the origin."""
        file = self.stored.get(call.request.query.get("id", ""))
        if file is None or file.owner not in ("", call.caller.key):
            raise refuse("not_found")
        return _content(file)

    def _letters(self, count: int) -> str:
        return self.book.random_text("file", count).replace("-", "x").replace("_", "y")

    def _own(self, call: Call) -> StoredFile:
        file = self.stored.get(call.parts["file"])
        if file is None or file.owner != call.caller.key:
            raise refuse("not_found")
        return file

    def _signature(self, file_id: str, permission: str, expires: int) -> str:
        text = f"{file_id}|{permission}|{expires}"
        return hmac.new(b"blob store", text.encode(), hashlib.sha256).hexdigest()

    def _link(self, call: Call, file_id: str, *, write: bool = False) -> str:
        if call.options.relative_links and not write:
            return f"/backend-api/estuary/content?id={quote(file_id)}"
        permission = "w" if write else "r"
        expires = int(call.now) + _LINK_LIFETIME
        signature = self._signature(file_id, permission, expires)
        return f"{call.request.origin}/blob/{file_id}?se={expires}&sp={permission}&sig={signature}"

    def _by_link(self, call: Call, *, write: bool) -> StoredFile:
        if call.request.header("authorization") is not None:
            raise refuse_text(403, "Only one way of authentication is allowed")
        query = call.request.query
        expires = query.get("se", "0")
        signature = self._signature(call.parts["file"], "w" if write else "r", int(expires) if expires.isdigit() else 0)
        file = self.stored.get(call.parts["file"])
        if file is None or not hmac.compare_digest(signature.encode(), query.get("sig", "").encode()):
            raise refuse_text(403, "Server failed to authenticate the request")
        if int(expires) < call.now:
            raise refuse_text(403, "The signed link has expired")
        return file


def _content(file: StoredFile) -> Answer:
    if file.content is None:
        raise refuse("not_found")
    disposition = f"attachment; filename*=UTF-8''{quote(file.name)}"
    return Answer(200, file.content, (("content-type", file.mime_type), ("content-disposition", disposition)))
