"""Both tables against another implementation of the protocol's server side."""

from __future__ import annotations

import pytest

from drey_testing.ca import conformance_values
from drey_testing.ca.ioc import CaprotoIoc


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    with CaprotoIoc(tmp_path_factory.mktemp("caproto")) as running:
        yield running


@pytest.fixture
def server(ioc):
    return conformance_values.Server(nul_is_nothing=True)


class TestValues(conformance_values.ValueConformance):
    pass


class TestTimes(conformance_values.TimeConformance):
    pass
