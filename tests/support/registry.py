"""A real registry of OCI images for tests: below its own folder, on its own loopback address, ended by its pid."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.estate import wait_for
from support.haproxy import loopback

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {home}/images}}}}
http: {{addr: '{place}'}}
"""


class Registry:
    """Debian's docker-registry, without TLS and without users."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.place = f"{loopback(str(self.home))}:5000"

    def __enter__(self) -> Registry:
        self.home.mkdir(exist_ok=True)
        config = self.home / "config.yml"
        config.write_text(CONFIG.format(home=self.home, place=self.place))
        with (self.home / "log").open("w") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        wait_for(self._answers, 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        with suppress(OSError):
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return direct.open(f"http://{self.place}/v2/", timeout=5).status == 200
        return False

    def push(self, folder: Path, name: str) -> str:
        """Push the image in a folder, and return its name with the registry."""
        target = f"{self.place}/{name}"
        copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"oci:{folder}", f"docker://{target}"], check=True)
        return target


def write_image(folder: Path, layers: Sequence[Path]) -> None:
    """Write an OCI image with these uncompressed tar archives as its layers."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    found = [blob(layer.read_bytes(), "layer.v1.tar") for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [one["digest"] for one in found]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    about = {"schemaVersion": 2, "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": found}
    manifest = blob(json.dumps(about).encode(), "manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def archived(folder: Path, archive: Path) -> Path:
    """Write an image in a folder as an OCI archive, and return that."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, ".")
    return archive
