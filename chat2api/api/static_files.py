"""The pages' own style, script and icon, read once at start: a request for one touches no disk and names no path."""

import hashlib
import mimetypes
from pathlib import Path

from quart import Quart, Response, request

from chat2api.errors import NotFoundError

ENDPOINT = "static"


def install_static_files(app: Quart, folder: Path, prefix: str) -> None:
    """Serve the files of a folder, which holds no folders, under `/static/`. Raises OSError when one cannot be read."""
    files = {path.name: _Ready(path) for path in sorted(folder.iterdir()) if path.is_file()}

    async def static_file(filename: str) -> Response:
        found = files.get(filename)
        if found is None:
            raise NotFoundError("There is no such file.")
        response = Response(found.data, content_type=found.content_type)
        # Asked for anew with each page, answered with 304 as long as it is the same: an upgrade shows at once.
        response.headers["Cache-Control"] = "no-cache"
        response.set_etag(found.etag)
        await response.make_conditional(request)
        return response

    app.add_url_rule(f"{prefix}/static/<path:filename>", ENDPOINT, static_file)


class _Ready:
    """A file's content with what is said of it."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind.endswith("javascript")
        self.content_type = f"{kind}; charset=utf-8" if text else kind
        self.etag = hashlib.sha256(self.data).hexdigest()[:16]
