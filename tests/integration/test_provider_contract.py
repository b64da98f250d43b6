"""The provider nspawn keeps the contract of providers, with real machines."""

from __future__ import annotations

import time

import pytest
import salt.config
from salt.exceptions import SaltInvocationError
from support.provider_contract import ProviderContract

from saltext.immutable import providers
from saltext.immutable.providers import Provider

SETTINGS = {"memory": "256M"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"memroy": "1G"}, "memroy: no such key; did you mean 'memory'"), ({"memory": "much"}, "memory")],
)
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(SaltInvocationError, match=says):
        providers.check("nspawn", settings)


class TestNspawn(ProviderContract):
    @pytest.fixture
    def provider(self, estate) -> Provider:
        return providers.load("nspawn", SETTINGS, salt.config.master_config(str(estate.etc / "master")))

    @pytest.fixture
    def image(self, web) -> str:
        return str(web["digest"])

    @pytest.fixture
    def wait(self):
        return time.sleep
