"""A tar archive is fetched once, with this host's proxies and CA bundle, and must have the sha256 of the recipe."""

from __future__ import annotations

import hashlib
import io
from urllib.error import URLError

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.sources import downloads

URL = "https://example.com/root.tar"
TEXT = b"an archive" * 1000
SUM = hashlib.sha256(TEXT).hexdigest()


@pytest.fixture
def web(monkeypatch):
    """A server with one page, and the URLs that were requested."""
    pages: dict[str, bytes] = {URL: TEXT}
    asked: list[str] = []

    def opened(url):
        asked.append(url)
        if url not in pages:
            raise URLError("no such page")
        return io.BytesIO(pages[url])

    monkeypatch.setattr(downloads, "_open", opened)
    return pages, asked


@pytest.fixture
def fetched(host):
    def ask(location=URL, sha256=SUM, **order):
        with host.workspace() as place:
            return downloads.fetched(host, place, location, {"sha256": sha256, **order})

    return ask


def test_an_archive_is_fetched_once(web, fetched):
    assert [fetched().read_bytes() for _ in range(2)] == [TEXT, TEXT]
    assert web[1] == [URL]


def test_another_sum_is_refused_and_nothing_is_kept(web, host, fetched):
    with pytest.raises(CommandExecutionError, match=f"{URL} has the sha256 {SUM}, and the recipe says {'0' * 64}"):
        fetched(sha256="0" * 64)
    assert list((host.cache / "tarballs").iterdir()) == []


def test_a_damaged_archive_in_the_cache_is_fetched_again(web, fetched):
    fetched().write_bytes(b"damaged")
    assert fetched().read_bytes() == TEXT


def test_a_url_that_cannot_be_fetched_is_named(web, fetched):
    with pytest.raises(CommandExecutionError, match="https://example.com/other could not be fetched: .*no such page"):
        fetched("https://example.com/other", sha256="1" * 64)


def test_a_path_is_used_where_it_is(web, fetched, tmp_path):
    assert fetched(str(tmp_path / "root.tar")) == tmp_path / "root.tar"
    assert web[1] == []


def test_the_proxy_of_the_host_is_used(monkeypatch, tmp_path):
    """Nothing listens at the proxy's address, so the error shows that it was contacted."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(URLError, match="refused"):
        downloads._open("http://nowhere.invalid/root.tar")
