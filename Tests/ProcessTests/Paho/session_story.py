"""One step of the persistent-session story, told by paho-mqtt: session_story.py PORT 3.1.1|5 STEP ID

Exit status 0 when the step went as a user of MQTT expects; otherwise the last line says what did not.
"""
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 10
TOPIC = "story/"


class Peer:
    """A client with its own thread, which remembers what it was told."""

    def __init__(self, port, version, name, clean, expiry=None):
        self.version = version
        self.messages = []
        self.connected = threading.Event()
        self.answered = threading.Event()
        self.gone = threading.Event()
        self.session_present = None
        self.disconnect_reason = None
        self.log = []
        protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
        arguments = {"client_id": name, "protocol": protocol}
        if version != "5":
            arguments["clean_session"] = clean
        if hasattr(mqtt, "CallbackAPIVersion"):
            self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, **arguments)
        else:
            self.client = mqtt.Client(**arguments)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_log = lambda _c, _u, _level, text: self.log.append(text)
        self.client.on_subscribe = lambda *_: self.answered.set()
        self.client.on_message = lambda _c, _u, m: self.messages.append((m.qos, m.payload.decode()))
        keywords = {}
        if version == "5":
            properties = Properties(PacketTypes.CONNECT)
            if expiry is not None:
                properties.SessionExpiryInterval = expiry
            keywords = {"clean_start": clean, "properties": properties}
        self.client.connect("127.0.0.1", port, 30, **keywords)
        self.client.loop_start()
        expect(self.connected.wait(PATIENCE), "no CONNACK")

    def on_connect(self, _client, _data, flags, code, _properties=None):
        expect(code == 0, f"CONNACK {code}")
        self.session_present = flags["session present"]
        self.connected.set()

    def on_disconnect(self, _client, _data, code, _properties=None):
        self.disconnect_reason = getattr(code, "value", code)
        self.gone.set()

    def subscribe(self, name):
        self.client.subscribe(TOPIC + name, 2)
        expect(self.answered.wait(PATIENCE), "no SUBACK")

    def publish(self, name, texts):
        for qos, text in texts:
            information = self.client.publish(TOPIC + name, text, qos)
            information.wait_for_publish(PATIENCE)
            expect(information.is_published(), f"{text} was not acknowledged")

    def leave(self, expiry=None):
        if expiry is None:
            self.client.disconnect()
        else:
            properties = Properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = expiry
            self.client.disconnect(properties=properties)
        expect(self.gone.wait(PATIENCE), "the connection stays open after DISCONNECT")
        self.client.loop_stop()

    def expect_messages(self, wanted):
        deadline = time.monotonic() + PATIENCE
        while len(self.messages) < len(wanted) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        # Order is promised within a QoS [MQTT5-4.6.0]: a QoS 2 message is handed over only at its PUBREL.
        received = sorted(self.messages, key=lambda message: message[0])
        wanted = sorted(wanted, key=lambda message: message[0])
        expect(received == wanted, f"received {received}, not {wanted}")


class Unexpected(Exception):
    pass


def expect(holds, text):
    if not holds:
        raise Unexpected(text)


WAITING = [(1, "one"), (2, "two"), (1, "three")]


def step_leave(port, version, name):
    """Subscribes, with a session that stays, and disconnects; another then publishes."""
    peer = Peer(port, version, name, clean=False, expiry=300)
    expect(not peer.session_present, "Session Present 1 although it is the first time")
    peer.subscribe(name)
    peer.leave()
    other = Peer(port, version, name + "-other", clean=True)
    other.publish(name, WAITING)
    other.leave()


def step_resume(port, version, name):
    """Returns to the session: it is present, the messages arrive, and later ones too, unsubscribed anew."""
    peer = Peer(port, version, name, clean=False, expiry=300)
    expect(peer.session_present, "Session Present 0")
    peer.expect_messages(WAITING)
    other = Peer(port, version, name + "-other", clean=True)
    other.publish(name, [(1, "live")])
    other.leave()
    peer.expect_messages(WAITING + [(1, "live")])
    peer.leave()
    again = Peer(port, version, name, clean=False, expiry=300)
    expect(again.session_present, "Session Present 0 the second time")
    again.expect_messages([])
    again.leave()


def step_discard(port, version, name):
    """Clean Start 1 (Clean Session 1) discards what was kept."""
    peer = Peer(port, version, name, clean=True, expiry=300)
    expect(not peer.session_present, "Session Present 1 with a clean start")
    peer.expect_messages([])
    peer.leave()
    after = Peer(port, version, name, clean=False, expiry=300)
    after.expect_messages([])
    after.leave()


def step_release(port, version, name):
    """DISCONNECT with Session Expiry Interval 0 ends a session that was to stay."""
    peer = Peer(port, version, name, clean=False, expiry=300)
    expect(peer.session_present, "Session Present 0")
    peer.expect_messages(WAITING)
    peer.leave(expiry=0)
    step_absent(port, version, name)


def step_absent(port, version, name):
    """Nothing is there to come back to."""
    peer = Peer(port, version, name, clean=False, expiry=300)
    expect(not peer.session_present, "Session Present 1")
    peer.expect_messages([])
    peer.leave()


def step_brief(port, version, name):
    """Without a Session Expiry Interval the session of MQTT 5 ends with its connection."""
    peer = Peer(port, version, name, clean=False)
    peer.subscribe(name)
    peer.leave()
    step_absent(port, version, name)


def step_told(port, version, name):
    """Stays until the gateway shuts down; MQTT 5 is told so by a DISCONNECT.

    paho 1.6 shows the Reason Code only of a DISCONNECT that has properties too.
    """
    peer = Peer(port, version, name, clean=False, expiry=300)
    peer.subscribe(name)
    print("connected", flush=True)
    expect(peer.gone.wait(2 * PATIENCE), "the connection stays open")
    if version == "5":
        expect(any(line.startswith("Received DISCONNECT") for line in peer.log), "no DISCONNECT")
        reason = peer.disconnect_reason
        expect(reason in (0x8B, mqtt.MQTT_ERR_CONN_LOST), f"DISCONNECT {reason}, not 139")
    peer.client.loop_stop()


def main():
    port, version, step, name = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    try:
        globals()["step_" + step](port, version, name)
    except (Unexpected, OSError) as error:
        print(f"{step}, MQTT {version}: {error}", flush=True)
        sys.exit(1)
    sys.exit(0)


main()
