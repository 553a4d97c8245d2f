#!/usr/bin/env python3
"""A client of Pygmy in plain Python, written from SPEC.md alone.

    client.py HOST:PORT [--book ID] [--burst N]    talk to a front end and check what it answers
    client.py --self-test                          check this file against SPEC.md and the golden vectors

It says hello, looks a book up, opens a session, buys a copy, sends the same write once more over another connection to
see the same answer come back, reads the order again, and then has N lookups and buys in flight at once, whose answers may
come in any order. It exits with 0 when all went as the specification says, with 1 on a mismatch, with 2 on bad usage and
with 3 when the server cannot be reached.
"""

import argparse
import itertools
import pathlib
import socket
import struct
import sys
import time
from collections import Counter

# --- §2: frames ------------------------------------------------------------------------------------------------------

HEADER = struct.Struct("<IIBBHIQ")  # length, crc, version, flags, kind, aux, request id
VERSION = 1
FLAG_TRACE = 1
HELLO_BODY_MAX = 4_096
CLIENT_BODY_MAX = 262_144

HELLO, HELLO_OK, ERROR = 0x0001, 0x0002, 0x0003
OPEN_SESSION, LOOKUP, ORDER, WRITE = 0x0010, 0x0011, 0x0015, 0x0017
SESSION_OPENED, LOOKUP_OK, ORDER_OK, WRITE_OK = 0x0090, 0x0091, 0x0095, 0x0097
ANSWER_TO = {HELLO: HELLO_OK, OPEN_SESSION: SESSION_OPENED, LOOKUP: LOOKUP_OK, ORDER: ORDER_OK, WRITE: WRITE_OK}


class Mismatch(Exception):
    """The server, or this file, does not do what the specification says."""


def check(condition, what):
    if not condition:
        raise Mismatch(what)


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = crc_table()


def crc32c(*parts):
    crc = 0xFFFFFFFF
    for byte in itertools.chain(*parts):
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def frame(kind, body, request_id=0, deadline_ms=0, flags=0):
    header = HEADER.pack(len(body), 0, VERSION, flags, kind, deadline_ms, request_id)
    crc = crc32c(header[:4], header[8:], body)
    return header[:4] + struct.pack("<I", crc) + header[8:] + body


class Frame:
    """A frame as it was read: what is in its header, and its body."""

    def __init__(self, header, body):
        _, crc, _, self.flags, self.kind, self.aux, self.request_id = HEADER.unpack(header)
        self.body = body
        check(crc == crc32c(header[:4], header[8:], body), "the checksum of an answer is wrong")


def read_frame(read, body_max):
    """Reads one frame by means of read(n), which returns exactly n bytes. Checks in the order of §2."""
    header = read(HEADER.size)
    length, _, version, *_ = HEADER.unpack(header)
    check(version == VERSION, f"an answer is of protocol version {version}")
    check(length <= body_max, f"an answer has {length} bytes, more than {body_max}")
    return Frame(header, read(length))


# --- §1.2: values ----------------------------------------------------------------------------------------------------


