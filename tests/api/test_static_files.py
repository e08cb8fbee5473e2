"""Files of the pages."""

from pathlib import Path

import httpx
import pytest

from tests.api.pages_house import Person

pytestmark = pytest.mark.asyncio(loop_scope="module")
FOLDER = Path(__file__).parent.parent.parent / "templates" / "static"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("style.css", "text/css; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_a_file_is_given_as_it_is_and_not_again_while_it_is_the_same(
    person: Person, name: str, content_type: str
) -> None:
    answer = await person.http.get(f"/static/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await person.http.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


FORMS = [
    "../base.html", "..%2fbase.html", "%2e%2e/base.html", "%2e%2e%2fbase.html", "....//base.html", "..\\base.html",
    "..%5cbase.html", "/etc/passwd", "%2fetc/passwd", "//etc/passwd", ".env", "", ".", "style.css/", "style.css%00",
    "style.css%00.html", "STYLE.CSS", "..;/base.html", "%252e%252e%252fbase.html", "~root",
    "file:///etc/passwd", "C:%5cwindows", "con", "..%c0%afbase.html",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_S38_no_other_file_is_read(person: Person, form: str) -> None:
    url = httpx.URL(str(person.http.base_url)).copy_with(raw_path=f"/static/{form}".encode())
    answer = await person.http.get(url)
    assert answer.status_code in (400, 404)
    assert "<html" not in answer.text
    assert "root:" not in answer.text
