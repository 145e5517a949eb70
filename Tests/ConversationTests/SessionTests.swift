import MQTT
import Testing
import Workbench

/// Sessions, Wills, and how connections begin and end, as their clients see them.
@Suite("3.1.2 Sessions and Wills")
struct SessionTests {
    private func greeted(
        _ version: ProtocolVersion, _ name: String, clean: Bool, will: Will? = nil
    ) throws -> (caller: Caller, connack: Connack) {
        try Caller.greeted(version, name: name) {
            $0.cleanStart = clean
            $0.will = will
            if version == .v5_0 { $0.sessionExpirySeconds = 100 }
        }
    }

    // MARK: Sessions

    @Test(
        "[MQTT311-3.1.2-4, MQTT5-3.1.2-6] [MQTT311-3.1.4-3, MQTT5-3.1.4-4] [MQTT311-3.2.2-1, MQTT311-3.2.2-3] Without a clean start the Session is made, then resumed; with one it is gone",
        arguments: allVersions)
    func cleanStart(version: ProtocolVersion) throws {
        let name = Caller.newName()
        let press = try Caller.connected()
        var (caller, connack) = try greeted(version, name, clean: false)
        #expect(!connack.sessionPresent)
        try caller.subscribe(name)
        try caller.leave()
        try press.publish(.text(name, "away", .atLeastOnce, id: 1))

        (caller, connack) = try greeted(version, name, clean: false)
        // MQTT 3.1 has no place to say so.
        #expect(connack.sessionPresent == (version > .v3_1))
        #expect(try caller.next(1).payloads == ["away"])
        try caller.leave()

        (caller, connack) = try greeted(version, name, clean: true)
        #expect(!connack.sessionPresent)
        try press.publish(.text(name, "lost", .atLeastOnce, id: 1))
        #expect(try caller.heard() == [])
        try caller.leave()

        (caller, connack) = try greeted(version, name, clean: false)
        // In MQTT 5 the Session Expiry Interval keeps it, before that a clean one ends with its connection.
        #expect(connack.sessionPresent == (version == .v5_0))
        #expect(try caller.heard() == [])
    }

    @Test(
        "[MQTT311-3.1.3-2, MQTT5-3.1.3-2] The Client Identifier names the Session, byte by byte",
        arguments: allVersions)
    func clientIdentifiers(version: ProtocolVersion) throws {
        let name = Caller.newName()
        // The last two look alike: a letter in one code point or in two.
        let names = ["a", "A", "a ", "\u{E9}", "e\u{301}"].map { name + $0 }
        for (i, each) in names.enumerated() {
            let (caller, connack) = try greeted(version, each, clean: false)
            #expect(!connack.sessionPresent)
            try caller.subscribe("\(name)/\(i)")
            try caller.leave()
        }
        let press = try Caller.connected()
        for i in names.indices { try press.publish(.text("\(name)/\(i)", "\(i)", .atLeastOnce, id: 1)) }
        for (i, each) in names.enumerated() {
            let caller = try greeted(version, each, clean: false).caller
            #expect(try caller.next(1).payloads == ["\(i)"])
            #expect(try caller.heard() == [])
        }
    }

    @Test(
        "[MQTT5-3.1.3-7] [MQTT5-3.2.2-16] The Assigned Client Identifier is told, is nobody else's, and names the Session"
    )
    func assignedClientIdentifier() throws {
        let (first, connack) = try greeted(.v5_0, "", clean: true)
        let (_, other) = try greeted(.v5_0, "", clean: true)
        let assigned = try #require(connack.assignedClientIdentifier)
        #expect(assigned != other.assignedClientIdentifier)
        try first.subscribe("\(assigned)/t")
        try first.leave()
        let press = try Caller.connected()
        try press.publish(.text("\(assigned)/t", "kept", .atLeastOnce, id: 1))
        let (again, resumed) = try greeted(.v5_0, assigned, clean: false)
        #expect(resumed.sessionPresent)
        #expect(resumed.assignedClientIdentifier == nil)
        #expect(try again.next(1).payloads == ["kept"])
    }

