"""``autolr watch --serve``: the page of runs that go on, on this machine, made anew whenever a log has changed."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from autolr.cli.watch import Watched
from autolr.report.page import page_of

HOST = "127.0.0.1"  # logs hold paths and names: they are shown to nobody else
EVERY = 2  # [s] between two questions of the page

# The page asks whether there is a newer one, and where it is scrolled to stays.
REFRESH = """<script>
"use strict";
(() => {
  const key = "autolr-scroll", at = sessionStorage.getItem(key);
  if (at) { addEventListener("load", () => scrollTo(0, Number(at))); sessionStorage.removeItem(key); }
  setInterval(async () => {
    try {
      const newest = await (await fetch("version")).text();
      if (newest === "%(version)s") return;
      sessionStorage.setItem(key, String(scrollY));
      location.reload();
    } catch { /* the command was ended: the page stays as it is */ }
  }, %(milliseconds)d);
})();
</script>
"""


WAITING = """<!doctype html><html lang="en"><title>AutoLR report</title>
<body style="font: 1rem system-ui; margin: 3rem">
<p>Nothing is there yet. Waiting for the log of a run: <code>AutoLR(..., trace=FILE)</code> writes one.</p>
</body></html>"""


class LivePage:
    """The page and its version, for several askers at once."""

    def __init__(self, watched: Watched) -> None:
        self._watched, self._lock = watched, threading.Lock()
        self._version, self._page = 0, ""
        self._statuses: list[str] = []

    def refresh(self) -> int:
        """The version; a new one where a log, or whether a run lives, has changed."""
        with self._lock:
            changed = self._watched.read()
            statuses = list(self._watched.statuses().values())
            if changed or statuses != self._statuses or not self._version:
                self._statuses, self._version = statuses, self._version + 1
                trainings = self._watched.trainings()
                self._page = page_of(trainings) if trainings else WAITING
            return self._version

    def page(self) -> str:
        """With the script that asks for the next."""
        version = self.refresh()
        script = REFRESH % {"version": version, "milliseconds": 1000 * EVERY}
        head, end, tail = self._page.rpartition("</body>")
        return head + script + end + tail


def server(watched: Watched, port: int) -> ThreadingHTTPServer:
    """Listens on this machine alone; call ``serve_forever``.

    Raises:
        OSError: the port is taken.
    """
    live = LivePage(watched)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in {HOST, "localhost"}:
                self.send_error(HTTPStatus.FORBIDDEN)  # a name that somebody else resolves to this machine
            elif self.path == "/":
                self._answer(live.page(), "text/html")
            elif self.path == "/version":
                self._answer(str(live.refresh()), "text/plain")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, text: str, kind: str) -> None:
            content = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal is the user's."""

    return ThreadingHTTPServer((HOST, port), Handler)
