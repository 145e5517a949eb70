import MQTT
import Testing
import Workbench

/// The device profiles of the gateway that all callers talk to: one for each setting, for clients whose names begin with
/// its name. Nobody else's does.
enum DeviceProfiles {
    struct Profile {
        var name: String
        /// What a user would write, beside its name and who gets it.
        var text: String
        var match: String?

        func yaml(order: Int) -> String {
            let match = match ?? "{ client-id: \"\(name)-*\" }"
            return "profile: \(name)\norder: \(order)\nmatch: \(match)\n\(text)\n"
        }
    }

    static let all = [
        Profile(
            name: "rights",
            text: """
                publish: { allow: "mine/${clientid}/#", deny: "mine/+/secret" }
                subscribe: { allow: [ "mine/${clientid}/#", "all" ], deny: "mine/+/secret" }
                """),
        Profile(
            name: "bounds",
            text: """
                sessions: { expiry-for-3.1.1: 100s, expiry-max: 100s }
                keep-alive: { min: 5s, max: 60s }
                qos: 1
                receive-maximum: 3
                packet-size: 1 KiB
                """),
        Profile(name: "brief", text: "keep-alive: { max: 1s }\nsessions: { expiry-for-3.1.1: 1s }"),
        Profile(name: "refuse", text: "queue: { messages: 3, when-full: refuse }"),
        Profile(name: "oldest", text: "queue: { messages: 3, when-full: drop-oldest }"),
        Profile(name: "newest", text: "queue: { messages: 3, when-full: drop-newest }"),
        Profile(name: "rate", text: "rate: { messages: 10/s, burst: 10 }"),
        Profile(name: "expiry", text: "message-expiry: { default: 100s, max: 200s }"),
        Profile(name: "latency", text: "durability: latency"),
        Profile(name: "saver", text: "durability: flash-saver"),
        Profile(name: "live", text: "liveness: { silent-for: 1s, topic: \"state/${clientid}\" }"),
        Profile(name: "last", text: "keep-last-value: \"last/${clientid}/#\""),
        Profile(name: "named", text: "qos: 0", match: "{ username: \"shop-*\" }"),
    ]
}

/// What a device profile says, at a real gateway.
@Suite("Device profiles, at a real gateway")
struct ProfileTests {
    private func name(_ profile: String) -> String { "\(profile)-\(Caller.newName())" }

    private func lasting(_ version: ProtocolVersion, _ name: String) throws -> Caller {
        try Caller.connected(version, name: name) {
            $0.cleanStart = false
            if version == .v5_0 { $0.sessionExpirySeconds = 1000 }
        }
    }

    // MARK: Who gets which

    @Test("A client is matched by its User Name, too; whoever nothing matches is treated as without profiles")
    func matching() throws {
        let shop = try Caller.greeted { $0.userName = "shop-7" }
        #expect(shop.connack.maximumQoS == .atMostOnce)
        let other = try Caller.greeted { $0.userName = "office" }
        #expect(other.connack.maximumQoS == nil)
        #expect(try Caller.greeted().connack.maximumQoS == nil)
    }

    @Test("Whoever could name itself into the topics of others is refused", arguments: [".", "/", "+", "#"])
    func smuggling(_ character: String) throws {
        let caller = try Caller(.v5_0)
        caller.send(.connect(Connect(clientIdentifier: "rights-a\(character)b\(Caller.newName())")))
        guard case .connack(let connack)? = try caller.next() else {
            Issue.record("no CONNACK")
            return
        }
        #expect(connack.reason == (character == "." ? .success : .clientIdentifierNotValid))
    }

    // MARK: Rights

