import MQTT
import Testing

@testable import GatewayCore

private struct Dice {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func below(_ limit: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % limit
    }
}

/// What was subscribed to, and then is not allowed any more: by another configuration, or because another profile fits.
@Suite("Device profiles: rights withdrawn")
struct ProfileWithdrawalTests {
    private static func plan(
        subscribe allow: [String]? = nil, deny: [String] = [], publish: [String]? = nil
    ) throws -> GatewayPlan {
        try ProfileTermsTests.plan {
            $0.subscribe = TopicRights(
                allow: try allow?.map { try TopicTemplate($0) }, deny: try deny.map { try TopicTemplate($0) })
            $0.publish = TopicRights(allow: try publish?.map { try TopicTemplate($0) })
        }
    }

    private static func publish(
        _ s: inout Scenario, _ topics: String..., qos: QoS = .atLeastOnce, id: UInt16 = 1
    ) {
        for (n, topic) in topics.enumerated() {
            s.publishes("pub", topic, "\(topic) \(id)", qos: qos, id: id + UInt16(n))
            s.syncs()
            if qos == .exactlyOnce, let id = PacketIdentifier(rawValue: id + UInt16(n)) {
                s.sends("pub", .pubrel(Acknowledgement(id)))
            }
        }
        s.syncs()
    }

    private static func isEven(_ s: inout Scenario) -> Bool {
        s.passes(milliseconds: 2000)
        s.syncs()
        return s.balance.isEven && s.balance.queued == 0 && s.replayed().balance == s.balance
    }

    private static let versions: [ProtocolVersion] = [.v5_0, .v3_1_1]

