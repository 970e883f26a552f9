#!/usr/bin/env python3
"""A tiny web server for drkeewee.cgi, on this machine only.

    drkeewee.py [--port PORT]

Then open http://127.0.0.1:8088/. The pages only show; nothing on them changes the farm.
"""

import argparse
import http.server
import os
import subprocess
import sys
import urllib.parse
from email.parser import BytesHeaderParser
from http import HTTPStatus
from pathlib import Path

SCRIPT = Path(__file__).with_name("drkeewee.cgi")
ADDRESS = "127.0.0.1"
PAGE_S = 60
"""Seconds that a page may take."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Runs the CGI script for each request, as RFC 3875 describes it."""

    server_version = "DrKeewee"

    def do_GET(self) -> None:
        """Answer with what the script prints."""
        name = (self.headers.get("Host") or ADDRESS).rpartition(":")[0] or self.headers.get("Host")
        if name not in (ADDRESS, "localhost"):
            # A page from elsewhere whose name leads here must not read the farm.
            self.send_error(HTTPStatus.FORBIDDEN, "This server is for this machine alone")
            return
        path, _, query = self.path.partition("?")
        env = {
            **os.environ,
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": urllib.parse.unquote(path),
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": self.request_version,
        }
        try:
            ran = subprocess.run(
                [sys.executable, SCRIPT], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                timeout=PAGE_S, check=True,
            )  # fmt: skip
        except subprocess.SubprocessError as error:
            self.log_error("%s", error)
            self.send_error(HTTPStatus.BAD_GATEWAY)
            return
        except ValueError:  # a zero byte in the path
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        self._pass_on(ran.stdout)

    def do_HEAD(self) -> None:
        """The same without the page."""
        self.do_GET()

    def _pass_on(self, printed: bytes) -> None:
        head, _, body = printed.partition(b"\n\n")
        headers = BytesHeaderParser().parsebytes(head + b"\n\n")
        code, _, phrase = headers.get("Status", "200 OK").partition(" ")
        self.send_response(int(code), phrase)
        for name, value in headers.items():
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A tiny web server for drkeewee.cgi, on this machine only.")
    parser.add_argument("--port", type=int, default=8088, help="port to listen on (8088; 0: any)")
    port = parser.parse_args().port
    try:
        server = http.server.ThreadingHTTPServer((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        sys.exit(f"drkeewee: port {port}: {getattr(error, 'strerror', None) or error}")
    with server:
        print(f"http://{ADDRESS}:{server.server_address[1]}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
