"""The packed call of publish.lua: the same bytes as those of the general packer."""

import pytest

from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.publish_call import (
    ChannelNames,
    PublishSettings,
    PublishWords,
    SeldomWords,
    pack_publish,
)
from tocsin_server.engine.redis.scripts import PUBLISH

SETTINGS = PublishSettings("SPUBLISH", b"1p", 100, 60_000, 3_600_000, 1, 0)
WORDS = PublishWords(b"\r\n%d \xff", b"5", b"abcdefghijkl", b"41", b"")
SELDOM = SeldomWords(b"7", b"", b"300000")


@pytest.mark.parametrize("seldom", [None, SELDOM], ids=["plain", "seldom"])
@pytest.mark.parametrize("first_result", [b"", b"t:{news}:idem:k"], ids=["no key", "key"])
def test_a_publish_is_packed_as_the_general_packer_does_it(
    seldom: SeldomWords | None, first_result: bytes
) -> None:
    """Also with line breaks and percent signs in the words."""
    keys = Keys("%d")
    for channel in ("news", "100%", "}", "", "ä"):
        pubsub_name, *names = keys.of_history(channel)
        names += [first_result.decode()] if first_result else []
        packed = pack_publish(ChannelNames(keys).of(channel), SETTINGS, WORDS, seldom, first_result)
        arguments = (pubsub_name, keys.epochs(channel), *SETTINGS, *WORDS, *(seldom or ()))
        assert packed == pack_command("EVALSHA", PUBLISH.digest, len(names), *names, *arguments)
