import GatewayCore
import MQTT
import Testing

/// What holds however much time passes.
@Suite("4.1 Sessions and 4.3 handshakes that outlast their time")
struct LastingTests {
    @Test(
        "[MQTT5-4.1.0-1] [MQTT311-4.1.0-2] A Session lasts as long as its connection, however short its expiry",
        arguments: [ProtocolVersion.v3_1, .v3_1_1, .v5_0])
    func sessionOfConnection(version: ProtocolVersion) {
        var s = Scenario.connected("press")
        s.connects("screen", version: version, cleanStart: true, expiry: 1)
        s.subscribes("screen", "t", qos: .atLeastOnce)
        for hour in 0..<3 {
            s.passes(milliseconds: 3_600_000)
            s.sends("press", .publish(.text("t", "\(hour)", qos: .atLeastOnce, id: 1)))
            s.syncs()
            #expect(s.drains("screen").map(\.text) == ["\(hour)"])
        }
        #expect(!s.closedClients.contains("screen"))
    }

    @Test("[MQTT5-4.3.3-7] A QoS 2 message that was sent does not expire, whatever becomes of the connection")
    func sentDoesNotExpire() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        var publish = Publish.text("t", qos: .exactlyOnce, id: 1)
        publish.messageExpirySeconds = 10
        s.sends("press", .publish(publish))
        s.syncs()
        let first = s.received("screen").publishes
        #expect(first.count == 1)
        s.passes(milliseconds: 20_000)
        s.vanishes("screen")
        s.connects("screen")
        let again = s.received("screen").publishes
        #expect(again.map(\.id) == first.map(\.id))
        #expect(again.map(\.duplicate) == [true])
        guard let id = again.first?.id else { return }
        s.sends("screen", .pubrec(Acknowledgement(id)))
        s.syncs()
        #expect(s.received("screen") == [.pubrel(Acknowledgement(id))])
        s.passes(milliseconds: 20_000)
        s.vanishes("screen")
        s.connects("screen")
        #expect(s.received("screen") == [.pubrel(Acknowledgement(id))])
    }

    @Test("[MQTT5-4.3.3-13] The exchange with a publisher goes on although its message has expired")
    func expiredWhileReceiving() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        s.vanishes("screen")
        var publish = Publish.text("t", qos: .exactlyOnce, id: 1)
        publish.messageExpirySeconds = 10
        s.sends("press", .publish(publish))
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(1))])
        s.passes(milliseconds: 20_000)
        publish.duplicate = true
        s.sends("press", .publish(publish))
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(1))])
        s.sends("press", .pubrel(Acknowledgement(1)))
        s.syncs()
        #expect(s.received("press") == [.pubcomp(Acknowledgement(1))])
        s.connects("screen")
        #expect(s.drains("screen") == [])
    }

    @Test(
        "[MQTT311-4.8.0-2] A CONNECT that cannot be served just now is refused and the connection closed; later it is served"
    )
    func passingError() {
        var s = Scenario()
        s.handle(.storage(.pressure(true)))
        let connect = Connect(version: .v3_1_1, clientIdentifier: "press", cleanStart: false)
        s.opens("press", connect)
        s.syncs()
        #expect(s.received("press").connack?.reason == .serverUnavailable)
        #expect(s.closedClients.contains("press"))
        s.vanishes("press")
        s.handle(.storage(.pressure(false)))
        s.opens("press", connect)
        s.syncs()
        #expect(s.received("press").connack?.reason == .success)
    }

    @Test(
        "[MQTT5-3.2.2-16] [MQTT5-3.1.3-6] [MQTT311-3.1.3-6] An assigned Client Identifier is nobody's, also if somebody guessed it"
    )
    func guessedIdentifier() {
        var s = Scenario.connected("first")
        s.opens("nameless", Connect(clientIdentifier: ""))
        s.syncs()
        let assigned = s.received("nameless").connack?.assignedClientIdentifier ?? ""
        let parts = assigned.split(separator: "-")
        guard parts.count == 3, let position = UInt64(parts[1]), let number = UInt64(parts[2]) else {
            Issue.record("\(assigned) is not made of a position and a connection")
            return
        }
        // Among these is what the next nameless client would be called after them.
        let guesses = (UInt64(20)...60).map { "tidegate-\(position + $0)-\(number + 42)" }
        for guess in guesses { s.connects(guess) }
        s.opens("nameless", Connect(clientIdentifier: ""))
        s.syncs()
        let given = s.received("nameless").connack?.assignedClientIdentifier ?? ""
        #expect(given != "" && !guesses.contains(given))
        #expect(guesses.contains { given.hasPrefix($0) }, "none of them was guessed right")
        #expect(s.closedClients == [])
    }

    @Test(
        "[MQTT5-3.1.3-2] [MQTT311-3.1.3-2] Client Identifiers are compared byte by byte, also after a power cut"
    )
    func clientIdentifiers() {
        // One code point, or a letter and its accent: equal as Strings, and different clients.
        let names = ["press-\u{E9}", "press-e\u{301}"]
        var s = Scenario.connected("other")
        for (i, name) in names.enumerated() {
            // By number: the scenario keeps its clients by name.
            s.opens("\(i)", Connect(clientIdentifier: name, cleanStart: false, sessionExpirySeconds: 100))
            s.syncs()
            #expect(s.received("\(i)").connack?.sessionPresent == false)
            s.subscribes("\(i)", "t/\(i)")
        }
        #expect(s.closedClients == [])
        s.losesPower()
        for (i, name) in names.enumerated() {
            s.opens("\(i)", Connect(clientIdentifier: name, cleanStart: false, sessionExpirySeconds: 100))
            s.syncs()
            #expect(s.received("\(i)").connack?.sessionPresent == true)
        }
        s.connects("other")
        s.sends("other", .publish(.text("t/1", qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(s.received("0").publishes == [])
        #expect(s.received("1").publishes.count == 1)
    }
}
