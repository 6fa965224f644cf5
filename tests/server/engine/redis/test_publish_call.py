"""The packed call of publish.lua: the same bytes as those of the general packer."""

import pytest

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.publish_call import (
    ChannelNames,
    PublishSettings,
    PublishState,
    SeldomWords,
    pack_publish,
)
from tocsin_server.engine.redis.scripts import PUBLISH
from tocsin_server.engine.redis.seen_positions import UNSEEN, SeenPosition

OPTIONS = ChannelOptions()
STATE: PublishState = (b"1p", True, True, False)
SETTINGS = PublishSettings("SPUBLISH", b"1p", 100, 60_000, 3_600_000, 1, 0)
OWN = (b"\r\n%d \xff", b"5", b"abcdefghijkl")
SELDOM = SeldomWords(7, "", 300_000)


@pytest.mark.parametrize("seen", [UNSEEN, SeenPosition(41, "epoch")], ids=["unseen", "seen"])
@pytest.mark.parametrize(
    "seldom", [None, SELDOM, SELDOM._replace(version=0)], ids=["plain", "version", "no version"]
)
@pytest.mark.parametrize("first_result", ["", "t:{news}:idem:k"], ids=["no key", "key"])
def test_a_publish_is_packed_as_the_general_packer_does_it(
    seen: SeenPosition, seldom: SeldomWords | None, first_result: str
) -> None:
    """Also with line breaks and percent signs in the words."""
    keys = Keys("%d")
    for channel in ("news", "100%", "}", "", "ä"):
        pubsub_name, *names = keys.of_history(channel)
        words = ChannelNames(keys, lambda _options, _state: SETTINGS).of(channel)
        words.use_options(OPTIONS)
        if seldom is not None:
            names += [first_result] if first_result else []
            beginning = words.seldom_beginning(STATE, first_result)
        else:
            beginning = words.beginning(STATE)
        packed = pack_publish(beginning, *OWN, seen, seldom)
        arguments = (
            pubsub_name,
            keys.epochs(channel),
            *SETTINGS,
            *OWN,
            seen.offset,
            seen.epoch,
            *(seldom or ()),
        )
        assert packed == pack_command("EVALSHA", PUBLISH.digest, len(names), *names, *arguments)


def test_a_publish_with_other_options_or_in_another_state_has_other_settings() -> None:
    """The words of the last ones are kept."""
    words = ChannelNames(
        Keys("t"),
        lambda options, state: PublishSettings("PUBLISH", state[0], options.history_size),
    ).of("news")
    one, other = (ChannelOptions(history_size=size, history_ttl=60) for size in (111, 222))
    delta = (b"1d", *STATE[1:])
    cases = [(one, STATE), (one, STATE), (other, STATE), (other, delta), (one, delta), (one, STATE)]
    for options, state in cases:
        if words.options is not options:
            words.use_options(options)
        beginning = words.beginning(state)
        assert b"\r\n%d\r\n" % options.history_size in beginning
        assert b"\r\n%b\r\n" % state[0] in beginning


def test_a_version_epoch_without_a_version_is_left_out() -> None:
    """It may have megabytes, and the packed words without a version are kept."""
    packed = [
        pack_publish(b"", *OWN, UNSEEN, SeldomWords(0, version_epoch, 300_000)) for version_epoch in ("e", "")
    ]
    assert packed[0] == packed[1]
