"""What a device profile says, as a user of paho-mqtt sees it: device_profiles.py PORT 3.1.1|5 STEP

The profiles are those of ProfileSettingsTests.swift, each for clients whose identifiers begin with its name. Exit status 0
when the step went as the profile says; otherwise the last line says what did not.
"""
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 10
PORT = int(sys.argv[1])
IS_5 = sys.argv[2] == "5"


class Unexpected(Exception):
    pass


def expect(holds, text):
    if not holds:
        raise Unexpected(text)


def comes(condition, text, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, text)
        time.sleep(0.01)


class Peer:
    """A client with its own thread, or one that is only driven by `turn`, which remembers what it was told."""

    def __init__(self, name, clean=True, expiry=None, keep_alive=30, user=None, will=None, by_hand=False):
        self.messages = []
        self.granted = []
        self.code = None
        self.present = None
        self.told = None
        self.is_gone = False
        self.reason = None
        arguments = {"client_id": name, "protocol": mqtt.MQTTv5 if IS_5 else mqtt.MQTTv311}
        if not IS_5:
            arguments["clean_session"] = clean
        if hasattr(mqtt, "CallbackAPIVersion"):
            arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        self.client = mqtt.Client(**arguments)
        # One connection, whatever becomes of it.
        self.client.reconnect_delay_set(min_delay=100, max_delay=100)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_message = lambda _c, _u, m: self.messages.append(m)
        self.client.on_subscribe = lambda _c, _u, _m, granted, *_: self.granted.append(
            [getattr(g, "value", g) for g in granted]
        )
        if user:
            self.client.username_pw_set(user)
        if will:
            self.client.will_set(*will)
        keywords = {}
        if IS_5:
            properties = Properties(PacketTypes.CONNECT)
            if expiry is not None:
                properties.SessionExpiryInterval = expiry
            keywords = {"clean_start": clean, "properties": properties}
        self.client.connect("127.0.0.1", PORT, keep_alive, **keywords)
        if by_hand:
            while self.code is None:
                self.client.loop(0.1)
        else:
            self.client.loop_start()
        comes(lambda: self.code is not None or self.is_gone, "no CONNACK")

    def on_connect(self, _client, _data, flags, code, properties=None):
        self.present = flags["session present"]
        self.told = properties
        self.code = getattr(code, "value", code)

    def on_disconnect(self, _client, _data, code, _properties=None):
        self.reason = getattr(code, "value", code)
        self.is_gone = True
        self.client.loop_stop()

    def subscribe(self, topic, qos=1):
        count = len(self.granted)
        self.client.subscribe(topic, qos)
        comes(lambda: len(self.granted) > count, "no SUBACK")
        return self.granted[-1][0]

    def publish(self, topic, text, qos=1):
        information = self.client.publish(topic, text, qos)
        information.wait_for_publish(PATIENCE)
        expect(information.is_published(), f"{text} was not acknowledged")

    def hears(self, texts, seconds=PATIENCE):
        """These and no others."""
        deadline = time.monotonic() + seconds
        while len(self.messages) < len(texts) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        heard = [m.payload.decode() for m in self.messages]
        expect(heard == texts, f"heard {heard}, not {texts}")

    def is_closed(self, reason, seconds=PATIENCE):
        comes(lambda: self.is_gone, "the connection stays open", seconds)
        # paho 1.6 shows the Reason Code only of a DISCONNECT that has properties too, as these have.
        expect(not IS_5 or self.reason == reason, f"DISCONNECT {self.reason}, not {reason}")

    def leave(self):
        self.client.disconnect()
        comes(lambda: self.is_gone, "the connection stays open after DISCONNECT")


def step_names():
    """Matched by its user name; all four variables in a topic."""
    witness = Peer("witness")
    witness.subscribe("vars/#")
    shop = Peer("any", user="shop-7")
    expect(shop.subscribe("x", 2) == 0, "granted more than the profile has")
    shop.publish("vars/plant/named/any/shop-7", "mine", 0)
    other = Peer("other", user="office")
    expect(other.subscribe("x", 2) == 2, "granted what another's profile has")
    witness.hears(["mine"])
    shop.client.publish("vars/plant/named/other/shop-7", "not mine", 0)
    shop.is_closed(0x87)
    witness.hears(["mine"])


