"""The README's example runs as it stands there, but for the port."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"

ON_ANY_PORT = """
import socket
create_server = socket.create_server

def on_any_port(address, **options):
    listener = create_server((address[0], 0), **options)
    print(listener.getsockname()[1])
    return listener

socket.create_server = on_any_port
"""


def test_the_first_example_serves_two_clients(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None, "the README opens with no example"
    program = [sys.executable, "-u", "-c", ON_ANY_PORT + example[1]]
    with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        hung = threading.Timer(60, server.kill)  # then it says nothing more, and an assertion fails
        hung.start()
        try:
            assert server.stdout is not None
            assert server.stderr is not None
            said = server.stdout.readline()
            assert said, server.stderr.read()
            address = ("127.0.0.1", int(said))
            with socket.create_connection(address, 30) as one, socket.create_connection(address, 30) as two:
                for client, data in ((two, b"from two"), (one, b"from one")):
                    client.sendall(data)
                    assert server.stdout.readline() == f"{client.getsockname()} {data!r}\n"
                name = one.getsockname()
                one.close()
                assert server.stdout.readline() == f"{name} closed\n"
        finally:
            hung.cancel()
            server.kill()


def test_the_event_loop_reads_hello_from_a_pipe(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", examples[1]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("pipe b'hello'\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there iocp does not stand on the emulated port")
def test_the_capability_table_is_the_codes() -> None:
    found = re.search(
        r"<!-- capabilities:begin -->\n(.*?)<!-- capabilities:end -->", README.read_text("utf-8"), re.DOTALL
    )
    assert found is not None, "the README has no capability table"
    table = subprocess.run([sys.executable, "-m", "polling", "--markdown"], check=True, capture_output=True, text=True)
    assert found[1] == table.stdout, (
        "the README's table is out of date: paste what `python -m polling --markdown` prints"
    )