    @Test(
        "Nothing comes by a subscription that a reload forbids, until another allows it again",
        arguments: versions, [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func here(version: ProtocolVersion, qos: QoS) throws {
        var s = Scenario.connected("pub", plan: try Self.plan())
        s.connects("press", version: version)
        s.subscribes("press", "a/#")
        s.subscribes("press", "b", qos: .exactlyOnce)
        s.reconfigures(try Self.plan(subscribe: ["b"]))
        Self.publish(&s, "a/1", "b", qos: qos)
        #expect(s.drains("press").map(\.topic) == ["b"])
        #expect(
            s.observations.contains(
                .subscriptionsRest(clientIdentifier: "press", profile: "press", count: 1)))
        #expect(s.gateway.clients.first { $0.clientIdentifier == "press" }?.restingSubscriptions == 1)
        #expect(s.closedClients.isEmpty)
        s.reconfigures(try Self.plan(subscribe: ["#"]))
        Self.publish(&s, "a/1", "b", qos: qos, id: 11)
        #expect(s.drains("press").map(\.topic).sorted() == ["a/1", "b"])
        #expect(Self.isEven(&s) == true)
    }

    @Test("deny alike; and a filter of which only a part is denied rests as a whole, as SUBSCRIBE has it")
    func denied() throws {
        var s = Scenario.connected("pub", "press", plan: try Self.plan())
        s.subscribes("press", "a/#")
        s.subscribes("press", "a/open")
        s.reconfigures(try Self.plan(deny: ["a/secret"]))
        Self.publish(&s, "a/1", "a/secret", "a/open")
        #expect(s.drains("press").map(\.topic) == ["a/open"])
    }

    @Test(
        "P3: of what waits for a client that is away only what is allowed when it comes back is sent; the rest is counted",
        arguments: versions, [QoS.atLeastOnce, .exactlyOnce])
    func away(version: ProtocolVersion, qos: QoS) throws {
        for restarts in [false, true] {
            var s = Scenario.connected("pub", plan: try Self.plan())
            s.connects("press", version: version)
            for filter in ["a", "b"] { s.subscribes("press", filter) }
            s.vanishes("press")
            Self.publish(&s, "a", "b", "a", "b", qos: qos)
            let narrow = try Self.plan(subscribe: ["b"])
            if restarts {
                s.restarts(with: narrow)
                s.connects("pub")
            } else {
                s.reconfigures(narrow)
            }
            // From now on it is not queued.
            Self.publish(&s, "a", "b", qos: qos, id: 21)
            #expect(s.balance.queued == 5 && s.balance.isEven)
            s.connects("press", version: version)
            #expect(s.drains("press").map(\.text) == ["b 1", "b 1", "b 21"])
            #expect(s.balance.books.dropped(.notAllowed) == 2)
            #expect(Self.isEven(&s) == true)
        }
    }

    @Test("A slip in a file that is put right in time costs nobody anything")
    func slip() throws {
        var s = Scenario.connected("pub", "press", plan: try Self.plan(subscribe: ["a"]))
        s.subscribes("press", "a")
        s.vanishes("press")
        Self.publish(&s, "a")
        s.reconfigures(try Self.plan(subscribe: ["aa"]))
        s.reconfigures(try Self.plan(subscribe: ["a"]))
        s.losesPower()
        s.connects("pub")
        Self.publish(&s, "a", id: 2)
        s.connects("press")
        #expect(s.drains("press").map(\.text) == ["a 1", "a 2"])
    }

    @Test(
        "Who comes back with other names is judged by the profile that fits then, and back again",
        arguments: versions)
    func otherProfile(version: ProtocolVersion) throws {
        var plan = try Self.plan()
        var guest = DeviceProfile(name: "guest", matches: [DeviceMatch(username: Glob("guest"))])
        guest.subscribe = TopicRights(allow: [try TopicTemplate("open/${username}/#")])
        plan.profiles.insert(guest, at: 0)
        var s = Scenario.connected("pub", plan: plan)
        func arrives(_ user: String?, _ s: inout Scenario) {
            s.opens(
                "press",
                Connect(
                    version: version, clientIdentifier: "press", cleanStart: false, userName: user,
                    sessionExpirySeconds: version == .v5_0 ? 1000 : nil))
            s.syncs()
        }
        arrives(nil, &s)
        for filter in ["a", "open/guest/x"] { s.subscribes("press", filter) }
        Self.publish(&s, "a")
        s.vanishes("press")
        arrives("guest", &s)
        #expect(s.received("press").connack?.sessionPresent == true)
        Self.publish(&s, "a", "open/guest/x", id: 5)
        #expect(s.drains("press").map(\.topic) == ["open/guest/x"])
        s.passes(milliseconds: 2000)
        s.vanishes("press")
        // Whose rights its user name decides is judged when it has one again.
        s.restarts(with: plan)
        s.connects("pub")
        Self.publish(&s, "a", "open/guest/x", id: 9)
        arrives("guest", &s)
        #expect(s.drains("press").map(\.topic) == ["open/guest/x"])
        s.vanishes("press")
        arrives(nil, &s)
        Self.publish(&s, "a", id: 13)
        #expect(s.drains("press").map(\.topic) == ["a"])
        #expect(s.balance.books.dropped(.notAllowed) == 2)
        #expect(Self.isEven(&s) == true)
    }

    @Test("[MQTT5-4.3.3-6] a QoS 2 handshake that has begun is ended")
    func handshake() throws {
        var s = Scenario.connected("pub", "press", plan: try Self.plan())
        s.subscribes("press", "a")
        Self.publish(&s, "a", "a", qos: .exactlyOnce)
        let ids = s.received("press").publishes.compactMap(\.id)
        #expect(ids.count == 2)
        s.sends("press", .pubrec(Acknowledgement(ids[0])))
        s.syncs()
        s.vanishes("press")
        s.reconfigures(try Self.plan(subscribe: []))
        s.connects("press")
        let again = s.received("press")
        #expect(again.contains(.pubrel(Acknowledgement(ids[0]))) && again.publishes.map(\.id) == [ids[1]])
        s.sends("press", .pubcomp(Acknowledgement(ids[0])))
        s.sends("press", .pubrec(Acknowledgement(ids[1])))
        s.syncs()
        s.sends("press", .pubcomp(Acknowledgement(ids[1])))
        #expect(Self.isEven(&s) == true)
    }

    @Test(
        "[MQTT5-4.8.2-4] a group passes over a member that may not have it any more, and keeps what nobody may have"
    )
    func shared() throws {
        var s = Scenario.connected("pub", "press", "oven", plan: try Self.plan())
        for client in ["press", "oven"] { s.subscribes(client, "$share/g/a", qos: .atLeastOnce) }
        s.reconfigures(try Self.plan(subscribe: ["b"]))
        Self.publish(&s, "a", "a", "a", "a")
        #expect(s.drains("press").isEmpty && s.drains("oven").count == 4)
        s.passes(milliseconds: 2000)
        s.sends("oven", .unsubscribe("$share/g/a"))
        s.syncs()
        Self.publish(&s, "a", "a", id: 11)
        #expect(s.balance.queued == 2)
        s.reconfigures(try Self.plan(subscribe: ["a"]))
        #expect(s.drains("press").count == 2)
        #expect(Self.isEven(&s) == true)
    }

    @Test("What a group had assigned to a member that may not have it goes to another")
    func assigned() throws {
        var s = Scenario.connected("pub", "press", plan: try Self.plan())
        s.subscribes("press", "$share/g/a", qos: .atLeastOnce)
        Self.publish(&s, "a", "a")
        #expect(s.received("press").publishes.count == 2)
        s.vanishes("press")
        s.connects("oven")
        s.subscribes("oven", "$share/g/a", qos: .atLeastOnce)
        s.reconfigures(try Self.plan(subscribe: []))
        #expect(s.drains("oven").isEmpty)
        s.connects("press")
        #expect(s.drains("oven").count == 2 && s.drains("press").isEmpty)
        #expect(Self.isEven(&s) == true)
    }

    @Test("UNSUBSCRIBE of one that rests, and SUBSCRIBE when it is allowed again, are as ever")
    func unsubscribed() throws {
        var s = Scenario.connected("pub", "press", plan: try Self.plan())
        s.subscribes("press", "a")
        s.reconfigures(try Self.plan(subscribe: []))
        s.sends("press", .subscribe("a"))
        s.sends("press", .unsubscribe("a"))
        s.syncs()
        let answers = s.received("press")
        #expect(answers.subackReasons == [.notAuthorized])
        #expect(
            answers.contains {
                if case .unsuback(let unsuback) = $0 { unsuback.reasons == [.success] } else { false }
            })
        s.reconfigures(GatewayPlan())
        Self.publish(&s, "a")
        #expect(s.drains("press").isEmpty)
        s.subscribes("press", "a")
        Self.publish(&s, "a", id: 2)
        #expect(s.drains("press").map(\.text) == ["a 2"])
    }