    @Test("[MQTT311-3.1.3-6] Clients of 3.1.1 without a Client Identifier are different clients")
    func namelessClients() throws {
        let topic = Caller.newName()
        let callers = try (0..<3).map { _ in try Caller.connected(.v3_1_1, name: "") }
        for (i, caller) in callers.enumerated() { try caller.subscribe("\(topic)/\(i)") }
        let press = try Caller.connected()
        for i in callers.indices { try press.publish(.text("\(topic)/\(i)", "\(i)")) }
        for (i, caller) in callers.enumerated() { #expect(try caller.heard().payloads == ["\(i)"]) }
    }

    @Test(
        "[MQTT311-3.1.2-7] Retained messages outlive the Session of their publisher", arguments: allVersions)
    func retainedOutlive(version: ProtocolVersion) throws {
        let topic = Caller.newName()
        let press = try Caller.connected(version)
        try press.publish(.text(topic, "kept", .atLeastOnce, id: 1, retain: true))
        try press.leave()
        let screen = try Caller.connected(version)
        try screen.subscribe(topic)
        #expect(try screen.next(1).publishes.map(\.payload) == ["kept"])
    }

    // MARK: The beginning

    @Test(
        "[MQTT311-3.2.0-1, MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT311-3.1.4-4] CONNACK comes first and once, whatever is sent right behind CONNECT",
        arguments: allVersions)
    func early(version: ProtocolVersion) throws {
        let caller = try Caller(version)
        var connect = Connect(version: version, clientIdentifier: caller.name, cleanStart: false)
        if version == .v5_0 { connect.sessionExpirySeconds = 100 }
        caller.send(
            .connect(connect), .subscribe(1, [(caller.name, .exactlyOnce)]),
            .publish(caller.name, "early", .atLeastOnce, id: 2), .pingreq)
        var packets = try caller.next(5)
        guard case .connack(let connack) = packets.removeFirst() else {
            Issue.record("not CONNACK first")
            return
        }
        #expect(connack.reason == .success)
        #expect(packets.contains(.suback(Suback(id: 1, reasons: [.grantedQoS2]))))
        #expect(packets.contains(.puback(2)))
        #expect(packets.contains(.pingresp))
        #expect(packets.payloads == ["early"])
        #expect(try caller.heard() == [])
    }

    @Test(
        "[MQTT311-3.1.4-5, MQTT5-3.1.4-6] [MQTT311-3.2.2-5, MQTT5-3.2.2-7] After a refusal nothing more is handled, and the connection is closed",
        arguments: allVersions)
    func refused(version: ProtocolVersion) throws {
        let watcher = try Caller.connected()
        let topic = watcher.name
        try watcher.subscribe(topic)
        let caller = try Caller(version)
        var connect = Connect(version: version, clientIdentifier: "", cleanStart: false)
        if version == .v5_0 { connect.authenticationMethod = "METHOD" }
        caller.send(
            .connect(connect), .publish(topic, "QoS 0"), .publish(topic, "QoS 1", .atLeastOnce, id: 1),
            .subscribe(2, [(topic, .atMostOnce)]))
        let reason: ReasonCode = version == .v5_0 ? .badAuthenticationMethod : .clientIdentifierNotValid
        #expect(
            try caller.untilClosed() == [.connack(Connack(sessionPresent: false, reason: reason))])
        #expect(try watcher.heard() == [])
    }

    @Test(
        "[MQTT5-4.12.0-6] [MQTT5-3.1.2-28] [MQTT5-3.2.2-22] What a CONNACK leaves out for a client that did not ask"
    )
    func plainConnack() throws {
        let connack = try Caller.greeted().connack
        #expect(connack.authenticationMethod == nil && connack.authenticationData == nil)
        #expect(connack.responseInformation == nil)
        #expect(connack.serverKeepAliveSeconds == nil, "the client's own holds: see the Keep Alive tests")
    }

    // MARK: Keep Alive

    // Each waits for all versions at once, so that waiting takes no longer than for one.

    @Test(
        "[MQTT5-3.1.2-22, MQTT311-3.1.2-24] [MQTT5-3.2.2-22] After one and a half Keep Alives of silence the client is cut, and its Will published"
    )
    func keepAlive() throws {
        let watcher = try Caller.connected()
        try watcher.subscribe(watcher.name)
        let began = monotonicSeconds()
        let callers = try allVersions.map { version in
            try Caller.connected(version) {
                $0.keepAliveSeconds = 1
                $0.will = .text(watcher.name, "\(version)")
            }
        }
        for caller in callers {
            let packets = try caller.untilClosed()
            #expect(monotonicSeconds() - began > 1.4)
            #expect(packets == (caller.version == .v5_0 ? [.disconnect(Disconnect(.keepAliveTimeout))] : []))
        }
        #expect(try watcher.next(3).payloads.sorted() == allVersions.map { "\($0)" }.sorted())
    }

    @Test("[MQTT5-3.12.4-1, MQTT311-3.12.4-1] PINGREQ is answered with PINGRESP, and is a sign of life")
    func ping() throws {
        let callers = try allVersions.map { try Caller.connected($0) { $0.keepAliveSeconds = 1 } }
        let began = monotonicSeconds()
        while monotonicSeconds() - began < 2.2 {
            for caller in callers {
                caller.send([0xC0, 0])
                #expect(try caller.next() == .pingresp)
            }
            waitUpTo(0.4) { false }
        }
    }

