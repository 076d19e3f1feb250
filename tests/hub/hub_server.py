"""A hub on this machine, as much of one as huggingface_hub asks for: models, their files, gates and revisions."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT, OLDER = "c" * 40, "0" * 40
REVISIONS = {"main": COMMIT, COMMIT: COMMIT, "v1": OLDER, OLDER: OLDER}


@dataclass
class Hub:
    """``models``: name -> {file: content}; the names in ``gated`` give no files. ``asked`` are the paths of files.

    The older revision has a file ``vocab.txt`` more.
    """

    models: dict[str, dict[str, bytes]]
    gated: frozenset[str] = frozenset()
    address: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        path = path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
            name, what, revision = found.groups()
            return self._about(name, what or "revision", revision or "main")
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, revision, file = found.groups()
            self.asked.append(file)
            if name in self.gated:
                return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
            data = self._files(name, revision)[file]
            return 200, {"ETag": f'"{_sha(data)}"', "X-Repo-Commit": REVISIONS[revision]}, data
        return 404, {}, b""

    def _files(self, name: str, revision: str) -> dict[str, bytes]:
        return self.models[name] | ({"vocab.txt": b"old"} if REVISIONS[revision] == OLDER else {})

    def _about(self, name: str, what: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        if name not in self.models:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if revision not in REVISIONS:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = self._files(name, revision)
        if what == "tree":
            rows = [{"type": "file", "path": k, "size": len(v), "oid": _sha(v)[:40]} for k, v in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
        about = {
            "id": name, "modelId": name, "sha": REVISIONS[revision], "private": False, "tags": [], "downloads": 0,
            "likes": 0, "cardData": {"license": "mit"},
            "siblings": [{"rfilename": k, "size": len(v), "blobId": _sha(v)[:40]} for k, v in files.items()],
        }  # fmt: skip
        return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at work; its ``address`` is for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