    @Test("What a client may not publish it is told, and nobody gets it; deny wins")
    func publishRights() throws {
        let screen = try Caller.connected()
        let caller = try Caller.connected(name: name("rights"))
        try screen.subscribe("mine/\(caller.name)/#")
        try screen.subscribe("other/#")
        for (topic, reason) in [
            ("mine/\(caller.name)/a", ReasonCode.success), ("mine/\(caller.name)/secret", .notAuthorized),
            ("mine/somebody/a", .notAuthorized), ("other/\(caller.name)", .notAuthorized),
        ] {
            caller.send(.publish(topic, topic, .atLeastOnce, id: 7))
            #expect(try caller.next() == .puback(7, reason), "\(topic)")
            caller.send(.publish(topic, topic, .exactlyOnce, id: 8))
            #expect(try caller.next() == .pubrec(8, reason), "\(topic)")
            if reason == .success {
                caller.send(.pubrel(8))
                #expect(try caller.next() == .pubcomp(8))
            }
        }
        let topic = "mine/\(caller.name)/a"
        #expect(try screen.heard().payloads == [topic, topic])
    }

    @Test("[MQTT311-3.3.5-2] Before MQTT 5 there is no word for it: the connection is closed")
    func publishRightsBefore5() throws {
        let caller = try Caller.connected(.v3_1_1, name: name("rights"))
        caller.send(.publish("other/a", "x", .atLeastOnce, id: 7))
        #expect(try caller.untilClosed() == [])
    }

