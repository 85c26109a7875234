"""Which addresses are of the public internet, and which of Label Studio hold recordings."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio.addresses import holds_recordings, is_private

PRIVATE = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
           "100.64.0.1", "224.0.0.1"]  # fmt: skip


@pytest.mark.parametrize(
    "address",
    [*PRIVATE, "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "fec0::1", "ff02::1",
     "2001:0:1::1", "64:ff9b:1::808:808"],
)  # fmt: skip
def test_addresses_of_private_networks(address):
    assert is_private(address)


@pytest.mark.parametrize("private", PRIVATE)
@pytest.mark.parametrize("prefix", ["::", "::ffff:", "::ffff:0:", "64:ff9b::"])
def test_a_private_address_inside_another_is_private(prefix, private):
    assert is_private(f"{prefix}{private}")


@pytest.mark.parametrize("private", PRIVATE)
def test_a_private_address_behind_6to4_is_private(private):
    number = int(ipaddress.IPv4Address(private))
    assert is_private(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8",
     "2002:808:808::1"],
)  # fmt: skip
def test_addresses_of_the_public_internet(address):
    assert not is_private(address)


@given(st.ip_addresses(v=6))
def test_no_address_that_the_standard_library_calls_private_is_public(address):
    if not address.is_global and address.ipv4_mapped is None:
        assert is_private(str(address))


@pytest.mark.parametrize("home", ["http://ls.example", "https://ls.example:8443/studio"])
@pytest.mark.parametrize(
    "path",
    ["/data/upload/1/a.wav", "/data/local-files/?d=some%20folder/a.flac",
     "/storage-data/uploaded/?filepath=upload/1/a.wav", "/tasks/12/resolve/?fileuri=czM6Ly8=",
     "/tasks/12/presign/?fileuri=czM6Ly8=", "/projects/3/resolve/?fileuri=czM6Ly8=",
     "/data/upload/1/a..b.wav"],
)  # fmt: skip
def test_where_label_studio_has_recordings(home, path):
    assert holds_recordings(home + path, home)


@pytest.mark.parametrize(
    "url",
    ["http://ls.example/", "http://ls.example/data/upload/", "http://ls.example/api/tasks/1",
     "http://ls.example/data/upload/../../api", "http://ls.example/data/upload/%2E%2e/api",
     "http://ls.example/x/data/upload/a.wav", "http://ls.example/tasks/12/",
     "http://ls.example:81/data/upload/a.wav", "https://ls.example/data/upload/a.wav",
     "http://ls.example.org/data/upload/a.wav", "http://ls.example@evil/data/upload/a.wav",
     "http://ls.example:x/data/upload/a.wav"],
)  # fmt: skip
def test_where_it_has_none(url):
    assert not holds_recordings(url, "http://ls.example")


def test_a_label_studio_below_its_hosts_root_owns_nothing_beside_it():
    home = "http://host.example/studio"
    assert not holds_recordings("http://host.example/data/upload/a.wav", home)
    assert not holds_recordings("http://host.example/studious/data/upload/a.wav", home)
