"""The output of one call of a session."""

from tocsin.models import State, StateChanged
from tocsin.protocol.codec import build_command
from tocsin.protocol.messages import ChannelRequest, Command
from tocsin.session.effects import FetchToken, Notify, Send
from tocsin.session.turn import Turn

CONNECTED = StateChanged(State.CONNECTED)


def command(number: int) -> Command:
    return build_command(number, "unsubscribe", ChannelRequest("a"))


def test_neighbouring_commands_are_sent_in_one_message() -> None:
    turn = Turn()
    turn.add_command(command(1))
    turn.notify(CONNECTED)
    turn.add_command(command(2))
    text = '{"id":1,"unsubscribe":{"channel":"a"}}\n{"id":2,"unsubscribe":{"channel":"a"}}'
    assert turn.take() == [Notify(CONNECTED), Send(text)]
    assert turn.take() == []


def test_commands_are_sent_before_a_later_effect() -> None:
    turn = Turn()
    turn.add_command(command(1))
    turn.emit(FetchToken(None))
    assert [type(effect) for effect in turn.take()] == [Send, FetchToken]