    // MARK: The end

    @Test(
        "[MQTT5-3.14.4-1, MQTT5-3.14.4-2] A DISCONNECT of the gateway is the last it sends, and then it closes"
    )
    func lastWord() throws {
        let caller = try Caller.connected()
        try caller.subscribe(caller.name)
        let press = try Caller.connected()
        var bytes: [UInt8] = []
        for i in 0..<5 { bytes += Packet.publish(caller.name, "\(i)").bytes(.v5_0) }
        caller.send(bytes + raw(0x30, text("#"), [0]) + bytes)
        let packets = try caller.untilClosed()
        #expect(packets.payloads == ["0", "1", "2", "3", "4"])
        #expect(packets.last == .disconnect(Disconnect(.topicNameInvalid)))
        try press.publish(.text(caller.name, "too late"))
    }

    @Test(
        "[MQTT5-3.14.4-3, MQTT311-3.14.4-3] [MQTT311-3.1.2-10] DISCONNECT is answered by closing, and the Will is gone",
        arguments: allVersions)
    func disconnect(version: ProtocolVersion) throws {
        let watcher = try Caller.connected()
        try watcher.subscribe(watcher.name)
        let caller = try Caller.connected(version) { $0.will = .text(watcher.name) }
        caller.send([0xE0, 0])
        #expect(try caller.untilClosed() == [])
        #expect(try watcher.heard() == [])
    }

    // MARK: Wills

    @Test(
        "[MQTT5-3.1.2-7] [MQTT311-3.1.2-8, MQTT311-3.1.2-16, MQTT311-3.1.2-17] [MQTT5-3.1.2-14, MQTT5-3.1.2-15] The Will of a lost client is published, at its QoS, retained when it says so",
        arguments: allVersions, [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func will(version: ProtocolVersion, qos: QoS) throws {
        for retain in [false, true] {
            let watcher = try Caller.connected(version)
            let topic = watcher.name
            try watcher.subscribe(topic)
            let caller = try Caller.connected(version) {
                $0.will = .text(topic, "gone", qos, retain: retain)
            }
            caller.vanish()
            let will = try watcher.next(1).publishes
            #expect(will.map(\.payload) == ["gone"])
            #expect(will.map(\.qos) == [qos])
            #expect(will.map(\.retain) == [false])
            let later = try Caller.connected(version)
            later.send(.subscribe(1, [(topic, .exactlyOnce)]))
            let found = try later.next(retain ? 2 : 1) + later.heard()
            #expect(found.publishes.map(\.retain) == (retain ? [true] : []))
        }
    }

    @Test(
        "[MQTT311-3.1.2-10, MQTT311-3.1.2-12] [MQTT5-3.1.2-10] Published once, the Will is gone; without Will Flag there is none",
        arguments: allVersions)
    func willIsGone(version: ProtocolVersion) throws {
        let watcher = try Caller.connected()
        let topic = watcher.name
        try watcher.subscribe("\(topic)/#")
        let name = Caller.newName()
        let first = try greeted(version, name, clean: false, will: .text("\(topic)/will")).caller
        first.vanish()
        #expect(try watcher.next(1).payloads == ["gone"])
        for _ in 0..<2 {
            let again = try greeted(version, name, clean: false).caller
            again.vanish()
        }
        // Once its next connection is there, its last one is known to be gone.
        let last = try greeted(version, name, clean: false).caller
        #expect(try last.heard() == [])
        #expect(try watcher.heard().publishes == [])
    }

    @Test("[MQTT5-3.1.3-10] The Will carries its properties, User Properties in their order")
    func willProperties() throws {
        let watcher = try Caller.connected()
        try watcher.subscribe(watcher.name)
        let forwarded = ForwardedProperties(
            payloadIsUTF8: true, contentType: "text/plain", responseTopic: "a/b", correlationData: [1, 0],
            userProperties: [UserProperty("b", "1"), UserProperty("a", "2"), UserProperty("b", "1")])
        let caller = try Caller.connected {
            $0.will = Will(
                message: ApplicationMessage(
                    topic: watcher.name.utf8, properties: forwarded.bytes, payload: "gone".utf8),
                qos: .atMostOnce, retain: false)
        }
        caller.vanish()
        let will = try #require(try watcher.next(1).publishes.first)
        #expect(ForwardedProperties(will.message.properties) == forwarded)
    }
}