class Reader:
    """Takes values from the front of a body."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, count):
        check(count <= len(self.body) - self.at, "a body ends too early")
        self.at += count
        return self.body[self.at - count : self.at]

    def end(self):
        check(self.at == len(self.body), "bytes follow the message in its body")


def integer(size):
    return lambda reader: int.from_bytes(reader.take(size), "little")


U8, U16, U32, U64 = integer(1), integer(2), integer(4), integer(8)


def raw(size):
    return lambda reader: reader.take(size)


def text(limit):
    def read(reader):
        size = U64(reader)
        check(size <= limit, f"a text has {size} bytes, more than {limit}")
        try:
            return reader.take(size).decode("utf-8")
        except UnicodeDecodeError as trouble:
            raise Mismatch(f"a text is not UTF-8: {trouble}") from trouble

    return read


def sequence(item, limit):
    def read(reader):
        count = U64(reader)
        check(count <= limit, f"a list has {count} items, more than {limit}")
        return [item(reader) for _ in range(count)]

    return read


def option(item):
    def read(reader):
        tag = U8(reader)
        check(tag <= 1, f"an option begins with {tag}")
        return item(reader) if tag else None

    return read


def record(**fields):
    return lambda reader: {name: read(reader) for name, read in fields.items()}


def choice(*variants):
    """An enum: (name, reader of its fields) in the order of the tags."""

    def read(reader):
        tag = U32(reader)
        check(tag < len(variants), f"{tag} is no tag of {[name for name, _ in variants]}")
        name, fields = variants[tag]
        return (name, fields(reader))

    return read


def unit(*names):
    named = choice(*[(name, record()) for name in names])
    return lambda reader: named(reader)[0]


def put_u32(value):
    return struct.pack("<I", value)


def put_u64(value):
    return struct.pack("<Q", value)


def put_text(value):
    data = value.encode("utf-8")
    return put_u64(len(data)) + data


# --- §3 to §8: messages ----------------------------------------------------------------------------------------------

ID = text(64)
ROLE = unit("Client", "Front", "Order", "Catalog")
EPOCH = record(counter=U64, node=U16)
LOG_END = record(epoch=EPOCH, seq=U64)
REPLICA = record(
    log_uuid=raw(16),
    boot_nonce=U64,
    config_id=U64,
    promised=EPOCH,
    last=LOG_END,
    committed=U64,
    token_hop=U64,
    want=U64,
    acked=record(log_uuid=raw(16), end=LOG_END),
)
BOOK = record(id=ID, title=text(512), topic=text(64), cost_cents=U64, stock=U32, changed_seq=U64)
ORDER_LINE = record(book=ID, copies=U32, cost_cents=U64, left=U32)
ORDER_RECORD = record(number=U64, time_us=U64, total_cents=U64, lines=sequence(ORDER_LINE, 64))
OUTCOME = choice(
    ("Bought", record(order=ORDER_RECORD)),
    ("Restocked", record(book=BOOK)),
    ("Repriced", record(book=BOOK, old_cost_cents=U64)),
    ("Added", record(book=BOOK)),
    ("Retired", record(book=BOOK)),
    ("Put", record(added=U32, changed=U32, unchanged=U32)),
)
STAGE = unit("Front", "Order", "Catalog", "Token", "Replicate", "Sync", "Apply")
TRACE = sequence(record(stage=STAGE, node=U16, ns=U64), 32)

NEVER, LATER, ELSEWHERE, SETTLE = "Never", "Later", "Elsewhere", "Settle"
MESSAGES = {
    HELLO_OK: record(
        version=U8,
        role=ROLE,
        node=U16,
        name=text(64),
        cluster=raw(16),
        body_max=U32,
        in_flight_max=U32,
        replica=option(REPLICA),
    ),
    ERROR: record(
        seq=U64,
        code=U16,
        retry=unit(NEVER, LATER, ELSEWHERE, SETTLE),
        retry_after_ms=U32,
        limit=U64,
        actual=U64,
        subject=text(64),
        detail=text(512),
    ),
    SESSION_OPENED: record(session=U64),
    LOOKUP_OK: record(seq=U64, book=BOOK),
    ORDER_OK: record(seq=U64, order=ORDER_RECORD),
    WRITE_OK: record(seq=U64, outcome=OUTCOME),
}
NOT_ENOUGH_STOCK = 23


def decode(answer):
    """The trace of an answer (none: an empty list) and its message."""
    check(answer.kind in MESSAGES, f"an answer is of kind {answer.kind:#06x}")
    reader = Reader(answer.body)
    trace = TRACE(reader) if answer.flags & FLAG_TRACE else []
    message = MESSAGES[answer.kind](reader)
    reader.end()
    return trace, message


def hello(name, cluster=bytes(16)):
    versions_and_role = bytes([VERSION, VERSION]) + put_u32(0)
    settings, credentials, replica = put_u64(0), put_u64(0), b"\0"
    return versions_and_role + cluster + settings + credentials + put_text(name) + replica


def lookup(floor, book):
    return put_u64(floor) + put_text(book)


def order(floor, number):
    return put_u64(floor) + put_u64(number)


def buy(session, counter, first_incomplete, lines):
    head = put_u64(session) + put_u64(counter) + put_u64(first_incomplete)
    items = b"".join(put_text(book) + put_u32(copies) for book, copies in lines)
    return head + put_u32(0) + put_u64(len(lines)) + items


# --- A connection ----------------------------------------------------------------------------------------------------


class Connection:
    """One connection to a server, its handshake done."""

    DEADLINE_MS = 5_000

    def __init__(self, address, cluster=bytes(16)):
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Somewhat longer than the deadline that goes with each request: then the server has given up as well.
        self.socket.settimeout(self.DEADLINE_MS / 1_000 + 5)
        self.input = self.socket.makefile("rb")
        self.ids = itertools.count(1)
        self.in_flight = {}
        self.send_frame(frame(HELLO, hello("client.py", cluster)))
        answer = self.receive_frame(HELLO_BODY_MAX)
        _, self.server = decode(answer)
        if answer.kind == ERROR:
            raise Mismatch(f"the handshake was refused: {describe(self.server)}")
        check(answer.kind == HELLO_OK, "a hello is answered by something else")
        check(self.server["version"] == VERSION, "a version was chosen that was not offered")

    def send_frame(self, data):
        self.socket.sendall(data)

    def receive_frame(self, body_max=CLIENT_BODY_MAX):
        def read(count):
            data = self.input.read(count)
            if len(data) < count:
                raise ConnectionError("the server closed the connection")
            return data

        return read_frame(read, body_max)

    def send(self, kind, body, flags=0):
        """Sends a request; its id."""
        request_id = next(self.ids)
        self.in_flight[request_id] = kind
        self.send_frame(frame(kind, body, request_id, self.DEADLINE_MS, flags))
        return request_id

    def receive(self):
        """The next answer, whichever request it belongs to: request id, frame, trace, message."""
        answer = self.receive_frame()
        trace, message = decode(answer)
        if answer.kind == ERROR and answer.request_id == 0:
            raise ConnectionError(f"the server gave the connection up: {describe(message)}")
        check(answer.request_id in self.in_flight, f"an answer to request {answer.request_id}, which is not in flight")
        kind = self.in_flight.pop(answer.request_id)
        check(answer.kind in (ERROR, ANSWER_TO[kind]), f"a request {kind:#06x} is answered by {answer.kind:#06x}")
        return answer.request_id, answer, trace, message

    def ask(self, kind, body, flags=0):
        """One request alone, repeated while the answer says that this can help: frame, trace, message."""
        for _ in range(50):
            request_id = self.send(kind, body, flags)
            answered, answer, trace, message = self.receive()
            check(answered == request_id, "nothing else is in flight")
            if answer.kind != ERROR or not can_repeat(message):
                return answer, trace, message
            pause(message)
        raise Mismatch(f"still not done after 50 attempts: {describe(message)}")

    def close(self):
        self.input.close()
        self.socket.close()


def can_repeat(error):
    """Whether the same request may be sent again here. A write keeps its counter, so this is safe in every case."""
    if error["retry"] == ELSEWHERE:
        raise ConnectionError(f"the server sends its clients away: {describe(error)}")
    return error["retry"] in (LATER, SETTLE)


def pause(error):
    time.sleep(max(error["retry_after_ms"], 1) / 1_000)


def describe(error):
    return f"error {error['code']} ({error['retry']}): {error['detail']}"


def expect(answer, message, what):
    if answer.kind == ERROR:
        raise Mismatch(f"{what}: {describe(message)}")
    return message


def show_book(book):
    return f"{book['id']}: {book['title']!r}, {book['topic']}, {book['cost_cents'] / 100:.2f} each, {book['stock']} left"


# --- The conversation ------------------------------------------------------------------------------------------------


class Shopper:
    """What is done in turn, and what has been seen: the floor only rises."""

    def __init__(self, address, book):
        self.address, self.book = address, book
        self.connection = Connection(address)
        self.floor = 0
        self.session = 0
        self.counters = itertools.count(1)
        self.first_incomplete = 1

    def saw(self, seq, floor):
        check(seq >= floor, f"an answer as of {seq} to a request that asked for {floor} or later")
        self.floor = max(self.floor, seq)

    def look(self):
        answer, trace, message = self.connection.ask(LOOKUP, lookup(self.floor, self.book), FLAG_TRACE)
        found = expect(answer, message, "the lookup")
        self.saw(found["seq"], self.floor)
        check(found["book"]["id"] == self.book, "another book was found than was asked for")
        for span in trace:
            print(f"  trace: {span['stage']} at node {span['node']}: {span['ns'] / 1_000:.0f} us")
        return found["book"]

    def open(self):
        answer, _, message = self.connection.ask(OPEN_SESSION, b"")
        self.session = expect(answer, message, "opening a session")["session"]
        self.saw(self.session, self.floor)

    def next_buy(self, copies):
        counter = next(self.counters)
        return counter, buy(self.session, counter, self.first_incomplete, [(self.book, copies)])

    def check_bought(self, message, copies):
        kind, fields = message["outcome"]
        check(kind == "Bought", f"a buy was answered by {kind}")
        done = fields["order"]
        self.saw(message["seq"], 0)
        check(done["number"] == message["seq"], "the order's number is not its position")
        check([(line["book"], line["copies"]) for line in done["lines"]] == [(self.book, copies)], "other lines were sold")
        check(done["total_cents"] == copies * done["lines"][0]["cost_cents"], "the total is not the sum of the lines")
        return done

    def buy_twice(self):
        """Buys one copy, then sends the same write again over another connection: one order, one answer."""
        counter, body = self.next_buy(1)
        answer, _, message = self.connection.ask(WRITE, body)
        done = self.check_bought(expect(answer, message, "the buy"), 1)
        other = Connection(self.address, self.connection.server["cluster"])
        again, _, message = other.ask(WRITE, body)
        other.close()
        expect(again, message, "the same buy again")
        check(again.body == answer.body, "the same write, sent again, got another answer")
        self.first_incomplete = counter + 1
        return done

    def read_order(self, done):
        answer, _, message = self.connection.ask(ORDER, order(self.floor, done["number"]))
        found = expect(answer, message, "reading the order")
        self.saw(found["seq"], self.floor)
        check(found["order"] == done, "the ledger tells the order otherwise than the buy did")


class Burst:
    """Lookups and buys in turn, many in flight, answers taken in whatever order they come."""

    # Small frames, few enough that neither side's socket buffers fill while the other one is not reading,
    # and below the session's window.
    IN_FLIGHT = 200

    def __init__(self, shopper, count):
        self.shopper, self.connection = shopper, shopper.connection
        self.waiting = [self.prepare(index) for index in range(count)]
        self.waiting.reverse()
        self.limit = min(self.IN_FLIGHT, self.connection.server["in_flight_max"])
        self.sent = {}
        self.orders = set()
        self.tally = Counter()

    def prepare(self, index):
        return (LOOKUP, self.shopper.floor, None) if index % 2 == 0 else (WRITE, 0, next(self.shopper.counters))

    def send(self):
        shopper = self.shopper
        kind, floor, counter = job = self.waiting.pop()
        if kind == LOOKUP:
            body = lookup(floor, shopper.book)
        else:
            # The lowest counter without an answer: what is in flight, what waits, this one.
            open_counters = [other for *_, other in itertools.chain(self.sent.values(), self.waiting) if other]
            first_incomplete = min(open_counters + [counter])
            body = buy(shopper.session, counter, first_incomplete, [(shopper.book, 1)])
        self.sent[self.connection.send(kind, body)] = job

    def receive(self):
        oldest = min(self.sent)
        request_id, answer, _, message = self.connection.receive()
        self.tally["out of order"] += request_id != oldest
        kind, floor, _ = job = self.sent.pop(request_id)
        if answer.kind == ERROR:
            self.take_error(job, message)
        elif kind == LOOKUP:
            self.shopper.saw(message["seq"], floor)
            check(message["book"]["id"] == self.shopper.book, "another book was found than was asked for")
            self.tally["looked up"] += 1
        else:
            number = self.shopper.check_bought(message, 1)["number"]
            check(number not in self.orders, f"order {number} was given twice")
            self.orders.add(number)
            self.tally["bought"] += 1

    def take_error(self, job, error):
        if can_repeat(error):
            self.tally["asked again"] += 1
            check(self.tally["asked again"] <= 10_000, f"still not done: {describe(error)}")
            pause(error)
            self.waiting.append(job)
        else:
            check(error["code"] == NOT_ENOUGH_STOCK, f"in the burst: {describe(error)}")
            check(error["limit"] < error["actual"] == 1, "refused for want of stock that there is")
            self.tally["refused: sold out"] += 1

    def run(self):
        while self.waiting or self.sent:
            while self.waiting and len(self.sent) < self.limit:
                self.send()
            self.receive()
        return self.tally


def converse(address, book, burst):
    shopper = Shopper(address, book)
    server = shopper.connection.server
    print(f"connected to {server['name']} (node {server['node']}, {server['role']}), cluster {server['cluster'].hex()}")
    print(show_book(shopper.look()))
    shopper.open()
    print(f"session {shopper.session}")
    done = shopper.buy_twice()
    line = done["lines"][0]
    print(f"order {done['number']}: {line['copies']} of {line['book']}, {done['total_cents'] / 100:.2f}, {line['left']} left")
    print("the same write again: the same answer")
    shopper.read_order(done)
    print(f"order {done['number']} is in the ledger")
    tally = Burst(shopper, burst).run()
    check(tally["looked up"] + tally["bought"] + tally["refused: sold out"] == burst, "requests without an answer")
    print(f"burst of {burst}: " + ", ".join(f"{count} {what}" for what, count in sorted(tally.items()) if count))
    print(show_book(shopper.look()))
    shopper.connection.close()


# --- The self-test ---------------------------------------------------------------------------------------------------


def from_hex(lines):
    return bytes.fromhex(" ".join(line.split("#")[0] for line in lines))


def examples(document):
    """The blocks of the specification that open with ```hex name=…, by name."""
    found = {}
    for block in document.split("```hex name=")[1:]:
        name, *lines = block.split("```")[0].splitlines()
        found[name] = from_hex(lines)
    return found


