"""JSON lines: every object comes out once, as it is written, with its line."""

import json
import random

import pytest
from support.raw_files import WORDS, read_json


@pytest.mark.parametrize("seed", range(40))
def test_json_lines_well_formed(seed, tiny_blocks):
    """Every object comes out as it is written, with its line, wherever blocks end."""
    chance = random.Random(seed)
    text, rows = "", []
    for _ in range(chance.randrange(10)):
        while chance.random() < 0.2:
            text += chance.choice(["\n", "\r\n", " \t\n"])
        keys = ["id", *chance.sample(["name", "note", "a", "b"], k=chance.randrange(4))]
        row = {key: "".join(chance.choices([w for w in WORDS if w != "\0"], k=3)) for key in keys}
        rows.append((text.count("\n") + 1, row))
        text += json.dumps(row, ensure_ascii=chance.random() < 0.5) + chance.choice(["\n", "\r\n"])
    for block in {1, 2, 5, 16, 1 << 20}:
        tiny_blocks(block)
        content = read_json(text)
        parsed = [(line, dict(zip(content.columns, values, strict=True))) for line, values in content.rows]
        assert [(line, {k: v for k, v in row.items() if v is not None}) for line, row in parsed] == rows
        assert content.broken == []


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1e999", "1e999"),
        ("-0", "-0"),
        ("-0.0", "-0.0"),
        ("1.10", "1.10"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("9" * 5000, "9" * 5000),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ('"NaN"', "NaN"),
        ("true", "true"),
        ("null", None),
        ('""', ""),
        ('"null"', "null"),
        ('"\\u0000\\n\\ud83d\\udeb2"', "\0\n🚲"),
        ("[]", "[]"),
        ('[1.10, 1e999 ,{"a":"\\u00e9"}]', '[1.10, 1e999 ,{"a":"\\u00e9"}]'),
        ('{ "b" : {"c": [null, 12345678901234567890.10]} }', '{ "b" : {"c": [null, 12345678901234567890.10]} }'),
        ('{"s":"}, \\" ]"}', '{"s":"}, \\" ]"}'),
    ],
)
def test_json_value_stays_as_written(written, text):
    """Numbers and nested values keep the text that they have in the file."""
    content = read_json(f' {{"id" : {written} , "name":{written},"note":[{written}]}} \r\n')
    assert content.values == [(text, text, f"[{written}]")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id":1', "invalid JSON: Expecting"),
        ('{"id":1}}', "invalid JSON: Extra data at position 9"),
        ('[{"id":1},{"id":2}]', "not a JSON object: each line must be one object"),
        ("null", "not a JSON object: each line must be one object"),
        ('{"id":1,"id":2}', "an object has two fields with the same name"),
        ('{"id":1,"ID":2}', "two field names differ only in case or punctuation"),
        ('{"id":1,"note":{"a":1,"a":2}}', "an object has two fields with the same name"),
        ('{"id":"\\ud800"}', "\\ud800 is only half of a surrogate pair"),
        ('{"id":1,"\\udfff":1}', "\\udfff is only half of a surrogate pair"),
        ("{}", "none of its fields is described for the table things"),
        ('{"order":1}', "none of its fields"),
        ('{"id":' + "[" * 100_000, "nested too deeply"),
        ('{"id":' + '{"a":' * 100_000 + "1" + "}" * 100_001, "nested too deeply"),
        ('{"id":NaN}', "invalid JSON: NaN is not a JSON value"),
        ('{"id":1,"name":Infinity}', "invalid JSON: Infinity is not a JSON value"),
        ('{"id":1,"name":{"tags":[-Infinity,1]}}', "invalid JSON: -Infinity is not a JSON value"),
        ('{"id":1,}', "invalid JSON"),
        ("{'id':1}", "invalid JSON"),
        ('{"id":"a\tb"}', "invalid JSON: Invalid control character"),
        ("\x0c", "invalid JSON"),
        ('\ufeff{"id":1}', "invalid JSON"),
    ],
)
def test_json_line_broken(line, reason):
    """A broken line is quarantined with the reason, and costs no other line."""
    content = read_json('{"id":"first"}\n' + line + '\n{"id":"last"}\n')
    assert content.values == [("first",), ("last",)]
    assert content.broken[0][:2] == (2, line)
    assert reason in content.reasons[2]


@pytest.mark.parametrize("raw", [b'{"id":"\xfc"}', b'{"id":"\xed\xa0\x80"}', b'{\0"\0i\0d\0"\0:\0' + b"1\0}\0"])
def test_json_line_invalid_utf8(raw):
    """Invalid UTF-8 breaks its own line only."""
    content = read_json(b'{"id":1}\n' + raw + b'\n{"id":3}\n')
    assert content.lines == [1, 3]
    assert list(content.reasons) == [2]


def test_json_pretty_printed():
    """Every line of pretty-printed JSON is a broken record."""
    text = json.dumps([{"id": 1}, {"id": 2}], indent=2)
    content = read_json(text)
    assert not content.rows
    assert "\n".join(raw for _, raw, _ in content.broken) == text


@pytest.mark.parametrize("block", [60, 1 << 20])
def test_json_lines_with_carriage_returns(block, tiny_blocks):
    """Where lines end in a carriage return alone, line ends that are written as escapes stay as they are."""
    tiny_blocks(block)
    values = ["first\nsecond", "dos\r\nend", "\r", "plain"]
    lines = [json.dumps({"id": number, "name": value}) for number, value in enumerate(values)]
    content = read_json("\r".join([*lines, '{"id":[1,\\n2]}', "x"]))
    assert content.rows == [(number, (str(number - 1), value)) for number, value in enumerate(values, start=1)]
    assert [record[:2] for record in content.broken] == [(5, '{"id":[1,\\n2]}'), (6, "x")]
    assert read_json('{"id":1}\r{"id":2}\n{"id":3}').lines == [1, 2, 3]
