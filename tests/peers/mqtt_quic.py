"""An MQTT over QUIC client of another house: aioquic below, and a small encoder of its own.

mqtt_quic.py [OPTIONS] HOST:PORT drive
mqtt_quic.py [OPTIONS] HOST:PORT chat ADDRESS [TEXT]

`drive` does what the lines of its standard input say and prints one line an event; `chat` writes to an account or group
and prints what comes: every line of its standard input is a message, or TEXT is the only one.

Streams are numbered by the order in which the client opens them: 0 is control, 1, 2, ... carry data. The lines of `drive`:

  connect                     CONNECT on stream 0
  sub S TOPIC QOS             SUBSCRIBE on stream S             unsub S TOPIC
  pub S QOS TOPIC PAYLOAD     PUBLISH on stream S; at QoS 2 what follows too
  raw S HEX                   any bytes on stream S
  ping S    fin S    reset S  PINGREQ; end of stream S; RESET_STREAM
  disconnect                  DISCONNECT on stream 0
  rebind                      goes on from another local port
  keys                        updates the keys
  close CODE REASON           closes the connection

and of its output: `connected ALPN`, `connack S CODE PRESENT`, `suback S ID CODE`, `unsuback S ID`, `puback S ID CODE`,
`pubcomp S ID CODE` (or `pubrec S ID CODE` when that refuses), `got S QOS RETAIN DUP TOPIC PAYLOAD`, `pong S`,
`disconnect S CODE`, `end S`, `reset S CODE`, `rebound PORT`, `closed CODE REASON`. Deliveries are acknowledged on the
stream they came on. ID is the number of the request, counted from 1.
"""

import argparse
import asyncio
import json
import socket
import ssl
import sys
import threading

from aioquic import tls
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection


def say(*words):
    print(*words, flush=True)


# --- MQTT, as little as is needed ---


def number(value):
    out = bytearray()
    while True:
        value, digit = value >> 7, value & 0x7F
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def field(value):
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def packet(first, body):
    return bytes([first]) + number(len(body)) + body


def split(data):
    """The first packet of `data`: its first byte, its body, and what is behind it; nothing if it is not all there."""
    value, at = 0, 1
    while True:
        if at >= len(data):
            return None
        value |= (data[at] & 0x7F) << 7 * (at - 1)
        at += 1
        if not data[at - 1] & 0x80:
            break
    if len(data) < at + value:
        return None
    return data[0], data[at : at + value], data[at + value :]


class Mqtt:
    """The packets of one version."""

    def __init__(self, version):
        self.v5 = version == 5

    def none(self):
        return b"\0" if self.v5 else b""

    def skip(self, body):
        """What lies behind the properties."""
        if not self.v5:
            return body
        value, at = 0, 0
        while True:
            value |= (body[at] & 0x7F) << 7 * at
            at += 1
            if not body[at - 1] & 0x80:
                return body[at + value :]

    def connect(self, client_id, user, password, keep, will, keep_alive):
        flags = 0 if keep else 2
        payload = field(client_id)
        if will:
            flags |= 0x04 | 1 << 3
            payload += self.none() + field(will[0]) + field(will[1])
        if user is not None:
            flags |= 0x80
            payload += field(user)
        if password is not None:
            flags |= 0x40
            payload += field(password)
        body = field("MQTT") + bytes([5 if self.v5 else 4, flags]) + keep_alive.to_bytes(2, "big")
        if self.v5:
            expiry = b"\x11" + (3600).to_bytes(4, "big") if keep else b""
            body += number(len(expiry)) + expiry
        return packet(0x10, body + payload)

    def subscribe(self, ident, topic, qos):
        return packet(0x82, ident.to_bytes(2, "big") + self.none() + field(topic) + bytes([qos]))

    def unsubscribe(self, ident, topic):
        return packet(0xA2, ident.to_bytes(2, "big") + self.none() + field(topic))

    def publish(self, ident, topic, qos, payload):
        body = field(topic) + (ident.to_bytes(2, "big") if qos else b"") + self.none() + payload
        return packet(0x30 | qos << 1, body)

    def read_publish(self, first, body):
        length = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        qos, ident = first >> 1 & 3, 0
        if qos:
            ident, rest = int.from_bytes(rest[:2], "big"), rest[2:]
        return topic, qos, ident, self.skip(rest)


def acknowledgement(first, ident):
    return packet(first, ident.to_bytes(2, "big"))


# --- QUIC ---