    @Test("A Topic Filter that reaches further than allowed is refused in SUBACK", arguments: allVersions)
    func subscribeRights(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version, name: name("rights"))
        let refused: ReasonCode = version == .v5_0 ? .notAuthorized : .unspecifiedError
        for (filter, reason) in [
            ("mine/\(caller.name)/a", ReasonCode.grantedQoS1), ("all", .grantedQoS1), ("#", refused),
            ("mine/+/a", refused), ("mine/\(caller.name)/#", refused),
            ("mine/\(caller.name)/secret", refused),
        ] {
            caller.send(.subscribe(9, [(filter, .atLeastOnce)]))
            guard case .suback(let suback)? = try caller.next() else {
                Issue.record("no SUBACK")
                return
            }
            #expect(suback.reasons == [reason], "\(filter)")
        }
    }

    // MARK: Bounds

    @Test(
        "[MQTT5-3.1.2-21, MQTT5-3.2.2-9, MQTT5-3.2.2-15] CONNACK tells an MQTT 5 client the bounds of its profile"
    )
    func connack() throws {
        let (_, asked) = try Caller.greeted(name: name("bounds")) {
            $0.keepAliveSeconds = 0
            $0.sessionExpirySeconds = 1000
        }
        #expect(asked.maximumQoS == .atLeastOnce)
        #expect(asked.receiveMaximum == 3)
        #expect(asked.maximumPacketSize == 1024)
        #expect(asked.serverKeepAliveSeconds == 60)
        #expect(asked.sessionExpirySeconds == 100)
        let (_, short) = try Caller.greeted(name: name("bounds")) { $0.keepAliveSeconds = 2 }
        #expect(short.serverKeepAliveSeconds == 5)
        let (_, within) = try Caller.greeted(name: name("bounds")) {
            $0.keepAliveSeconds = 30
            $0.sessionExpirySeconds = 50
        }
        #expect(within.serverKeepAliveSeconds == nil && within.sessionExpirySeconds == nil)
    }

    @Test(
        "[MQTT5-3.2.2-12] Beyond the highest QoS it is disconnected, and granted no more",
        arguments: allVersions)
    func quality(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version, name: name("bounds"))
        caller.send(.subscribe(9, [(caller.name, .exactlyOnce)]))
        guard case .suback(let suback)? = try caller.next() else {
            Issue.record("no SUBACK")
            return
        }
        #expect(suback.reasons == [.grantedQoS1])
        #expect(
            try caller.response(to: Packet.publish(caller.name, "x", .exactlyOnce, id: 1).bytes(version))
                == .refused(.qosNotSupported, version))
    }

    @Test(
        "[MQTT5-3.2.2-15] A larger packet than the profile takes ends the connection", arguments: allVersions)
    func packetSize(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version, name: name("bounds"))
        caller.send(.publish(caller.name, String(repeating: "x", count: 500)))
        #expect(try caller.heard() == [])
        let large = Packet.publish(caller.name, String(repeating: "x", count: 1100)).bytes(version)
        #expect(try caller.response(to: large) == .refused(.packetTooLarge, version))
        let subscriber = try Caller.connected(version, name: name("bounds"))
        let filters = (0..<40).map { (String(repeating: "f", count: 30) + "\($0)", QoS.atMostOnce) }
        let wide = Packet.subscribe(7, filters).bytes(version)
        #expect(try subscriber.response(to: wide) == .refused(.packetTooLarge, version))
    }

    @Test("A CONNECT that is larger than the profile takes is refused", arguments: allVersions)
    func largeConnect(version: ProtocolVersion) throws {
        let message = ApplicationMessage(
            topic: Array("w".utf8), payload: Array(repeating: UInt8(ascii: "x"), count: 1100))
        let caller = try Caller(version)
        caller.send(
            .connect(
                Connect(
                    version: version, clientIdentifier: name("bounds"),
                    will: Will(message: message, qos: .atMostOnce, retain: false))))
        let answers = try caller.untilClosed()
        guard version == .v5_0 else { return #expect(answers == []) }
        #expect(answers.count == 1)
        if case .connack(let connack) = answers.first { #expect(connack.reason == .packetTooLarge) }
    }

    @Test("[MQTT5-3.3.4-9] No more is in flight to it than its profile says", arguments: allVersions)
    func receiveMaximum(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version, name: name("bounds"))
        try caller.subscribe(caller.name, .atLeastOnce)
        let press = try Caller.connected()
        for i in 1...5 { try press.publish(.text(caller.name, "\(i)", .atLeastOnce, id: 3)) }
        let first = try caller.heard()
        #expect(first.payloads == ["1", "2", "3"])
        for case .publish(let publish) in first { if let id = publish.id { caller.send(.puback(id)) } }
        #expect(try caller.next(2).payloads == ["4", "5"])
    }

    @Test(
        "[MQTT311-3.1.2-24] A 3.1.1 client that asked for no Keep Alive is held to the longest of its profile"
    )
    func keepAlive() throws {
        let caller = try Caller.connected(.v3_1_1, name: name("brief")) { $0.keepAliveSeconds = 0 }
        // Closed in silence, after one and a half times as long.
        #expect(try caller.untilClosed() == [])
    }

    @Test("A 3.1.1 client's Session ends when its profile says so")
    func sessionExpiry() throws {
        let client = name("brief")
        try lasting(.v3_1_1, client).leave()
        try lasting(.v3_1_1, client).leave()
        #expect(
            waitUpTo(20) {
                let greeted = try? Caller.greeted(.v5_0, name: client) { $0.cleanStart = false }
                try? greeted?.caller.leave()
                return greeted?.connack.sessionPresent == false
            })
    }

    // MARK: Queues

    @Test(
        "What is too much for a queue: its publisher is refused, or the oldest goes, or the newest",
        arguments: ["refuse", "oldest", "newest"], [ProtocolVersion.v3_1_1, .v5_0])
    func queues(policy: String, version: ProtocolVersion) throws {
        let client = name(policy)
        let caller = try lasting(version, client)
        try caller.subscribe(client, .atLeastOnce)
        try caller.leave()
        let press = try Caller.connected()
        var refused: [Int] = []
        for i in 1...5 {
            press.send(.publish(client, "\(i)", .atLeastOnce, id: 3))
            guard case .puback(let answer)? = try press.next() else {
                Issue.record("no PUBACK")
                return
            }
            if answer.reason == .quotaExceeded { refused.append(i) }
        }
        #expect(refused == (policy == "refuse" ? [4, 5] : []))
        let back = try lasting(version, client)
        let kept = policy == "oldest" ? ["3", "4", "5"] : ["1", "2", "3"]
        #expect(try back.next(3).payloads == kept)
        #expect(try back.heard() == [])
    }

    // MARK: What it publishes

    @Test("A client that publishes faster than its profile allows is read more slowly; nothing is lost")
    func rate() throws {
        let screen = try Caller.connected()
        let caller = try Caller.connected(name: name("rate"))
        try screen.subscribe(caller.name, .atMostOnce)
        let began = monotonicSeconds()
        for i in 1...30 { caller.send(.publish(caller.name, "\(i)")) }
        #expect(try screen.next(30).payloads == (1...30).map(String.init))
        // Ten at once, and ten each second.
        #expect(monotonicSeconds() - began > 1.5)
    }

    @Test("[MQTT5-3.3.2-6] Messages that come without an expiry get the profile's, a longer one is shortened")
    func expiry() throws {
        let screen = try Caller.connected()
        let caller = try Caller.connected(name: name("expiry"))
        try screen.subscribe(caller.name, .atMostOnce)
        var seconds: [UInt32] = []
        for asked in [nil, 150, 1000] as [UInt32?] {
            var publish = Publish.text(caller.name, "x", .atMostOnce)
            publish.messageExpirySeconds = asked
            caller.send(.publish(publish))
            guard case .publish(let got)? = try screen.next() else {
                Issue.record("no PUBLISH")
                return
            }
            seconds.append(got.messageExpirySeconds ?? 0)
        }
        #expect((95...100).contains(seconds[0]) && (145...150).contains(seconds[1]), "\(seconds)")
        #expect((195...200).contains(seconds[2]), "\(seconds)")
        let older = try Caller.connected(.v3_1_1, name: name("expiry"))
        try screen.subscribe(older.name, .atMostOnce)
        older.send(.publish(older.name, "x"))
        guard case .publish(let got)? = try screen.next() else {
            Issue.record("no PUBLISH")
            return
        }
        #expect((95...100).contains(got.messageExpirySeconds ?? 0))
    }

    @Test("Acknowledgements come with every durability, in order", arguments: ["latency", "saver"])
    func durability(profile: String) throws {
        let caller = try Caller.connected(name: name(profile))
        for id in 1...8 as ClosedRange<UInt16> {
            let identifier = try #require(PacketIdentifier(rawValue: id))
            caller.send(.publish(caller.name, "x", .atLeastOnce, id: identifier))
        }
        let ids = try caller.next(8).compactMap { packet in
            if case .puback(let answer) = packet { answer.id.rawValue } else { nil }
        }
        #expect(ids == Array(1...8))
    }

    @Test("What a profile keeps is retained, though nobody asked for it; its receivers see RETAIN 0")
    func lastValue() throws {
        let caller = try Caller.connected(name: name("last"))
        let topic = "last/\(caller.name)/t"
        let screen = try Caller.connected()
        try screen.subscribe(topic, .atMostOnce)
        for value in ["1", "2"] { try caller.publish(.text(topic, value, .atLeastOnce, id: 1)) }
        #expect(try screen.next(2).payloads == ["1", "2"])
        let late = try Caller.connected()
        late.send(.subscribe(1, [(topic, .atMostOnce)]))
        _ = try late.next()
        guard case .publish(let publish)? = try late.next() else {
            Issue.record("no PUBLISH")
            return
        }
        #expect(publish.retain && publish.message.payload.elementsEqual("2".utf8))
    }

    @Test(
        "A device that says nothing for too long is offline, on a retained topic; its next word makes it online"
    )
    func liveness() throws {
        let client = name("live")
        let screen = try Caller.connected()
        try screen.subscribe("state/\(client)", .atMostOnce)
        let caller = try Caller.connected(name: client)
        #expect(try screen.next(2).payloads == ["online", "offline"])
        caller.send(.publish("x", "x"))
        #expect(try screen.next(1).payloads == ["online"])
    }
}