    @Test("Retained messages on their way to a new subscriber stop, too")
    func leading() throws {
        var s = Scenario.connected("pub", "press", plan: try Self.plan())
        s.sends("pub", .publish(.text("a", "1", qos: .exactlyOnce, id: 1, retain: true)))
        s.sends("press", .subscribe("a", qos: .atMostOnce))
        s.reconfigures(try Self.plan(subscribe: []))
        s.syncs()
        #expect(s.received("press").publishes.isEmpty)
        #expect(s.observations.contains(.dropped(owner: .client(identifier: "press"), .notAllowed, count: 1)))
    }

    @Test(
        "P3: whatever is allowed when, and whoever comes, goes or fails: nothing comes that is not allowed, and the books balance",
        arguments: 1...40 as ClosedRange<UInt64>)
    func anyOrder(seed: UInt64) throws {
        var dice = Dice(seed: seed)
        let topics = ["a", "b", "c", "d"]
        var allowed = topics
        var (isHere, id) = (true, UInt16(0))
        var s = Scenario.connected("pub", "press", "oven", plan: try Self.plan())
        for filter in ["a", "b", "$share/g/c", "$share/h/d"] { s.subscribes("press", filter) }
        s.subscribes("oven", "$share/h/d", qos: .atLeastOnce)
        func hears(_ s: inout Scenario, _ allowed: [String]) {
            _ = s.drains("oven")
            for publish in s.drains("press") where !allowed.contains(publish.topic) {
                // What was perhaps sent at QoS 2 must be, again.
                if publish.qos == .exactlyOnce, publish.duplicate { continue }
                Issue.record(
                    "\(publish.topic) \(publish.qos) \(publish.duplicate) \(publish.text) came while \(allowed) were allowed"
                )
            }
        }
        for _ in 0..<200 {
            switch dice.below(9) {
            case 0...3:
                id += 1
                let qos = [QoS.atMostOnce, .atLeastOnce, .exactlyOnce][dice.below(3)]
                let packetID = qos == .atMostOnce ? nil : PacketIdentifier(rawValue: id)
                s.sends("pub", .publish(.text(topics[dice.below(4)], "\(id)", qos: qos, id: packetID)))
                if dice.below(2) == 0 { s.syncs() }
            case 4:
                if isHere { hears(&s, allowed) }
                allowed = topics.filter { _ in dice.below(3) > 0 }
                s.reconfigures(try Self.plan(subscribe: allowed))
            case 5:
                if isHere { s.vanishes("press") } else { s.connects("press") }
                isHere.toggle()
            case 6:
                s.syncs()
                if dice.below(2) == 0 { s.losesPower() } else { s.losesPowerAndRecoversFromCheckpoint() }
                for client in ["pub", "oven"] { s.connects(client) }
                isHere = false
            case 7: s.passes(milliseconds: 700)
            default: if isHere { hears(&s, allowed) }
            }
            #expect(s.balance.isEven)
        }
        if !isHere { s.connects("press") }
        hears(&s, allowed)
        s.reconfigures(try Self.plan())
        hears(&s, topics)
        #expect(Self.isEven(&s) == true)
    }