def parse(data):
    reader = Reader(data)
    whole = read_frame(reader.take, CLIENT_BODY_MAX)
    reader.end()
    return whole


def check_requests(hexes):
    sent = {
        "hello": frame(HELLO, hello("example")),
        "lookup": frame(LOOKUP, lookup(0, "rpcdummies"), 1, 2_000),
        "open-session": frame(OPEN_SESSION, b"", 2),
        "write-buy": frame(WRITE, buy(10, 1, 1, [("rpcdummies", 2)]), 3, 5_000),
    }
    for name, data in sent.items():
        check(data == hexes[name], f"the example {name} is {data.hex()} here")


def check_answers(hexes):
    def read(name, kind, request_id):
        answer = parse(hexes[name])
        check((answer.kind, answer.request_id) == (kind, request_id), f"the header of {name}")
        return decode(answer)

    def book(stock, changed_seq):
        about = {"id": "rpcdummies", "title": "RPCs for Dummies.", "topic": "distributed-systems"}
        return about | {"cost_cents": 35_000, "stock": stock, "changed_seq": changed_seq}

    _, server = read("hello-ok", HELLO_OK, 0)
    check((server["role"], server["name"], server["body_max"]) == ("Front", "front-1", CLIENT_BODY_MAX), "hello-ok")
    check(read("lookup-ok", LOOKUP_OK, 1) == ([], {"seq": 9, "book": book(15, 1)}), "lookup-ok")
    check(read("session-opened", SESSION_OPENED, 2) == ([], {"session": 10}), "session-opened")
    line = {"book": "rpcdummies", "copies": 2, "cost_cents": 35_000, "left": 13}
    done = {"number": 11, "time_us": 1_700_000_000_000_000, "total_cents": 70_000, "lines": [line]}
    check(read("write-ok", WRITE_OK, 3) == ([], {"seq": 11, "outcome": ("Bought", {"order": done})}), "write-ok")
    _, error = read("error", ERROR, 4)
    told = (error["code"], error["retry"], error["limit"], error["actual"], error["subject"])
    check(told == (NOT_ENOUGH_STOCK, NEVER, 13, 1_000, "rpcdummies"), "error")
    spans = [{"stage": "Front", "node": 1, "ns": 180_000}, {"stage": "Catalog", "node": 5, "ns": 40_000}]
    check(read("lookup-ok-traced", LOOKUP_OK, 5) == (spans, {"seq": 11, "book": book(13, 11)}), "lookup-ok-traced")