def step_publish():
    witness = Peer("witness")
    witness.subscribe("mine/#")
    peer = Peer("rights-1")
    peer.publish("mine/rights-1/a", "allowed")
    peer.client.publish("mine/rights-1/secret", "denied", 1).wait_for_publish(2)
    if not IS_5:
        peer.is_closed(None)
        peer = Peer("rights-1")
    peer.client.publish("mine/rights-2/a", "another's", 1).wait_for_publish(2)
    if IS_5:
        peer.publish("mine/rights-1/b", "also allowed")
        witness.hears(["allowed", "also allowed"])
        expect(not peer.is_gone, "closed although MQTT 5 has a word for it")
    else:
        peer.is_closed(None)
        witness.hears(["allowed"])
    refused = Peer("rights-3", will=("mine/rights-1/gone", "x", 1))
    expect(refused.code == (0x87 if IS_5 else 5), f"CONNACK {refused.code} to a Will that is not allowed")
    smuggler = Peer("rights-/+")
    expect(smuggler.code == (0x85 if IS_5 else 2), f"CONNACK {smuggler.code} to a name with a wildcard")


def step_subscribe():
    peer = Peer("rights-1")
    refused = 0x87 if IS_5 else 0x80
    wanted = {"mine/rights-1/a": 1, "all": 1, "#": refused, "mine/+/a": refused, "mine/rights-1/#": refused,
              "$share/g/mine/rights-2/a": refused}
    for topic, reason in wanted.items():
        got = peer.subscribe(topic)
        expect(got == reason, f"{topic}: {got}, not {reason}")


def step_sessions():
    name = "brief-1"
    peer = Peer(name, clean=False, expiry=1000)
    if IS_5:
        expect(peer.told.SessionExpiryInterval == 1, f"{peer.told}")
    peer.leave()
    again = Peer(name, clean=False, expiry=1000)
    expect(again.present, "the session has gone too soon")
    again.leave()
    time.sleep(3)
    expect(not Peer(name, clean=False, expiry=1000).present, "the session is still there")


def step_keepalive():
    if IS_5:
        expect(Peer("bounds-1", keep_alive=1).told.ServerKeepAlive == 3, "not lengthened")
        expect(Peer("bounds-2", keep_alive=600).told.ServerKeepAlive == 60, "not shortened")
        expect(not hasattr(Peer("bounds-3", keep_alive=30).told, "ServerKeepAlive"), "told what it asked for")
    # It says nothing for longer than it asked for, and shorter than the profile allows.
    peer = Peer("bounds-4", keep_alive=1, by_hand=True)
    time.sleep(2.5)
    for _ in range(20):
        peer.client.loop(0.05)
    expect(not peer.is_gone, "closed although its profile bears more")
    silent = Peer("brief-2", keep_alive=0 if not IS_5 else 600, by_hand=True)
    time.sleep(3)
    for _ in range(40):
        silent.client.loop(0.05)
    expect(silent.is_gone, "not closed although it was silent for longer than its profile bears")


def step_qos():
    peer = Peer("bounds-1")
    if IS_5:
        expect(peer.told.MaximumQoS == 1, f"{peer.told}")
    expect(peer.subscribe("x", 2) == 1, "granted more than the profile has")
    peer.publish("x", "1", 1)
    peer.client.publish("x", "2", 2)
    peer.is_closed(0x9B)
    will = Peer("bounds-2", will=("x", "x", 2))
    expect(will.code == (0x9B if IS_5 else 5), f"CONNACK {will.code}")


def step_inflight():
    peer = Peer("bounds-1")
    if IS_5:
        expect(peer.told.ReceiveMaximum == 3, f"{peer.told}")
    peer.subscribe("many")
    other = Peer("other")
    texts = [str(i) for i in range(50)]
    for text in texts:
        other.client.publish("many", text, 1)
    peer.hears(texts)


