"""The commands of a session that are in flight."""

from typing import Any

from tocsin.errors import ConnectionLost, TimedOut, TocsinError
from tocsin.protocol.messages import ChannelRequest, Reply
from tocsin.session.commands import PendingCommands
from tocsin.session.turn import Turn


class Recorder:
    """A table of commands, and the outcomes that its callbacks got."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.commands = PendingCommands(self.turn, timeout_seconds=5)
        self.outcomes: list[Any] = []

    def send(self, channel: str) -> int:
        outcomes = self.outcomes
        return self.commands.send("presence", ChannelRequest(channel), outcomes.append, outcomes.append)


def test_a_reply_goes_to_its_command_and_only_once() -> None:
    recorder = Recorder()
    first, second = recorder.send("a"), recorder.send("b")
    replies = [Reply(id=second), Reply(id=first)]
    for reply in [*replies, *replies, Reply(id=99)]:
        recorder.commands.handle_reply(reply)
    assert recorder.outcomes == replies
    assert recorder.commands.deadline is None


def test_commands_time_out_in_the_order_of_sending() -> None:
    recorder = Recorder()
    recorder.send("a")
    recorder.turn.now = 3
    recorder.send("b")
    assert recorder.commands.deadline == 5
    recorder.turn.now = 5
    recorder.commands.expire()
    assert [type(outcome) for outcome in recorder.outcomes] == [TimedOut]
    assert recorder.commands.deadline == 8


def test_a_lost_connection_fails_every_command_and_sends_no_further_one() -> None:
    recorder = Recorder()
    recorder.send("a")
    recorder.send("b")
    recorder.commands.fail_all()
    assert [type(outcome) for outcome in recorder.outcomes] == [ConnectionLost, ConnectionLost]
    assert recorder.turn.take() == []


def test_a_command_may_be_sent_while_others_fail() -> None:
    recorder = Recorder()

    def send_again(_: TocsinError) -> None:
        recorder.send("b")

    recorder.commands.send("presence", ChannelRequest("a"), recorder.outcomes.append, send_again)
    recorder.commands.fail_all()
    assert recorder.outcomes == []
    assert recorder.commands.deadline == 5
