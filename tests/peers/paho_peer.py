"""A paho-mqtt client for the end-to-end tests.

paho_peer.py ADDRESS USER PASSWORD VERSION CLIENT_ID PERSISTENT sub TOPIC QOS
paho_peer.py ADDRESS USER PASSWORD VERSION CLIENT_ID PERSISTENT pub TOPIC QOS PREFIX COUNT
paho_peer.py ADDRESS USER PASSWORD VERSION CLIENT_ID PERSISTENT will TOPIC QOS PAYLOAD

ADDRESS is HOST:PORT; VERSION is 4 or 5; PERSISTENT is 1 or 0. Prints one line an event: `ready`, `got TOPIC QOS RETAIN
PAYLOAD`, `sent`. `sub` and `will` run until they are ended.
"""

import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

address, user, password, version, client_id, persistent, role, topic, qos, *rest = sys.argv[1:]
host, port = address.rsplit(":", 1)
qos = int(qos)
v5 = version == "5"
keep = persistent == "1"


def say(*words):
    print(*words, flush=True)


client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=client_id,
    protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
    **({} if v5 else {"clean_session": not keep}),
)
client.username_pw_set(user, password)
properties = None
if v5:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600 if keep else 0


def on_connect(client, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        say("refused", reason)
        sys.exit(1)
    if role == "sub":
        client.subscribe(topic, qos)
    else:
        say("ready")


def on_subscribe(_client, _userdata, _mid, reasons, _properties):
    if any(reason.is_failure for reason in reasons):
        say("refused", reasons)
        sys.exit(1)
    say("ready")


def on_message(_client, _userdata, message):
    say("got", message.topic, message.qos, int(message.retain), message.payload.decode())


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
if role == "will":
    client.will_set(topic, rest[0], qos)
connect = {"clean_start": not keep, "properties": properties} if v5 else {}
client.connect(host, int(port), keepalive=30, **connect)

if role == "pub":
    prefix, count = rest
    client.loop_start()
    for number in range(int(count)):
        client.publish(topic, f"{prefix} {qos} {number}", qos).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()
    say("sent")
else:
    # It does not come back by itself: the tests decide when.
    client.on_disconnect = lambda *_: sys.exit(0)
    client.loop_forever(retry_first_connection=False)