    @Test(
        "A Will where its client may not publish any more is not published, and not owed any more",
        arguments: versions)
    func will(version: ProtocolVersion) throws {
        for restarts in [false, true] {
            var s = Scenario.connected("sub", plan: try Self.plan(publish: ["a"]))
            s.subscribes("sub", "#")
            s.connects("press", version: version, will: .text("a"))
            let narrow = try Self.plan(publish: ["b"])
            if restarts {
                s.restarts(with: narrow)
                s.connects("sub")
                s.passes(milliseconds: 40_000)
            } else {
                s.reconfigures(narrow)
                s.vanishes("press")
            }
            s.syncs()
            #expect(s.drains("sub").isEmpty)
            s.restarts(with: try Self.plan(publish: ["a"]))
            s.connects("sub")
            s.passes(milliseconds: 40_000)
            #expect(s.drains("sub").isEmpty)
        }
    }

    @Test("P3: what was held for want of room may not be published any more either: its client is closed")
    func held() throws {
        var wide = try Self.plan(publish: ["a", "b"])
        var narrow = try Self.plan(publish: ["b"])
        wide.limits.queuedMessagesMax = 1
        narrow.limits.queuedMessagesMax = 1
        var s = Scenario.connected("sub", "other", plan: wide)
        s.subscribes("sub", "#", qos: .atLeastOnce)
        s.vanishes("sub")
        s.subscribes("other", "#")
        s.connects("press", version: .v3_1_1)
        for n in 1...2 as ClosedRange<UInt16> {
            s.publishes("press", "a", "\(n)", id: n)
            s.syncs()
        }
        s.sends("press", .publish(.text("a", "zero")))
        s.sends("press", .publish(.text("b", "allowed")))
        #expect(s.drains("other").map(\.text) == ["1"])
        s.reconfigures(narrow)
        #expect(s.closedClients.isEmpty)
        s.connects("sub")
        #expect(s.drains("sub").map(\.text) == ["1"])
        s.passes(milliseconds: 1000)
        #expect(s.closedClients == ["press"])
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
        #expect(s.drains("other").map(\.text) == ["allowed"])
        #expect(s.gateway.profileCounts[0].refusedPublishes == 1 && s.gateway.heldBytes == 0)
        #expect(s.observations.contains(.dropped(owner: .client(identifier: "press"), .notAllowed, count: 1)))
        #expect(Self.isEven(&s) == true)
    }

    @Test("[MQTT5-4.3.3-10] but for a QoS 2 message that was taken, and is held when it is sent again")
    func heldRepetition() throws {
        var wide = try Self.plan(publish: ["a", "b"])
        var narrow = try Self.plan(publish: ["b"])
        wide.limits.queuedMessagesMax = 1
        narrow.limits.queuedMessagesMax = 1
        var s = Scenario.connected("sub", plan: wide)
        s.subscribes("sub", "#", qos: .atLeastOnce)
        s.vanishes("sub")
        s.connects("press", version: .v3_1_1)
        s.publishes("press", "a", "1", qos: .exactlyOnce, id: 1)
        s.syncs()
        s.publishes("press", "b", "2", id: 2)
        s.sends("press", .publish(.text("a", "1", qos: .exactlyOnce, id: 1, duplicate: true)))
        s.syncs()
        s.reconfigures(narrow)
        s.connects("sub")
        #expect(s.drains("sub").map(\.text) == ["1"])
        s.passes(milliseconds: 1000)
        s.syncs()
        #expect(s.closedClients.isEmpty)
        #expect(
            s.received("press") == [
                .pubrec(Acknowledgement(1)), .puback(Acknowledgement(2)), .pubrec(Acknowledgement(1)),
            ])
    }

    @Test("P3: what a client keeps that a reload closes has the new rights and the new bounds at once")
    func closed() throws {
        var s = Scenario.connected("pub", "press/1", plan: try Self.plan())
        for filter in ["a", "b"] { s.subscribes("press/1", filter, qos: .atLeastOnce) }
        var narrow = try Self.plan(subscribe: ["b", "own/${clientid}"])
        narrow.profiles[0].queue = QueueBounds(messagesMax: 1, whenFull: .dropOldest)
        s.reconfigures(narrow)
        #expect(s.closedClients == ["press/1"])
        let client = try #require(s.gateway.clients.first { $0.clientIdentifier == "press/1" })
        #expect(client.restingSubscriptions == 1 && client.bounds?.messagesMax == 1)
        Self.publish(&s, "a", "b", "b")
        #expect(s.balance.queued == 1 && s.balance.books.dropped(.queueFull) == 1)
        #expect(s.balance.isEven)
    }
}
