"""The master config below ``immutable:``: each key, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import settings
from saltext.immutable.spec.model import Network, Settings


@pytest.mark.parametrize("opts", [{}, {"immutable": {}}], ids=["absent", "empty"])
def test_an_absent_section_means_the_defaults(opts):
    assert settings(opts) == Settings()


def test_all_settings_are_read():
    given = {
        "root": "/srv/immutable",
        "store": "postgresql+psycopg://salt@db/immutable",
        "builder": "builder.example.com",
        "pillar_id": "master.example.com_master",
        "master": "salt.example.com",
        "network": {"bridge": "imm1", "subnet": "10.9.0.0/29"},
        "cache": "only",
    }
    assert settings({"immutable": given}) == Settings(
        root=Path("/srv/immutable"),
        store="postgresql+psycopg://salt@db/immutable",
        builder="builder.example.com",
        pillar_id="master.example.com_master",
        master="salt.example.com",
        network=Network("imm1", "10.9.0.0/29"),
        cache="only",
    )


def test_the_store_lies_below_the_root_unless_said_otherwise():
    assert settings({"immutable": {"root": "/srv/i"}}).store == "sqlite:////srv/i/store.sqlite"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param({"stor": "x"}, ":stor: no such key; did you mean 'store'?", id="unknown key"),
        pytest.param(None, ": must be a mapping, not empty", id="an empty key is not absent"),
        pytest.param({"cache": "none"}, ":cache: must be use or only, not str 'none'", id="a word that is none"),
        pytest.param({"root": "srv"}, ":root: must be an absolute path", id="relative root"),
        pytest.param({"root": "/srv/../x"}, ":root: must be an absolute path", id="root that climbs"),
        pytest.param({"signing_key": "key.pem"}, ":signing_key: must be an absolute path", id="relative key"),
        pytest.param({"trusted_keys": "/a.pub"}, ":trusted_keys: ", id="trusted keys are a list"),
        pytest.param({"trusted_keys": ["a.pub"]}, ":trusted_keys: must be an absolute path", id="relative trusted key"),
        pytest.param({"store": "/x.sqlite"}, ":store: must be an SQLAlchemy URL", id="a path is no URL"),
        pytest.param({"builder": "b*"}, ":builder: 'b*' is not a minion id", id="builder is one minion"),
        pytest.param({"network": {"bridge": "a-name-too-long0"}}, ":network:bridge: ", id="16 letters"),
        pytest.param({"network": {"bridge": "a/b"}}, ":network:bridge: ", id="no interface name"),
        pytest.param(
            {"network": {"subnet": "10.0.0.1/24"}},
            ":network:subnet: must be the network itself, not '10.0.0.1/24'; write 10.0.0.0/24",
            id="host bits",
        ),
        pytest.param({"network": {"subnet": "10.0.0.0"}}, "write 10.0.0.0/32", id="no prefix"),
        pytest.param({"network": {"subnet": "10.0.0.0/30"}}, "too few addresses", id="too small"),
        pytest.param({"network": {"subnet": "fd00::/64"}}, "is not an IPv4 network", id="IPv6"),
    ],
)
def test_an_error_names_the_path_and_what_to_write(given, sentence):
    with pytest.raises(SaltInvocationError) as err:
        settings({"immutable": given})
    assert str(err.value).startswith("config immutable")
    assert sentence in str(err.value)