def step_size():
    peer = Peer("bounds-1")
    if IS_5:
        expect(peer.told.MaximumPacketSize == 1024, f"{peer.told}")
    peer.publish("x", "x" * 900)
    peer.client.publish("x", "x" * 1100)
    peer.is_closed(0x95)
    subscriber = Peer("bounds-2")
    subscriber.client.subscribe("f" * 1100, 1)
    subscriber.is_closed(0x95)
    will = Peer("bounds-3", will=("x", "x" * 1100, 1))
    if IS_5:
        expect(will.code == 0x95, f"CONNACK {will.code}")
    expect(will.code != 0, "taken with a Will that is larger than its profile allows")
    expect(Peer("other", will=("x", "x" * 1100, 1)).code == 0, "another is bound by it too")


def step_rate():
    for name, payload in (("rate-1", "x"), ("bytes-1", "x" * 2000)):
        witness = Peer("witness-" + name)
        witness.subscribe(name)
        peer = Peer(name)
        began = time.monotonic()
        for _ in range(30):
            peer.client.publish(name, payload, 1)
        comes(lambda: len(witness.messages) == 30, "some are missing", 20)
        # Ten at once, and ten each second.
        expect(time.monotonic() - began > 1.5, f"{name} was not slowed down")
        expect(not peer.is_gone, f"{name} was closed")


def step_queue():
    """Three policies; the publisher is of the same version."""
    for policy in ("refuse", "oldest", "newest"):
        name = policy + "-1"
        peer = Peer(name, clean=False, expiry=1000)
        peer.subscribe(name)
        peer.leave()
        other = Peer("other-" + policy)
        sent = [other.client.publish(name, str(i), 1) for i in range(1, 6)]
        waits = policy == "refuse" and not IS_5
        comes(lambda: sent[2].is_published(), "what there was room for was not acknowledged")
        if waits:
            time.sleep(1)
            expect(not sent[3].is_published(), "acknowledged although there was no room")
        else:
            comes(lambda: sent[4].is_published(), "not answered")
        back = Peer(name, clean=False, expiry=1000)
        back.hears(["3", "4", "5"] if policy == "oldest" else ["1", "2", "3", "4", "5"] if waits else ["1", "2", "3"])
        if waits:
            comes(lambda: sent[4].is_published(), "what waited was not acknowledged when there was room")
        back.leave()


def step_expiry():
    absent = Peer("absent", clean=False, expiry=1000)
    absent.subscribe("expiry/#")
    absent.leave()
    witness = Peer("witness")
    witness.subscribe("expiry/#")
    peer = Peer("expiry-1")
    peer.publish("expiry/1", "short")
    if IS_5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = 1000
        peer.client.publish("expiry/2", "longer", 1, properties=properties).wait_for_publish(PATIENCE)
        witness.hears(["short", "longer"])
        seconds = [m.properties.MessageExpiryInterval for m in witness.messages]
        expect(seconds == [2, 4], f"{seconds}, not [2, 4]")
    other = Peer("other")
    other.publish("expiry/3", "for ever")
    time.sleep(5)
    Peer("absent", clean=False, expiry=1000).hears(["for ever"])


def step_liveness():
    witness = Peer("witness")
    witness.subscribe("state/#")
    peer = Peer("live-1")
    witness.hears(["online", "offline"])
    peer.publish("x", "x")
    comes(lambda: len(witness.messages) == 3, "not said to be online again")
    expect(witness.messages[2].payload == b"online", f"{witness.messages[2].payload}")
    comes(lambda: len(witness.messages) == 4, "not said to be offline again")
    late = Peer("late")
    late.subscribe("state/live-1")
    comes(lambda: late.messages, "the state is not retained")
    expect(late.messages[0].retain and late.messages[0].payload == b"offline", f"{late.messages[0].payload}")


def step_last():
    witness = Peer("witness")
    witness.subscribe("last/#")
    peer = Peer("last-1")
    for text in ("1", "2"):
        peer.publish("last/last-1/t", text)
    peer.publish("other", "3")
    witness.hears(["1", "2"])
    expect(not any(m.retain for m in witness.messages), "RETAIN 1 to who was there already")
    late = Peer("late")
    late.subscribe("#")
    late.hears(["2"])
    expect(late.messages[0].retain, "RETAIN 0")


def main():
    try:
        globals()["step_" + sys.argv[3]]()
    except (Unexpected, OSError) as error:
        print(f"{sys.argv[3]}, MQTT {sys.argv[2]}: {error}", flush=True)
        sys.exit(1)
    sys.exit(0)


main()