def check_vectors(directory):
    """Every vector is a whole frame, and those of the kinds known here decode to their last byte."""
    decoded = Counter()
    for path in sorted(directory.glob("*.hex")):
        answer = parse(from_hex(path.read_text(encoding="utf-8").splitlines()))
        if answer.kind in MESSAGES:
            decode(answer)
            decoded[answer.kind] += 1
    check(set(decoded) == set(MESSAGES), "a kind without a vector")
    return sum(decoded.values())


def self_test():
    here = pathlib.Path(__file__).resolve().parent.parent
    hexes = examples((here / "SPEC.md").read_text(encoding="utf-8"))
    check(crc32c(b"123456789") == 0xE3069283, "the checksum of the check value")
    check_requests(hexes)
    check_answers(hexes)
    count = check_vectors(here / "vectors")
    print(f"the examples of SPEC.md and {count} vectors are understood")


# --- The command line ------------------------------------------------------------------------------------------------


def address_of(argument):
    host, colon, port = argument.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{argument!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def arguments():
    parser = argparse.ArgumentParser(description="A client of Pygmy, written from its specification alone.")
    parser.add_argument("address", type=address_of, nargs="?", metavar="HOST:PORT", help="a front end")
    parser.add_argument("--book", default="rpcdummies", metavar="ID", help="the book to buy (default: %(default)s)")
    parser.add_argument("--burst", type=int, default=500, metavar="N", help="requests in the burst (default: %(default)s)")
    parser.add_argument("--self-test", action="store_true", help="check this file against SPEC.md, without a server")
    chosen = parser.parse_args()
    if chosen.address is None and not chosen.self_test:
        parser.error("HOST:PORT or --self-test is needed")
    return chosen


def main():
    chosen = arguments()
    try:
        if chosen.self_test:
            self_test()
        if chosen.address:
            converse(chosen.address, chosen.book, chosen.burst)
    except Mismatch as mismatch:
        print(f"MISMATCH: {mismatch}", file=sys.stderr)
        return 1
    except OSError as trouble:
        print(f"cannot go on with {chosen.address}: {trouble}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