class Link(QuicConnectionProtocol):
    """One connection, and the packets of each of its streams."""

    def __init__(self, quic, mqtt, heard):
        super().__init__(quic)
        self.mqtt = mqtt
        self.heard = heard
        self.buffers = {}
        self.last_id = 0
        self.opened = 0

    def write(self, stream, data, end=False):
        # aioquic opens streams in order; those that have nothing to send yet send nothing.
        while self.opened <= stream:
            self._quic.send_stream_data(self.opened * 4, b"")
            self.opened += 1
        self._quic.send_stream_data(stream * 4, data, end)
        self.transmit()

    def reset(self, stream):
        self._quic.reset_stream(stream * 4, 0)
        self.transmit()

    def new_id(self):
        self.last_id += 1
        return self.last_id

    def move(self, transport):
        self._transport, old = transport, self._transport
        old.close()

    def connection_made(self, transport):
        # The first socket; those that follow are set by `move`.
        if self._transport is None:
            super().connection_made(transport)

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.heard("connected", event.alpn_protocol)
        elif isinstance(event, events.StreamDataReceived):
            self.read(event.stream_id // 4, event.data, event.end_stream)
        elif isinstance(event, events.StreamReset):
            self.heard("reset", event.stream_id // 4, event.error_code)
        elif isinstance(event, events.ConnectionTerminated):
            self.heard("closed", event.error_code, event.reason_phrase)

    def read(self, stream, data, end):
        data = self.buffers.pop(stream, b"") + data
        while (found := split(data)) is not None:
            first, body, data = found
            self.handle(stream, first, body)
        if data:
            self.buffers[stream] = data
        if end:
            self.heard("end", stream)

    def handle(self, stream, first, body):
        kind = first >> 4
        ident = int.from_bytes(body[:2], "big")
        code = body[2] if len(body) > 2 else 0
        if kind == 2:
            self.heard("connack", stream, body[1], body[0])
        elif kind == 3:
            topic, qos, ident, payload = self.mqtt.read_publish(first, body)
            if qos:
                self.write(stream, acknowledgement(0x40 if qos == 1 else 0x50, ident))
            self.heard("got", stream, qos, first & 1, first >> 3 & 1, topic, payload.decode())
        elif kind == 4:
            self.heard("puback", stream, ident, code)
        elif kind == 5:
            if code >= 0x80:
                self.heard("pubrec", stream, ident, code)
            else:
                self.write(stream, acknowledgement(0x62, ident))
        elif kind == 6:
            self.write(stream, acknowledgement(0x70, ident))
        elif kind == 7:
            self.heard("pubcomp", stream, ident, code)
        elif kind == 9:
            self.heard("suback", stream, ident, self.mqtt.skip(body[2:])[0])
        elif kind == 11:
            self.heard("unsuback", stream, ident)
        elif kind == 13:
            self.heard("pong", stream)
        elif kind == 14:
            self.heard("disconnect", stream, body[0] if body else 0)
        else:
            self.heard("unknown", stream, first, body.hex())


class Forward(asyncio.DatagramProtocol):
    """Another socket of the same connection."""

    def __init__(self, link):
        self.link = link

    def datagram_received(self, data, addr):
        self.link.datagram_received(data, addr)


async def open_link(options, heard):
    """A connection whose handshake is begun."""
    host, port = options.address.rsplit(":", 1)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[options.alpn], server_name=options.server_name)
    configuration.idle_timeout = options.idle
    if options.ca:
        configuration.load_verify_locations(options.ca)
    else:
        configuration.verify_mode = ssl.CERT_NONE
    if options.tls == "1.2":
        # The client's hello names no other version then.
        tls.TLS_VERSION_1_3 = tls.TLS_VERSION_1_2
    if options.cert:
        configuration.load_cert_chain(options.cert, options.key)
    link = Link(QuicConnection(configuration=configuration), Mqtt(options.version), heard)
    address = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_DGRAM)[0][4]
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: link, local_addr=("0.0.0.0", 0))
    link.connect(address)
    return link


