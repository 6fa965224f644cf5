"""The order in which a publisher with a rate serves its channels."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from tocsin_load.rate_publisher import SENDERS, _turns


@given(st.integers(min_value=1, max_value=100), st.integers(min_value=0, max_value=500))
def test_every_turn_belongs_to_one_sender_and_a_channel_keeps_its_sender(channels: int, total: int) -> None:
    senders = [list(_turns(sender, channels, total)) for sender in range(min(SENDERS, channels))]
    assert sorted(chain(*senders)) == list(range(total))
    assert all(turns == sorted(turns) for turns in senders)
    served = [{turn % channels for turn in turns} for turns in senders]
    assert sum(map(len, served)) == len(set().union(*served))
