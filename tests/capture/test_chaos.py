"""The faults that the mail catcher injects: their syntax, and when they apply."""

from __future__ import annotations

from typing import assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.faults import faults
from trio_worker.capture.chaos import (
    FAULT_STAGES,
    AcceptThenDrop,
    Chaos,
    Delayed,
    DropNow,
    FaultAction,
    FaultSyntax,
    InjectedFault,
    InjectedFaults,
    Refuse,
    SeededDice,
    StallNow,
    parse_faults,
    scripted_fault,
)
from trio_worker.capture.server_profile import ServerReply

REFUSALS = st.builds(
    lambda code, subject, text: Refuse(ServerReply(code, f"{code // 100}.{subject}.1", text)),
    st.integers(400, 599),
    st.integers(0, 999),
    st.from_regex(r"[A-Za-z][A-Za-z0-9 .=/()-]{0,20}", fullmatch=True),
)
DELAYS = st.builds(lambda microseconds: Delayed(microseconds / 1_000_000), st.integers(0, 10**11))
FAULT_ACTIONS: st.SearchStrategy[FaultAction] = REFUSALS | DELAYS | st.just(DropNow()) | st.just(StallNow())
PERCENTS = st.integers(0, 10**8).map(lambda millionths: millionths / 10**6)
FAULTS = st.builds(
    InjectedFault,
    st.sampled_from(FAULT_STAGES),
    FAULT_ACTIONS,
    PERCENTS,
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
) | st.builds(InjectedFault, st.just("final"), st.just(AcceptThenDrop()))


def faults_text(written: InjectedFaults) -> str:
    """Write faults so that `parse_faults` reads the same."""
    return " ".join(fault_text(fault) for fault in written.faults)


def fault_text(fault: InjectedFault) -> str:
    counts = "".join(
        f":{name}{count}"
        for name, count in (("every", fault.every), ("first", fault.first), ("after", fault.after))
        if count
    )
    share = "" if fault.percent == 100 else f":{fault.percent:.6f}%"
    return f"{fault.stage}={action_text(fault.action)}{share}{counts}"


def action_text(action: FaultAction) -> str:
    match action:
        case Refuse(reply):
            return f"{reply.code}-{reply.enhanced}-{reply.text.replace(' ', '_')}"
        case DropNow():
            return "drop"
        case AcceptThenDrop():
            return "accept-drop"
        case StallNow():
            return "stall"
        case Delayed(seconds):
            return f"delay-{seconds:.6f}s"
        case _:
            assert_never(action)


@given(st.lists(FAULTS, max_size=4).map(lambda each: InjectedFaults(tuple(each))))
def test_faults_survive_their_words(written: InjectedFaults) -> None:
    """Faults written as text are read back as the same faults."""
    assert parse_faults(faults_text(written)) == written


@given(st.text() | st.text(st.sampled_from("rcptdafinl=451:%@-,. ")))
def test_any_text_is_faults_or_a_problem_with_its_place(text: str) -> None:
    """No text raises: it is faults, or a problem and the offset of the word at fault."""
    result = parse_faults(text)

    assert isinstance(result, InjectedFaults) or 0 <= result.place < len(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rcpt=451:20%", InjectedFault("rcpt", Refuse(ServerReply(451, "4.3.0", "Refused on purpose")), percent=20)),
        ("rcpt=550-5.1.1", InjectedFault("rcpt", Refuse(ServerReply(550, "5.1.1", "Refused on purpose")))),
        ("rcpt=550-5.1.1-No_such_user", InjectedFault("rcpt", Refuse(ServerReply(550, "5.1.1", "No such user")))),
        ("mail=431-Slow_down", InjectedFault("mail", Refuse(ServerReply(431, "4.0.0", "Slow down")))),
        ("data=drop", InjectedFault("data", DropNow())),
        ("final=accept-drop", InjectedFault("final", AcceptThenDrop())),
        ("final=stall:every5", InjectedFault("final", StallNow(), every=5)),
        ("auth=535:first3", InjectedFault("auth", Refuse(ServerReply(535, "5.7.8", "Refused on purpose")), first=3)),
        (
            "mail=421:after5:50%",
            InjectedFault("mail", Refuse(ServerReply(421, "4.3.2", "Refused on purpose")), percent=50, after=5),
        ),
        ("every=delay-50ms", InjectedFault("every", Delayed(0.05))),
        ("quit=delay-2s", InjectedFault("quit", Delayed(2))),
    ],
)
def test_words_mean_what_they_say(text: str, fault: InjectedFault) -> None:
    """Each form of the language is read as described."""
    assert parse_faults(f" {text} , ") == InjectedFaults((fault,))


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("rcpt=451 nonsense", 9, "stage=action"),
        ("helo=451", 0, "no stage 'helo'"),
        ("rcpt=250", 0, "is unknown; there are 400 to 599"),
        ("rcpt=600", 0, "is unknown; there are 400 to 599"),
        ("rcpt=550-4.1.1", 0, "contradicts 550"),
        ("rcpt=accept-drop", 0, "only for final"),
        ("rcpt=451:120%", 0, "qualifier '120%'"),
        ("rcpt=451:20%:30%", 0, "repeated"),
        ("rcpt=451,mail=drop:every0", 9, "qualifier 'every0'"),
        ("rcpt=", 0, "there are 400"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, place: int, problem: str) -> None:
    """A text that cannot be read says what is wrong and where."""
    result = parse_faults(text)

    assert isinstance(result, FaultSyntax)
    assert result.place == place
    assert problem in result.problem


