"""What may arrive and is no good, and the codes that it is answered with: once, in either phase.

Each input stands by itself: whoever sends it finds the stream in order behind it. `codes` are
those of the whole server, None for a result; `before` are those of the start prologue, which
has one more for whatever is asked before `initialize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.raw_client import body_of, frame, request

MIB = 1024 * 1024
NOT_INITIALIZED = -32002
PARSED_AND_REFUSED = (None, -32601, -32602)


@dataclass(frozen=True)
class Input:
    data: bytes
    codes: Sequence[int | None]
    early: Sequence[int] | None = None
    """The codes before `initialize`, where they do not follow from the others."""

    @property
    def before(self) -> list[int | None]:
        if self.early is not None:
            return list(self.early)
        return [NOT_INITIALIZED if code in PARSED_AND_REFUSED else code for code in self.codes]


# ---- frames --------------------------------------------------------------------------------

COUNT = body_of(request(1, "agent/count"))


def headed(header: bytes, body: bytes = COUNT) -> bytes:
    return header + b"\r\n\r\n" + body


LENGTH = b"%d" % len(COUNT)

GOOD_FRAMES: dict[str, bytes] = {
    "name in lower case": headed(b"content-length: " + LENGTH),
    "name in upper case": headed(b"CONTENT-LENGTH: " + LENGTH),
    "no space": headed(b"Content-Length:" + LENGTH),
    "much space": headed(b"Content-Length:   \t " + LENGTH + b"  "),
    "leading zeros": headed(b"Content-Length: 000" + LENGTH),
    "content type first": headed(b"Content-Type: text/x\r\nContent-Length: " + LENGTH),
    "utf-8 named": headed(
        b"Content-Length: " + LENGTH + b"\r\nContent-Type: a/vscode-jsonrpc; charset=utf-8"
    ),
    "utf8 misspelled as old clients do": headed(
        b"Content-Length: " + LENGTH + b'\r\nContent-Type: a/b; charset="utf8"'
    ),
    "unknown header": headed(b"X-Trace: 1\r\nContent-Length: " + LENGTH),
    "the same length twice": headed(
        b"Content-Length: " + LENGTH + b"\r\nContent-Length: " + LENGTH
    ),
    "newlines only": b"Content-Length: " + LENGTH + b"\n\n" + COUNT,
    "blank lines before": b"\r\n\r\n\n" + frame(COUNT),
    "blanks in the body": frame(b"  \r\n\t" + COUNT + b"\n\n "),
}

BAD_FRAMES: dict[str, tuple[bytes, list[int]]] = {
    "no length": (headed(b"X-Trace: 1"), [-32600]),
    "length is a word": (headed(b"Content-Length: many"), [-32600]),
    "length is negative": (headed(b"Content-Length: -5"), [-32600]),
    "length is signed": (headed(b"Content-Length: +" + LENGTH), [-32600]),
    "length is fractional": (headed(b"Content-Length: 5.0"), [-32600]),
    "length is hexadecimal": (headed(b"Content-Length: 0x10"), [-32600]),
    "length is 0": (b"Content-Length: 0\r\n\r\n", [-32600]),
    "length is empty": (headed(b"Content-Length:"), [-32600]),
    "length is in other digits": (headed("Content-Length: ٣٥".encode()), [-32600]),
    "two lengths": (headed(b"Content-Length: 5\r\nContent-Length: 6"), [-32600]),
    "length over any bound": (headed(b"Content-Length: 99999999999999"), [-32600]),
    "length of a thousand digits": (headed(b"Content-Length: " + b"9" * 1000), [-32600]),
    "header over 8 KiB": (headed(b"X: " + b"x" * 9000), [-32600]),
    "header without a colon": (headed(b"Hello"), [-32600]),
    "another charset": (
        headed(b"Content-Length: " + LENGTH + b"\r\nContent-Type: a/b; charset=utf-16"),
        [-32600],
    ),
    "bytes of any kind": (bytes(range(256)) * 4, [-32600]),
    "an http request": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", [-32600]),
    "json without a header": (COUNT, [-32600]),
    "lines of json": (COUNT + b"\n" + COUNT + b"\n", [-32600]),
    "a body shorter than said, then a frame": (
        b"Content-Length: %d\r\n\r\n" % (len(COUNT) + 4) + COUNT + b"\r\n\r\n",
        [None],  # the blank lines between frames make up for it
    ),
    "a body longer than said": (b"Content-Length: 10\r\n\r\n" + COUNT, [-32700, -32600]),
    "length of 10^15": (headed(b"Content-Length: 1" + b"0" * 15), [-32600]),
    "length of 10^30": (headed(b"Content-Length: 1" + b"0" * 30), [-32600]),
    "length with an underscore": (headed(b"Content-Length: 3_5"), [-32600]),
    "length with a unit": (headed(b"Content-Length: " + LENGTH + b" bytes"), [-32600]),
    "lengths in a list": (headed(b"Content-Length: " + LENGTH + b", " + LENGTH), [-32600]),
    "length in quotes": (headed(b'Content-Length: "' + LENGTH + b'"'), [-32600]),
    "length folded into a second line": (headed(b"Content-Length:\r\n " + LENGTH), [-32600]),
    "length after a zero byte": (headed(b"Content-Length: \0" + LENGTH), [-32600]),
    "name with an underscore": (headed(b"Content_Length: " + LENGTH), [-32600]),
    "name with a space": (headed(b"Content Length: " + LENGTH), [-32600]),
    "name with a prefix": (headed(b"X-Content-Length: " + LENGTH), [-32600]),
    "no name": (headed(b": " + LENGTH), [-32600]),
    "carriage returns only": (b"Content-Length: " + LENGTH + b"\r\r" + COUNT, [-32600]),
    "chunks": (
        b"Transfer-Encoding: chunked\r\n\r\n23\r\n" + COUNT + b"\r\n0\r\n\r\n",
        [-32600],
    ),
    "a byte order mark before the header": (b"\xef\xbb\xbf" + frame(COUNT), [-32600, None]),
    "a zero byte before the header": (b"\0" + frame(COUNT), [-32600, None]),
    "a word before the header": (b"hello " + frame(COUNT), [-32600, None]),
    "charset utf-7": (
        headed(b"Content-Type: a/b; charset=utf-7\r\nContent-Length: " + LENGTH),
        [-32600],
    ),
    "charset latin-1, in capitals": (
        headed(b"CONTENT-TYPE: a/b; CHARSET=ISO-8859-1\r\nContent-Length: " + LENGTH),
        [-32600],
    ),
    "10,000 headers": (headed(b"X: 1\r\n" * 10_000 + b"Content-Length: " + LENGTH), [-32600]),
    "a header name of 64 KiB": (headed(b"x" * 65536 + b": 1"), [-32600]),
}


# ---- bodies --------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def with_params(params: bytes, method: bytes = b"agent/count") -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}' % (method, params)


BODIES: dict[str, tuple[bytes, list[int | None]]] = {
    "nothing but a blank": (b" ", [-32700]),
    "half an object": (b'{"jsonrpc":"2.0","id":1,', [-32700]),
    "a comma too many": (b'{"jsonrpc":"2.0","id":1,"method":"agent/count",}', [-32700]),
    "quotes of the wrong kind": (b"{'jsonrpc':'2.0'}", [-32700]),
    "a comment": (COUNT + b"// hello", [-32700]),
    "two objects": (COUNT + COUNT, [-32700]),
    "a byte order mark": (b"\xef\xbb\xbf" + COUNT, [-32700]),
    "utf-16": (COUNT.decode().encode("utf-16"), [-32700]),
    "bytes that are no utf-8": (with_params(b'{"x":"\xff\xfe"}'), [-32700]),
    "a surrogate in utf-8": (with_params(b'{"x":"\xed\xa0\x80"}'), [-32700]),
    "an overlong encoding": (with_params(b'{"x":"\xc0\xaf"}'), [-32700]),
    "a newline in a string": (with_params(b'{"x":"a\nb"}'), [-32700]),
    "a zero byte": (COUNT + b"\0", [-32700]),
    "NaN": (with_params(b'{"x":NaN}'), [-32700]),
    "Infinity": (with_params(b'{"x":-Infinity}'), [-32700]),
    "a number with a leading zero": (with_params(b'{"x":01}'), [-32700]),
    "an unknown escape": (with_params(b'{"x":"\\q"}'), [-32700]),
    "a word": (b"hello", [-32700]),
    "null": (b"null", [-32600]),
    "true": (b"true", [-32600]),
    "a number": (b"42", [-32600]),
    "a string": (b'"hello"', [-32600]),
    "an empty object": (b"{}", [-32600]),
    "an empty batch": (b"[]", [-32600]),
    "a batch": (b"[" + COUNT + b"," + COUNT + b"]", [-32600]),
    "a batch of nonsense": (b"[1,2,3]", [-32600]),
    "201 levels": (with_params(b'{"x":' + nested(199) + b"}"), [-32600]),
    "100,000 levels": (with_params(nested(100_000)), [-32600]),
    "100,000 levels that never close": (b"[" * 100_000, [-32600]),
    "100,000 objects in each other": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, [-32600]),
    "200 levels": (with_params(b'{"x":' + nested(198) + b"}"), [None]),
    "brackets in a string are no levels": (with_params(b'{"x":"' + b"[" * 5000 + b'"}'), [None]),
    "a lone surrogate in what is ignored": (with_params(b'{"x":"\\ud800"}'), [None]),
    "fields that nobody knows": (with_params(b'{"x":1,"y":{"z":[]}}'), [None]),
    "a key twice": (with_params(b'{"x":1,"x":2}'), [None]),
    "no jsonrpc": (b'{"id":1,"method":"agent/count"}', [-32600]),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":1,"method":"agent/count"}', [-32600]),
    "jsonrpc as a number": (b'{"jsonrpc":2.0,"id":1,"method":"agent/count"}', [-32600]),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"agent/count"}', [-32600]),
    "id true": (b'{"jsonrpc":"2.0","id":true,"method":"agent/count"}', [-32600]),
    "id an object": (b'{"jsonrpc":"2.0","id":{},"method":"agent/count"}', [-32600]),
    "id an array": (b'{"jsonrpc":"2.0","id":[1],"method":"agent/count"}', [-32600]),
    "id a fraction": (b'{"jsonrpc":"2.0","id":1.5,"method":"agent/count"}', [-32600]),
    "method missing": (b'{"jsonrpc":"2.0","params":{}}', [-32600]),
    "method a number": (b'{"jsonrpc":"2.0","id":1,"method":5}', [-32600]),
    "method null": (b'{"jsonrpc":"2.0","id":1,"method":null}', [-32600]),
    "method empty": (b'{"jsonrpc":"2.0","id":1,"method":""}', [-32601]),
    "method unknown": (b'{"jsonrpc":"2.0","id":1,"method":"agent/Count"}', [-32601]),
    "method of a language server": (
        b'{"jsonrpc":"2.0","id":1,"method":"textDocument/hover","params":{}}',
        [-32601],
    ),
    "method with a megabyte of name": (
        b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"x" * MIB),
        [-32601],
    ),
    "method of Python's": (b'{"jsonrpc":"2.0","id":1,"method":"__init__"}', [-32601]),
    "an optional request": (b'{"jsonrpc":"2.0","id":1,"method":"$/what"}', [-32601]),
    "exit as a request": (b'{"jsonrpc":"2.0","id":1,"method":"exit"}', [-32601]),
    "initialized as a request": (b'{"jsonrpc":"2.0","id":1,"method":"initialized"}', [-32601]),
    "cancelling as a request": (
        b'{"jsonrpc":"2.0","id":1,"method":"$/cancelRequest","params":{"id":1}}',
        [-32601],
    ),
    "a notification as a request": (
        b'{"jsonrpc":"2.0","id":1,"method":"webview/didDisconnect","params":{}}',
        [-32601],
    ),
    "a request of ours asked of us": (
        b'{"jsonrpc":"2.0","id":1,"method":"conversation/event","params":{}}',
        [-32601],
    ),
    "params an array": (with_params(b"[]"), [-32602]),
    "params a string": (with_params(b'"x"'), [-32602]),
    "params a number": (with_params(b"5"), [-32602]),
    "params null": (with_params(b"null"), [None]),
    "params missing": (COUNT, [None]),
    "10^400 where a number is": (with_params(b'{"limit":1e400}', b"conversation/list"), [-32602]),
    "10^400 in digits": (
        with_params(b'{"limit":1' + b"0" * 400 + b"}", b"conversation/list"),
        [-32602],
    ),
    "-10^400": (with_params(b'{"sinceChange":-1e400}', b"conversation/list"), [-32602]),
    "2^64": (with_params(b'{"sinceChange":18446744073709551616}', b"conversation/list"), [-32602]),
    "2^63": (with_params(b'{"sinceChange":9223372036854775808}', b"conversation/list"), [-32602]),
    "a response to nothing": (b'{"jsonrpc":"2.0","id":77,"result":{}}', []),
    "an error to nothing": (
        b'{"jsonrpc":"2.0","id":77,"error":{"code":-32601,"message":"?"}}',
        [],
    ),
    "an error that could not be placed": (
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}',
        [],
    ),
    "a notification nobody knows": (b'{"jsonrpc":"2.0","method":"editor/blink"}', []),
    "an optional notification": (b'{"jsonrpc":"2.0","method":"$/setTrace","params":{}}', []),
    "a request's method as a notification": (b'{"jsonrpc":"2.0","method":"agent/disposeAll"}', []),
    "a notification with wrong params": (
        b'{"jsonrpc":"2.0","method":"webview/didDisconnect","params":{"webviewId":[]}}',
        [],
    ),
    "a notification with params that are no object": (
        b'{"jsonrpc":"2.0","method":"webview/didReconnect","params":"x"}',
        [],
    ),
    "null in a name": (b'{"jsonrpc":"2.0","id":1,"\\u0000":1,"method":"agent/count"}', [None]),
    "a key without quotes": (b'{jsonrpc:"2.0"}', [-32700]),
    "a string that never ends": (b'{"jsonrpc":"2.0","id":1,"method":"agent/count', [-32700]),
    "a tab in a string": (with_params(b'{"x":"a\tb"}'), [-32700]),
    "half an escape": (with_params(b'{"x":"\\u12"}'), [-32700]),
    "a number with a plus": (with_params(b'{"x":+1}'), [-32700]),
    "a number without an end": (with_params(b'{"x":1e}'), [-32700]),
    "a hexadecimal number": (with_params(b'{"x":0x10}'), [-32700]),
    "undefined": (with_params(b'{"x":undefined}'), [-32700]),
    "utf-16 without a mark": (COUNT.decode().encode("utf-16-le"), [-32700]),
    "utf-32": (COUNT.decode().encode("utf-32"), [-32700]),
    "six bytes for a character": (with_params(b'{"x":"\xfc\x80\x80\x80\x80\x80"}'), [-32700]),
    "a lone continuation byte": (with_params(b'{"x":"\x80"}'), [-32700]),
    "a character cut in half": (with_params(b'{"x":"\xf0\x9f\x99"}'), [-32700]),
    "a message in params": (
        with_params(b'{"x":{"jsonrpc":"2.0","id":9,"method":"exit","params":{}}}'),
        [None],
    ),
    "a half message in params": (with_params(b'{"x":{"jsonrpc":"2.0"},"jsonrpc":3}'), [None]),
    "names that are no identifiers": (
        with_params(b'{"type_name":"1 2","class":2,"_x":3,"a-b":4,"":5}'),
        [None],
    ),
    "Python's own names": (with_params(b'{"__class__":"x","__dict__":{},"self":1}'), [None]),
    "jsonrpc null": (b'{"jsonrpc":null,"id":1,"method":"agent/count"}', [-32600]),
    "jsonrpc 2.1": (b'{"jsonrpc":"2.1","id":1,"method":"agent/count"}', [-32600]),
    "jsonrpc an object": (b'{"jsonrpc":{},"id":1,"method":"agent/count"}', [-32600]),
    "an id and nothing to do": (b'{"jsonrpc":"2.0","id":1}', [-32600]),
    "an id and params": (b'{"jsonrpc":"2.0","id":1,"params":{}}', [-32600]),
    "a method that is an object": (b'{"jsonrpc":"2.0","id":1,"method":{}}', [-32600]),
    "an id of 1 MiB": (
        b'{"jsonrpc":"2.0","id":"%b","method":"agent/count"}' % (b"i" * MIB),
        [None],
    ),
    "an id that is too large": (b'{"jsonrpc":"2.0","id":1e400,"method":"agent/count"}', [-32600]),
    "an id with an exponent": (b'{"jsonrpc":"2.0","id":1e2,"method":"agent/count"}', [-32600]),
    "the id twice": (b'{"jsonrpc":"2.0","id":2,"id":1,"method":"agent/count"}', [None]),
    "the method twice": (
        b'{"jsonrpc":"2.0","id":1,"method":"no/such","method":"agent/count"}',
        [None],
    ),
    "params twice": (
        b'{"jsonrpc":"2.0","id":1,"method":"agent/count","params":5,"params":{}}',
        [None],
    ),
    "params true": (with_params(b"true"), [-32602]),
    "params of 1 MiB, unknown": (with_params(b'{"x":"%b"}' % (b"x" * MIB)), [None]),
    "10,000 params": (
        with_params(b"{%b}" % b",".join(b'"k%d":%d' % (n, n) for n in range(10_000))),
        [None],
    ),
    "an unknown notification of 1 MiB": (
        b'{"jsonrpc":"2.0","method":"%b"}' % (b"n" * MIB),
        [],
    ),
    "a response with a strange id": (b'{"jsonrpc":"2.0","id":{},"result":1}', [-32600]),
    "both a result and an error": (
        b'{"jsonrpc":"2.0","id":77,"result":1,"error":{"code":1,"message":""}}',
        [],
    ),
    "a response from an older protocol": (b'{"id":77,"result":1}', [-32600]),
    "initialized once more": (b'{"jsonrpc":"2.0","method":"initialized","params":{}}', []),
    "initialize as a notification": (b'{"jsonrpc":"2.0","method":"initialize","params":{}}', []),
    "shutdown as a notification": (b'{"jsonrpc":"2.0","method":"shutdown"}', []),
}


# ---- both ----------------------------------------------------------------------------------


TABLE: dict[str, Input] = {
    **{f"frame: {name}": Input(data, [None]) for name, data in GOOD_FRAMES.items()},
    **{f"frame: {name}": Input(*row) for name, row in BAD_FRAMES.items()},
    **{f"body: {name}": Input(frame(body), codes) for name, (body, codes) in BODIES.items()},
}
MALFORMED = {name: row for name, row in TABLE.items() if any(code for code in row.codes)}
"""Those that are answered with an error."""