def lines_of_input():
    """The lines of standard input as they come, and an empty string at its end."""
    queue, loop = asyncio.Queue(), asyncio.get_running_loop()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(queue.put_nowait, line)
        loop.call_soon_threadsafe(queue.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    return queue


def connect_packet(options, link):
    return link.mqtt.connect(
        options.id, options.user, options.password, options.keep, options.will, options.keep_alive
    )


async def drive(options):
    link = await open_link(options, say)
    lines = lines_of_input()
    while line := await lines.get():
        verb, *words = line.rstrip("\n").split(" ")
        stream = int(words[0]) if words and words[0].isdigit() else 0
        if verb == "connect":
            link.write(0, connect_packet(options, link))
        elif verb == "sub":
            link.write(stream, link.mqtt.subscribe(link.new_id(), words[1], int(words[2])))
        elif verb == "unsub":
            link.write(stream, link.mqtt.unsubscribe(link.new_id(), words[1]))
        elif verb == "pub":
            payload = " ".join(words[3:]).encode()
            qos = int(words[1])
            link.write(stream, link.mqtt.publish(link.new_id(), words[2], qos, payload))
        elif verb == "raw":
            link.write(stream, bytes.fromhex(words[1]))
        elif verb == "ping":
            link.write(stream, packet(0xC0, b""))
        elif verb == "fin":
            link.write(stream, b"", end=True)
        elif verb == "reset":
            link.reset(stream)
        elif verb == "disconnect":
            link.write(0, packet(0xE0, b""))
        elif verb == "rebind":
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: Forward(link), local_addr=("0.0.0.0", 0))
            link.move(transport)
            say("rebound", transport.get_extra_info("sockname")[1])
        elif verb == "keys":
            link.request_key_update()
        elif verb == "close":
            link.close(error_code=int(words[0]), reason_phrase=" ".join(words[1:]))
        else:
            raise SystemExit(f"what is {line!r}?")


def show(topic, payload):
    """Prints what an account was sent."""
    parts = topic.split("/")
    try:
        message = json.loads(payload)
    except ValueError:
        return
    if parts[:3] != ["im", "v1", "me"] or not isinstance(message, dict):
        return
    text = message.get("text") or json.dumps(message.get("body"), ensure_ascii=False)
    if parts[3] == "in" and parts[-1] == "msg":
        where = "" if parts[4] == message.get("from") else f" in {parts[4]}"
        say(f"{message.get('from')}{where}: {text}")
    elif parts[3] == "sent" and not message.get("dup"):
        say(f"to {message.get('to')}: {text}")
    elif parts[3] == "in" and parts[-1] == "receipt" and "by" in message:
        say(f"{message['by']} has read up to {message['read']}, has up to {message['recv']}")
    elif parts[3] == "err":
        say(f"refused: {message.get('code')}: {message.get('text')}")


async def chat(options):
    heard = asyncio.Queue()
    link = await open_link(options, lambda *words: heard.put_nowait(words))

    async def until(kind):
        while True:
            words = await heard.get()
            if words[0] == "got":
                show(words[5], words[6])
            elif words[0] == "closed":
                raise SystemExit(f"the connection is closed: {words[2] or words[1]}")
            if words[0] == kind:
                return words

    link.write(0, connect_packet(options, link))
    if (code := (await until("connack"))[2]) != 0:
        raise SystemExit(f"not let in: {code}")
    # What comes has a stream of its own, and so has what goes.
    for topic in ("im/v1/me/in/#", "im/v1/me/sent", "im/v1/me/err"):
        link.write(1, link.mqtt.subscribe(link.new_id(), topic, 1))
        await until("suback")

    def send(text):
        link.write(2, link.mqtt.publish(link.new_id(), f"im/v1/to/{options.to}/msg", 1, text.encode()))

    async def speak():
        lines = lines_of_input()
        while line := await lines.get():
            if line.strip():
                send(line.strip())

    speaker = None
    if options.text:
        send(options.text)
    else:
        speaker = asyncio.create_task(speak())
    try:
        await asyncio.wait_for(until("never"), options.seconds)
    except asyncio.TimeoutError:
        pass
    if speaker:
        speaker.cancel()
    link.write(0, packet(0xE0, b""))
    link.close()
    await link.wait_closed()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ca", help="PEM file of the authority to trust; without it anybody is trusted")
    parser.add_argument("--cert", help="client certificate, PEM")
    parser.add_argument("--key", help="its key, PEM")
    parser.add_argument("--server-name", default="localhost")
    parser.add_argument("--alpn", default="mqtt")
    parser.add_argument("--tls", default="1.3", choices=("1.2", "1.3"))
    parser.add_argument("--version", type=int, choices=(4, 5), default=5)
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--id", default="aioquic")
    parser.add_argument("--keep", action="store_true", help="the session outlives the connection")
    parser.add_argument("--keep-alive", type=int, default=60)
    parser.add_argument("--idle", type=float, default=60.0, help="QUIC's idle timeout in seconds")
    parser.add_argument("--will", nargs=2, metavar=("TOPIC", "PAYLOAD"))
    parser.add_argument("--for", dest="seconds", type=float, help="chat: seconds until it leaves")
    parser.add_argument("address")
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("drive")
    talk = roles.add_parser("chat")
    talk.add_argument("to")
    talk.add_argument("text", nargs="?")
    options = parser.parse_args()
    try:
        asyncio.run(drive(options) if options.role == "drive" else chat(options))
    except KeyboardInterrupt:
        # A chat without --for goes on until then.
        pass


main()
