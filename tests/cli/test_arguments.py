"""Instances and JSON as they are typed."""

from pathlib import Path

import click
import pytest

from asyncflow import Malformed, TooLarge
from runner.commands.arguments import check_json, instance_name, read_json
from tests.cli.conftest import Shell

CONTEXT = click.Context(click.Command("x"))
PARAMETER = click.Argument(["instance"])


def test_an_instance_is_a_workflow_and_an_id() -> None:
    assert instance_name(CONTEXT, PARAMETER, "PizzaOrder/o-1") == ("PizzaOrder", "o-1")
    for wrong in ("PizzaOrder", "PizzaOrder/", "/o-1", ""):
        with pytest.raises(click.BadParameter, match="expected WORKFLOW/ID, as PizzaOrder/o-1"):
            instance_name(CONTEXT, PARAMETER, wrong)


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true]}', "3", '"word"', " [] ", "null", '"\u00fc\U0001f355"'])
def test_json_is_handed_on_as_it_is(text: str) -> None:
    assert read_json(text) == text.encode()


@pytest.mark.parametrize("text, said", [
    ('{"a": 1,}', "at column 9: "),
    ('{"a": 1 "b": 2}', "at column 9: Expecting ',' delimiter\n  {\"a\": 1 \"b\": 2}\n          ^"),
    ('{\n  "a": tru\n}', 'at line 2, column 8: Expecting value\n    "a": tru\n         ^'),
    ("", "at column 1: Expecting value"),
    ("friend", "double quotes, and in single ones for the shell: '\"friend\"'"),
    ("{name: 1}", "Put the whole of it into single quotes"),
    ('{"a": NaN}', "found NaN"),
    ('{"a": 1, "a": 2}', "found one doubled: 'a'"),
    ("9007199254740992", "integers between"),
    ('"\\u0000"', "without NUL"),
    ('"\\ud800"', "half a surrogate"),
    ("1" * 5_000, "integers between"),
    ("[" * 70 + "]" * 70, "no deeper than 64"),
    ("[" * 100_000, "no deeper than 64"),
])  # fmt: skip
def test_a_fault_is_shown_where_it_is(text: str, said: str) -> None:
    with pytest.raises(Malformed) as raised:
        read_json(text)
    assert said in str(raised.value)


def test_of_a_long_line_only_the_place_is_shown() -> None:
    with pytest.raises(Malformed) as raised:
        read_json('["' + "x" * 200 + '", oops, "' + "y" * 200 + '"]')
    shown, mark = str(raised.value).splitlines()[1:3]
    assert len(shown) <= 62
    assert shown[mark.index("^")] == "o"


def test_json_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text('{"a": 1}')
    assert read_json(f"@{file}") == b'{"a": 1}'
    file.write_text('{"a": oops}')
    with pytest.raises(Malformed, match=r"expected JSON in .*order\.json, found a fault at column 7"):
        read_json(f"@{file}")
    file.write_bytes(b'"\xff"')
    with pytest.raises(Malformed, match=r"expected JSON in UTF-8, found the byte 0xff at 1 \(.*order\.json\)"):
        read_json(f"@{file}")
    with pytest.raises(Malformed, match=r"expected a file with JSON behind the @: .*/none: No such file"):
        read_json(f"@{tmp_path}/none")


def test_more_than_a_body_may_have_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_bytes(b"[" * 300_000)
    with pytest.raises(TooLarge, match="expected JSON of at most 256 KiB in "):
        read_json(f"@{file}")
    check_json(b'"' + b"x" * (256 * 1024 - 2) + b'"')


def test_the_command_reads_standard_input(shell: Shell) -> None:
    shell.run("start", "Parcel", "-", "--id", "p-1", stdin='{"customer": "ann"}')
    assert shell.json("show", "Parcel/p-1")["state"]["customer"] == "ann"
    result = shell.run("send", "Parcel/p-1", "pack", "-", stdin='{"name": }', code=2)
    assert "expected JSON in standard input, found a fault at column 10" in result.stderr


def test_the_command_shows_the_fault_and_what_to_do(shell: Shell) -> None:
    result = shell.run("send", "Parcel/p-1", "pack", "{name: cat}", code=2)
    assert result.stdout == ""
    assert "Error: Invalid value for '[INPUT]': expected JSON, found a fault at column 2" in result.stderr
    assert "  {name: cat}\n   ^\nPut the whole of it into single quotes" in result.stderr