def struck(text: str, nths_here: list[int]) -> list[bool]:
    chaos = Chaos(lambda: 0.5, faults(text))
    return [chaos.decide("mail", nth_here)[1] is not None for nth_here in nths_here]


@pytest.mark.parametrize(
    ("text", "nths_here", "expected"),
    [
        ("mail=451", [1, 2], [True, True]),
        ("mail=451:every3", [1, 2, 1, 2, 1, 2], [False, False, True, False, False, True]),
        ("mail=451:first2", [1, 1, 1], [True, True, False]),
        ("mail=421:after2", [1, 2, 3, 1, 2, 3], [False, False, True, False, False, True]),
        ("mail=451:50%", [1], [False]),
        ("mail=451:51%", [1], [True]),
        ("mail=451:0%", [1], [False]),
        ("rcpt=451", [1], [False]),
    ],
)
def test_a_fault_is_injected_when_its_qualifiers_apply(text: str, nths_here: list[int], expected: list[bool]) -> None:
    """Every and first count over all connections, after on each one, and a probability asks the dice."""
    assert struck(text, nths_here) == expected


def test_the_first_fault_wins_and_the_longest_delay_counts() -> None:
    """Of several faults at a stage the first that applies is committed, delays besides."""
    chaos = Chaos(lambda: 0.0, faults("mail=delay-1s mail=drop:first1 mail=stall mail=delay-3s"))

    assert chaos.decide("mail", 1) == (3, DropNow())
    assert chaos.decide("mail", 2) == (3, StallNow())


def test_new_faults_count_from_the_start() -> None:
    """Putting faults in force begins their counts again."""
    chaos = Chaos(lambda: 0.0, faults("mail=451:first1"))
    chaos.decide("mail", 1)

    chaos.put_in_force(faults("mail=451:first1"))

    assert chaos.decide("mail", 2)[1] is not None


@given(st.integers(), st.integers(1, 50))
def test_dice_are_fair_enough_and_repeat_with_their_seed(seed: int, rolls: int) -> None:
    """The same seed gives the same rolls, each in [0, 1)."""
    one, other = SeededDice(seed), SeededDice(seed)

    first = [one.roll() for _ in range(rolls)]

    assert first == [other.roll() for _ in range(rolls)]
    assert all(0 <= roll < 1 for roll in first)


def test_dice_hit_about_their_share() -> None:
    """Of ten thousand rolls a fifth is below 0.2, give or take one in a hundred."""
    dice = SeededDice(0)

    hits = sum(dice.roll() < 0.2 for _ in range(10_000))

    assert 1900 < hits < 2100


@pytest.mark.parametrize(
    ("address", "stage"),
    [("rcpt-451@x", "rcpt"), ("final-550+tag@x", "final"), ("body-drop@x", "body"), ("data-stall@x", "data")],
)
def test_an_address_can_script_a_fault(address: str, stage: str) -> None:
    """Some local parts ask for a fault."""
    fault = scripted_fault(address)

    assert fault is not None
    assert fault.stage == stage


@pytest.mark.parametrize("address", ["ann@x", "rcpt-@x", "rcpt-99@x", "mail-451@x", "rcpt-451"])
def test_other_addresses_script_nothing(address: str) -> None:
    """Any other address is an address."""
    assert scripted_fault(address) is None
