from __future__ import annotations

import contextlib
import functools
import http.client
import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import SWEEP, FakeClips, Run, whole_run, write_run

from mmsearch.cli import main
from mmsearch.errors import MMSearchError
from mmsearch.recommend import card, watch
from mmsearch.recommend.watch import Server


def in_its_search(folder: Path) -> Path:
    """A run in the midst of its search."""
    events = Run(trials=2, seeds=2).search().events
    return write_run(folder, events[: len(events) * 2 // 3])


@contextlib.contextmanager
def serving(run: Path) -> Iterator[Server]:
    with Server(run) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return in_its_search(tmp_path / "run")


@pytest.fixture
def server(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Looks at the run for every request."""
    monkeypatch.setattr(watch, "REST", 0.0)
    monkeypatch.setattr(watch, "SHARE", math.inf)
    with serving(run_dir) as server:
        yield server


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of a run that does not go on."""
    with serving(in_its_search(tmp_path_factory.mktemp("home") / "run")) as server:
        yield server


def ask(
    server: Server, path: str | None = None, *, method: str = "GET", host: str | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path or f"/{server.token}/", skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer, answer.read().decode()


def test_it_shows_the_search_so_far_and_no_verdict(still: Server) -> None:
    answer, text = ask(still)
    assert answer.status == 200 and answer.headers["X-Run"] == "running"
    assert "There is no recommendation yet" in text and "The search so far" in text
    assert "<svg" in text and "Best so far against cost" in text
    assert "Train with" not in text


def test_it_listens_on_the_loopback_address_alone(still: Server) -> None:
    assert still.server_address[0] == "127.0.0.1"
    assert still.address == f"http://127.0.0.1:{still.server_port}/{still.token}/"
    assert len(still.token) >= 32


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}", ""]
)
def test_another_host_is_refused_even_with_the_token(still: Server, host: str) -> None:
    answer, text = ask(still, host=host.format(port=still.server_port) or " ")
    assert answer.status == 421 and "<" not in text


def test_two_hosts_are_refused(still: Server) -> None:
    answer, _ = ask(still, Host="evil.example")
    assert answer.status == 421


@pytest.mark.parametrize(
    "path",
    ["/", "/favicon.ico", "/{token}", "/{token}/x", "/{token}/../", "/{token}/?a", "/x/{token}/", "/{wrong}/", "/é/"],
)
def test_there_is_one_page_and_nothing_else(still: Server, path: str) -> None:
    wrong = still.token[:-1] + ("A" if still.token[-1] != "A" else "B")
    asked = path.format(token=still.token, wrong=wrong).encode().decode("latin-1")
    with socket.create_connection(("127.0.0.1", still.server_port), timeout=10) as raw:
        raw.sendall(f"GET {asked} HTTP/1.0\r\nHost: localhost:{still.server_port}\r\n\r\n".encode("latin-1"))
        answer = b"".join(iter(lambda: raw.recv(1 << 16), b"")).decode()
    assert " 404 " in answer.splitlines()[0]
    assert still.token not in answer and "run" not in answer.rpartition("\r\n\r\n")[2]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_is_read_only(server: Server, method: str, run_dir: Path) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in run_dir.iterdir())
    answer, _ = ask(server, method=method)
    assert answer.status in (405, 501)
    assert "Access-Control-Allow-Origin" not in answer.headers
    ask(server)
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in run_dir.iterdir()), "nothing was written"


def test_the_page_may_run_its_own_script_and_load_nothing(still: Server) -> None:
    answer, text = ask(still)
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"'nonce-([\w-]+)'", policy)
    assert nonce and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert re.findall(r"<script[^>]*>", text) == [f'<script nonce="{nonce[1]}">']
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_it_is_sent_again_only_when_the_run_has_gone_on(server: Server, run_dir: Path) -> None:
    first, _ = ask(server)
    again, text = ask(server, If_None_Match=first.headers["ETag"])
    assert again.status == 304 and text == ""
    events = Run(trials=2, seeds=2).search().events
    write_run(run_dir, events)
    later, text = ask(server, If_None_Match=first.headers["ETag"])
    assert later.status == 200 and later.headers["ETag"] != first.headers["ETag"]
    assert f"{sum(e['event'] == 'told' for e in events)} trials done" in text


def test_head_has_no_body(still: Server) -> None:
    answer, text = ask(still, method="HEAD")
    assert answer.status == 200 and text == "" and int(answer.headers["Content-Length"]) > 1000


def test_after_the_decision_it_is_the_report(server: Server, run_dir: Path) -> None:
    events = whole_run(trials=2, seeds=2)
    write_run(run_dir, events)
    recommendation = card.build(events, FakeClips(), SWEEP)
    card.write(run_dir, recommendation)
    answer, text = ask(server)
    assert answer.headers["X-Run"] == "done"
    assert f"<h1>{recommendation['decision']['headline']}</h1>" in text


def test_the_recommendation_of_an_earlier_session_is_not_shown_for_a_run_that_was_extended(
    server: Server, run_dir: Path
) -> None:
    events: list[dict[str, Any]] = whole_run(trials=2, seeds=2)
    card.write(run_dir, card.build(events, FakeClips(), SWEEP))
    write_run(run_dir, [*events, {"event": "phase", "name": "search", "time": events[-1]["time"] + 1}])
    answer, text = ask(server)
    assert answer.headers["X-Run"] == "running" and "There is no recommendation yet" in text


def test_a_run_that_is_gone_is_said_so(server: Server, run_dir: Path) -> None:
    (run_dir / "journal.jsonl").unlink()
    answer, text = ask(server)
    assert answer.status == 503 and "no run there" in text


def test_a_page_is_not_drawn_for_every_request(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    draw = watch.drawn

    def slow(*args: Any) -> str:
        now[0] += 3.0
        return draw(*args)

    monkeypatch.setattr(watch, "drawn", slow)
    report = watch.LiveReport(run_dir, "n")
    first = report.now()
    events = Run(trials=2, seeds=2).search().events
    write_run(run_dir, events)
    now[0] += 3.0 / watch.SHARE - 0.1
    assert report.now() is first, "drawing took 3 s, so that it rests for 30"
    now[0] += 0.2
    assert report.now() is not first


def test_mistakes_end_in_one_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none"), "--watch"]) == 2
    assert "no run there" in capsys.readouterr().err
    assert main(["report", str(run_dir), "--watch", "--port", "70000"]) == 2
    assert "0 to 65535" in capsys.readouterr().err
    with Server(run_dir) as server, pytest.raises(MMSearchError, match="cannot listen there"):
        Server(run_dir, server.server_port)


def test_ctrl_c_ends_it_cleanly(run_dir: Path) -> None:
    command = [sys.executable, "-m", "mmsearch", "report", str(run_dir), "--watch"]
    heeds = functools.partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # what runs in a shell's background does not
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        address = re.fullmatch(r"report: http://127\.0\.0\.1:(\d+)/([\w-]+)/\n", line)
        assert address, line
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=30)
        connection.request("GET", f"/{address[2]}/")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_events_are_not_needed_to_show_that_a_run_has_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [{"event": "opened", "time": 1.0}])
    assert "0 trials done" in watch.LiveReport(run, "n").now().body.decode()
    assert json.loads((run / "sweep.json").read_text()) == SWEEP
