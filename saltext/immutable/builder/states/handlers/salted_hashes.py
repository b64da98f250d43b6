"""States that Salt gives a random salt: the same one in each bake of an installation, or no layer would be made twice.

The salts are derived from the installation's key for traces, so that nobody else can tell them.
"""

from __future__ import annotations

import base64
import hmac
import os
import stat
from pathlib import Path

from saltext.immutable.builder.states.handlers.call import Call, Result

_HASHED = "|1|"
"""Begins a line of known_hosts whose host is hashed: this, a salt, ``|``, the hash, and the key behind a space."""
_OF_ALL = "/etc/ssh/ssh_known_hosts"


def user(call: Call) -> Result:
    """`user.present` with ``hash_password``: Salt takes the salt of a password that is there, and else a random one."""
    password = call.get("password")
    if not (password and call.get("hash_password")) or "$" in call.salt["shadow.info"](call.name).get("passwd", ""):
        return call.run()
    salt = call.trace.derived(f"password of {call.name}: {password}").hex()[:16]
    hashed = call.salt["shadow.gen_password"](str(password), crypt_salt=salt)
    return call.run(password=hashed, hash_password=False)


def known_host(call: Call) -> Result:
    """`ssh_known_hosts.present`: ssh-keygen hashes the name of the host with a random salt."""
    result = call.run()
    file = _known_hosts(call)
    if result["result"] is False or not call.get("hash_known_hosts") or not file or not _is_plain(file):
        return result
    salt = call.trace.derived(f"known host {call.name} of {call.get('user')}")[:20]
    lines = file.read_bytes().splitlines(keepends=True)
    new = [_with_salt(line, call.name.encode(), salt) for line in lines]
    if new != lines:
        file.write_bytes(b"".join(new))
    return result


def _known_hosts(call: Call) -> Path | None:
    owner, config = call.get("user"), call.get("config")
    if not owner:
        return Path(config or _OF_ALL)
    home = (call.salt["user.info"](owner) or {}).get("home")
    return Path(home, config or ".ssh/known_hosts") if home else None


def _is_plain(file: Path) -> bool:
    """Return whether it is a file of its own: a link, or a file with several names, is left as it is."""
    found = file.lstat() if os.path.lexists(file) else None
    return found is not None and stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _with_salt(line: bytes, name: bytes, salt: bytes) -> bytes:
    """Return a line of known_hosts with another salt, if it is of the host ``name``."""
    hashed, _, key = line.partition(b" ")
    parts = hashed.split(b"|")
    if not line.startswith(_HASHED.encode()) or len(parts) != 4:
        return line
    try:
        before, found = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except ValueError:
        return line
    if not hmac.compare_digest(hmac.digest(before, name, "sha1"), found):
        return line
    now = base64.b64encode(salt), base64.b64encode(hmac.digest(salt, name, "sha1"))
    return _HASHED.encode() + b"|".join(now) + b" " + key
