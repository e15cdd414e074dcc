"""The server of a page: who may ask, what it answers, and that it follows."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nnas_core.errors import InputError
from nnas_core.viewing import serving
from nnas_core.viewing.serving import Server
from nnas_core.viewing.view import View
from tests.viewing.sample_views import search_view


class Source:
    """What is read: a view that a test changes, or an error."""

    def __init__(self) -> None:
        self.view = search_view()
        self.error: InputError | None = None
        self.reads = 0

    def __call__(self) -> View:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.view


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def server(source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(serving, "_FRESH_S", 0.0)
    monkeypatch.setattr(serving, "_PAUSE", 0.0)
    with Server(source) as made:
        thread = threading.Thread(target=made.serve)
        thread.start()
        yield made
        made.stop()
        thread.join(10)
        assert not thread.is_alive()


def ask(
    server: Server, path: str = "", method: str = "GET", host: str | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and content; the path is below the token unless it begins with a slash."""
    address, token = server.host, server.address.split("/")[3]
    connection = http.client.HTTPConnection(address, timeout=10)
    names = {
        "Host": address if host is None else host,
        **{one.replace("_", "-"): text for one, text in headers.items()},
    }
    connection.putrequest(method, path if path.startswith("/") else f"/{token}/{path}", skip_host=True)
    for name, text in names.items():
        connection.putheader(name, text)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_it_serves_the_page_and_its_data_on_the_loopback_address(server: Server) -> None:
    assert server.address.startswith("http://127.0.0.1:")
    status, headers, content = ask(server)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'data-served="yes"' in content
    assert b"connect-src 'self'" in content
    assert headers["X-Frame-Options"] == "DENY"
    status, headers, content = ask(server, "view.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(content)["name"] == "runs/net"


def test_it_follows_what_goes_on(server: Server, source: Source) -> None:
    _, headers, _ = ask(server, "view.json")
    status, _, content = ask(server, "view.json", If_None_Match=headers["ETag"])
    assert (status, content) == (304, b"")
    source.view = replace(source.view, running=False)
    status, _, content = ask(server, "view.json", If_None_Match=headers["ETag"])
    assert status == 200
    assert json.loads(content)["running"] is False


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_name_that_leads_here_is_refused(server: Server, host: str) -> None:
    assert ask(server, host=host)[0] == 421


@pytest.mark.parametrize("path", ["/", "/view.json", "/wrong/", "/wrong/view.json", "/%00/", "//", "other", "../"])
def test_what_lacks_the_token_or_is_no_page_is_not_found(server: Server, path: str) -> None:
    assert ask(server, path)[0] == 404
    assert server.answer(server.host, "/\u00e9/")[0] == 404


def test_the_address_without_its_end_is_no_page_which_could_not_follow(server: Server) -> None:
    token = server.address.split("/")[3]
    assert [server.answer(server.host, f"{path}{token}{end}")[0] for path, end in (("/", ""), ("", "/"))] == [404] * 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_only_reads(server: Server, method: str) -> None:
    assert ask(server, method=method)[0] == 501


def test_head_has_no_content(server: Server) -> None:
    status, headers, content = ask(server, method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


def test_an_error_of_the_moment_is_said_and_asked_again(server: Server, source: Source) -> None:
    source.error = InputError("is damaged", where="events.jsonl")
    assert ask(server)[0::2] == (503, b"events.jsonl: is damaged\n")
    assert json.loads(ask(server, "view.json")[2]) == {"error": "events.jsonl: is damaged"}
    source.error = None
    assert ask(server)[0] == 200


def test_a_browser_that_goes_away_is_no_news(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for error, told in ((ConnectionResetError(), ""), (BrokenPipeError(), ""), (RuntimeError("broken"), "broken")):
        try:
            raise error
        except (OSError, RuntimeError):
            server._http.handle_error(None, None)
        assert told in capsys.readouterr().err if told else capsys.readouterr().err == ""


def test_it_does_not_read_again_at_once(source: Source) -> None:
    with Server(source) as server:
        path = "/" + server.address.split("/", 3)[3]
        assert [server.answer(server.host, path)[0] for _ in range(3)] == [200] * 3
    assert source.reads == 1
