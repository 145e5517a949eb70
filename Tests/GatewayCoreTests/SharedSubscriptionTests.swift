import GatewayCore
import MQTT
import Testing

/// [MQTT5-4.8.2-1] and [MQTT5-4.8.2-2], which shared filters are valid, and that No Local is a Protocol Error, are
/// the decoder's and tested there.
@Suite("MQTT 5, 4.8.2 Shared Subscriptions")
struct SharedSubscriptionTests {
    // MARK: Spreading

    @Test(
        "Each message goes to one member, and equal members get equally many",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func fair(qos: QoS) {
        var s = Scenario.connected("press", "a", "b", "c")
        for member in ["a", "b", "c"] { s.subscribes(member, "$share/g/t/+") }
        var got: [String: [String]] = [:]
        for n in 1...1000 {
            s.publishes("\(n)", qos: qos)
            if n % 20 == 0 {
                for member in ["a", "b", "c"] { got[member, default: []] += s.drains(member).map(\.text) }
            }
        }
        for member in ["a", "b", "c"] { got[member, default: []] += s.drains(member).map(\.text) }
        #expect(got.values.allSatisfy { (333...334).contains($0.count) })
        #expect(got.values.flatMap { $0 }.sorted() == (1...1000).map { "\($0)" }.sorted())
        #expect(
            got.values.allSatisfy { texts in
                texts.compactMap { Int($0) } == texts.compactMap { Int($0) }.sorted()
            })
    }

    @Test("Members of every version share, with or without wildcards, each group for itself")
    func versions() {
        var s = Scenario.connected("press", "new")
        s.connects("old", version: .v3_1_1)
        s.connects("other")
        s.subscribes("new", "$share/g/t/#")
        s.subscribes("old", "$share/g/t/#", qos: .atLeastOnce)
        s.subscribes("other", "$share/h/+/x", qos: .atLeastOnce)
        for n in 1...10 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.drains("new").count == 5)
        #expect(s.drains("old").count == 5)
        #expect(s.drains("other").count == 10)
        #expect(s.received("press").allSatisfy { $0 != .puback(.init(1, .noMatchingSubscribers)) })
    }

    @Test("A member whose Receive Maximum is used up is passed over, and what finds no member waits in order")
    func fullWindows() {
        var s = Scenario.connected("press")
        s.connects("a", receiveMaximum: 1)
        s.connects("b", receiveMaximum: 2)
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        s.subscribes("b", "$share/g/t/#", qos: .atLeastOnce)
        for n in 1...6 { s.publishes("\(n)", qos: .atLeastOnce) }
        let first = s.received("a")
        #expect(first.publishes.map(\.text) == ["1"])
        #expect(s.texts("b") == ["2", "3"])
        for case .some(let answer) in first.map(\.subscribersAnswer) { s.sends("a", answer) }
        #expect(s.texts("a") == ["4"])
    }

    @Test("Messages wait for a member that is away, and whoever comes first gets them")
    func away() {
        var s = Scenario.connected("press", "a", "b")
        for member in ["a", "b"] {
            s.subscribes(member, "$share/g/t/#", qos: .atLeastOnce)
            s.vanishes(member)
        }
        for n in 1...5 { s.publishes("\(n)", qos: .atLeastOnce) }
        s.syncs()
        s.connects("b")
        #expect(s.drains("b").map(\.text) == ["1", "2", "3", "4", "5"])
        s.connects("a")
        #expect(s.drains("a").isEmpty)
    }

    @Test("[MQTT5-4.8.2-3] Each member gets at most the QoS it was granted")
    func mixedQoS() {
        var s = Scenario.connected("press", "a", "b", "c")
        s.subscribes("a", "$share/g/t/#", qos: .atMostOnce)
        s.subscribes("b", "$share/g/t/#", qos: .atLeastOnce)
        s.subscribes("c", "$share/g/t/#", qos: .exactlyOnce)
        for n in 1...9 { s.publishes("\(n)", qos: .exactlyOnce) }
        #expect(s.received("a").publishes.isEmpty)  // A QoS 2 message goes nowhere before it is durable.
        let got = ["a", "b", "c"].map { s.drains($0) }
        #expect(got.map(\.count) == [3, 3, 3])
        #expect(got.map { Set($0.map(\.qos)) } == [[.atMostOnce], [.atLeastOnce], [.exactlyOnce]])
        s.publishes("low", qos: .atLeastOnce)
        s.publishes("low", qos: .atLeastOnce)
        s.publishes("low", qos: .atLeastOnce)
        #expect(
            ["a", "b", "c"].map { s.drains($0).map(\.qos) } == [
                [.atMostOnce], [.atLeastOnce], [.atLeastOnce],
            ])
    }

    @Test("Retain As Published and the Subscription Identifier are the chosen member's")
    func memberOptions() {
        var s = Scenario.connected("press", "a", "b")
        s.sends("a", .subscribe("$share/g/t/#", qos: .atLeastOnce, retainAsPublished: true, identifier: 7))
        s.sends("b", .subscribe("$share/g/t/#", qos: .atLeastOnce, identifier: 8))
        s.syncs()
        for qos in [QoS.atLeastOnce, .atMostOnce] {
            for n in 1...2 { s.publishes("\(n)", qos: qos, retain: true) }
            let got = ["a", "b"].map { s.drains($0) }
            #expect(got.map { $0.map(\.retain) } == [[true], [false]])
            #expect(got.map { $0.map(\.subscriptionIdentifiers) } == [[[7]], [[8]]])
        }
    }

    @Test("No retained message is sent for a new shared subscription")
    func noRetained() {
        var s = Scenario.connected("press", "a")
        s.publishes("old", qos: .atLeastOnce, retain: true)
        s.subscribes("a", "$share/g/t/#")
        #expect(s.drains("a").isEmpty)
    }

    @Test("CONNACK leaves shared subscriptions available, and SUBACK grants them")
    func available() {
        var s = Scenario()
        s.opens("a", Connect(version: .v5_0, clientIdentifier: "a", cleanStart: true))
        s.syncs()
        #expect(s.received("a").connack?.sharedSubscriptionAvailable == nil)
        s.sends("a", .subscribe("$share/g/t/#", qos: .atLeastOnce))
        s.syncs()
        #expect(s.received("a").subackReasons == [.grantedQoS1])
    }

    @Test(
        "A shared and an ordinary subscription of one client both deliver, and each is read back as its own")
    func overlapping() {
        var plan = GatewayPlan()
        plan.limits.residentBytesMax = 1
        plan.limits.residentBytesOfAbsentMax = 1
        var s = Scenario.connected("press", "a", plan: plan)
        s.sends("a", .subscribe("t/#", qos: .atLeastOnce, identifier: 1))
        s.sends("a", .subscribe("$share/g/t/#", qos: .atLeastOnce, identifier: 2))
        s.vanishes("a")
        for n in 1...3 { s.publishes("\(n)", qos: .atLeastOnce) }
        s.syncs()
        s.connects("a")
        let got = s.drains("a")
        #expect(got.filter { $0.subscriptionIdentifiers == [1] }.map(\.text) == ["1", "2", "3"])
        #expect(got.filter { $0.subscriptionIdentifiers == [2] }.map(\.text) == ["1", "2", "3"])
        #expect(got.count == 6)
    }

    // MARK: Settling

    @Test(
        "[MQTT5-4.8.2-6] A message that its member refuses goes to no other", arguments: [true, false],
        [QoS.atLeastOnce, .exactlyOnce])
    func refused(isPersistent: Bool, qos: QoS) {
        var s = Scenario.members(persistent: isPersistent)
        s.publishes("1", qos: qos)
        s.syncs()
        let refusal = Acknowledgement(s.received("a").publishes[0].id!, .quotaExceeded)
        s.sends("a", qos == .exactlyOnce ? .pubrec(refusal) : .puback(refusal))
        s.vanishes("a")
        s.passes(milliseconds: 7_200_000)
        #expect(s.drains("b").isEmpty)
        #expect(
            s.observations.contains(.dropped(owner: .client(identifier: "a"), .refusedByReceiver, count: 1)))
        #expect(s.owedToGroup == 0)
    }

    @Test("What a volatile member settles is settled in the group, over a power cut")
    func volatileSettles() {
        var s = Scenario.connected("press", "keeper")
        s.subscribes("keeper", "$share/g/t/#")
        s.vanishes("keeper")
        s.connects("a", cleanStart: true, expiry: 0)
        s.subscribes("a", "$share/g/t/#")
        for qos in [QoS.atLeastOnce, .exactlyOnce] { s.publishes("1", qos: qos) }
        #expect(s.drains("a").count == 2)
        s.passes(milliseconds: 2000)
        s.syncs()
        s.losesPower()
        s.connects("keeper")
        #expect(s.drains("keeper").isEmpty)
    }

    // MARK: A Session ends

    @Test(
        "An unacknowledged QoS 1 message goes to another member when its receiver's Session ends",
        arguments: [true, false])
    func unacknowledged(isPersistent: Bool) {
        var s = Scenario.members(persistent: isPersistent)
        for n in 1...4 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.texts("a") == ["1", "3"])
        #expect(s.drains("b").map(\.text) == ["2", "4"])
        s.vanishes("a")
        if isPersistent {
            #expect(s.drains("b").isEmpty)  // Its Session is still there.
            s.passes(milliseconds: 7_200_000)
        }
        let got = s.drains("b")
        #expect(got.map(\.text) == ["1", "3"])
        #expect(got.allSatisfy { !$0.duplicate })
        #expect(s.owedToGroup == 0)
    }

    @Test("The same when the member comes back with Clean Start, also after a power cut")
    func cleanStart() {
        var s = Scenario.members(persistent: true)
        for n in 1...2 { s.publishes("\(n)", qos: .atLeastOnce) }
        _ = s.drains("b")
        s.passes(milliseconds: 2000)
        s.syncs()
        s.losesPower()
        s.connects("b")
        s.connects("a", cleanStart: true)
        #expect(s.drains("b").map(\.text) == ["1"])
        #expect(s.drains("a").isEmpty)
    }

    @Test(
        "[MQTT5-4.8.2-4] [MQTT5-4.8.2-5] A QoS 2 message that was sent waits for its member, and ends with its Session",
        arguments: [true, false])
    func exactlyOnceStays(isPersistent: Bool) {
        var s = Scenario.members(persistent: isPersistent)
        s.publishes("1", qos: .exactlyOnce)
        s.syncs()
        let sent = s.received("a").publishes
        #expect(sent.map(\.text) == ["1"])
        s.vanishes("a")
        if isPersistent {
            s.connects("a")
            let again = s.drains("a")
            #expect(again.map(\.text) == ["1"])
            #expect(again.map(\.id) == sent.map(\.id) && again.map(\.duplicate) == [true])
            s.publishes("2", qos: .exactlyOnce)
            s.publishes("3", qos: .exactlyOnce)
            s.syncs()
            #expect(s.texts("a") == ["3"])
            #expect(s.drains("b").map(\.text) == ["2"])
            s.vanishes("a")
            s.passes(milliseconds: 7_200_000)
            #expect(s.observations.contains(.sessionEnded(clientIdentifier: "a", .expired, undelivered: 1)))
        } else {
            #expect(s.observations.contains(.dropped(owner: Scenario.group, .sessionEnded, count: 1)))
        }
        #expect(s.drains("b").isEmpty)
        #expect(s.owedToGroup == 0)
    }

    @Test("A QoS 2 message that was not sent yet goes to another member", arguments: [true, false])
    func exactlyOnceUnsent(isPersistent: Bool) {
        var s = Scenario.members(persistent: isPersistent)
        s.publishes("1", qos: .exactlyOnce)
        #expect(s.received("a").publishes.isEmpty)
        s.vanishes("a")
        if isPersistent { s.passes(milliseconds: 7_200_000) }
        #expect(s.drains("b").map(\.text) == ["1"])
        #expect(s.owedToGroup == 0)
    }

    @Test("A member with a trace and one without: the group outlives the one, and the power cut")
    func volatileBesidePersistent() {
        var s = Scenario.connected("press", "a")
        s.connects("b", cleanStart: true, expiry: 0)
        s.subscribes("a", "$share/g/t/#")
        s.subscribes("b", "$share/g/t/#")
        for n in 1...4 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.drains("a").map(\.text) == ["1", "3"])
        #expect(s.texts("b") == ["2", "4"])
        s.passes(milliseconds: 2000)
        s.syncs()
        s.losesPower()
        s.connects("a")
        #expect(s.drains("a").map(\.text) == ["2", "4"])
    }

    @Test(
        "[MQTT5-4.8.2-5] A QoS 2 message sent to a member without a trace is nobody else's after a power cut")
    func volatileExactlyOnce() {
        var s = Scenario.connected("press", "keeper")
        s.subscribes("keeper", "$share/g/t/#")
        s.vanishes("keeper")
        s.connects("a", cleanStart: true, expiry: 0)
        s.subscribes("a", "$share/g/t/#")
        s.publishes("1", qos: .exactlyOnce)
        #expect(s.received("a").publishes.isEmpty)
        s.syncs()
        #expect(s.texts("a") == ["1"])
        s.losesPower()
        #expect(s.observations.contains(.dropped(owner: Scenario.group, .sessionEnded, count: 1)))
        s.connects("keeper")
        #expect(s.drains("keeper").isEmpty)
    }

    // MARK: Power

    @Test(
        "A QoS 2 message leaves for its member only when the assignment is durable", arguments: [true, false])
    func assignmentIsDurable(isPersistent: Bool) {
        var s = Scenario.connected("press", "a")
        s.subscribes("a", "$share/g/t/#")
        s.vanishes("a")
        s.publishes("1", qos: .exactlyOnce)
        s.syncs()
        // The message has long been durable; only the assignment is new.
        let member = isPersistent ? "a" : "b"
        if isPersistent {
            s.returns("a")
        } else {
            s.connects("b", cleanStart: true, expiry: 0)
            s.sends("b", .subscribe("$share/g/t/#"))
        }
        #expect(s.journal.count > s.synced && s.lastUrgency == .handshake)
        #expect(s.received(member).publishes.isEmpty)
        s.syncs()
        #expect(s.texts(member) == ["1"])
    }

    @Test(
        "A power cut before the assignment is durable gives the message to whoever comes, after it only to its member",
        arguments: [true, false], [true, false])
    func powerCutAroundAssignment(isDurable: Bool, fromCheckpoint: Bool) {
        var s = Scenario.members(persistent: true)
        for member in ["a", "b"] { s.vanishes(member) }
        s.publishes("1", qos: .exactlyOnce)
        s.syncs()
        s.returns("a")
        let packets = s.received("a")
        #expect(packets.connack != nil && packets.publishes.isEmpty)
        if isDurable { s.syncs() }
        if fromCheckpoint { s.losesPowerAndRecoversFromCheckpoint() } else { s.losesPower() }
        s.connects("b")
        #expect(s.drains("b").map(\.text) == (isDurable ? [] : ["1"]))
        s.connects("a")
        #expect(s.drains("a").map(\.text) == (isDurable ? ["1"] : []))
    }

    @Test("A group, what waits in it and what it assigned come back", arguments: [true, false])
    func restart(fromCheckpoint: Bool) {
        var s = Scenario.connected("press")
        s.connects("a", receiveMaximum: 2)
        s.sends("a", .subscribe("$share/g/t/#", identifier: 5))
        for n in 1...6 { s.publishes("\(n)", qos: n % 2 == 0 ? .exactlyOnce : .atLeastOnce) }
        s.syncs()
        #expect(s.texts("a") == ["1", "2"])
        s.syncs()
        if fromCheckpoint { s.losesPowerAndRecoversFromCheckpoint() } else { s.losesPower() }
        s.connects("a", receiveMaximum: 2)
        let again = s.drains("a")
        #expect(again.map(\.text) == ["1", "2", "3", "4", "5", "6"])
        #expect(again.map(\.subscriptionIdentifiers) == Array(repeating: [5], count: 6))
        #expect(s.owedToGroup == 0)
    }

    @Test("The journal keeps a message for whoever has it, and no longer than it is owed")
    func owed() {
        var s = Scenario.members(persistent: true)
        func isOwed(_ s: borrowing Scenario) -> [Bool] {
            let last = Position(UInt64(s.journal.count))
            return [
                s.gateway.state.owes(from: Position(1), through: last),
                s.replayed().owes(from: Position(1), through: last),
            ]
        }
        s.publishes("1", qos: .atLeastOnce)
        #expect(s.texts("a") == ["1"])
        #expect(isOwed(s) == [true, true])
        s.vanishes("a")
        s.passes(milliseconds: 7_200_000)
        #expect(isOwed(s) == [true, true])
        #expect(s.drains("b").map(\.text) == ["1"])
        s.passes(milliseconds: 2000)
        #expect(isOwed(s) == [false, false])
    }

    @Test("A group runs no further ahead of its oldest unsettled message than its Records reach")
    func bounded() {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 8
        var s = Scenario.connected("press", "keeper", plan: plan)
        s.subscribes("keeper", "$share/g/t/#")
        s.vanishes("keeper")
        s.connects("slow", cleanStart: true, expiry: 0, receiveMaximum: 1)
        s.connects("quick", cleanStart: true, expiry: 0)
        for member in ["slow", "quick"] { s.subscribes(member, "$share/g/t/#") }
        for n in 1...20 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.drains("quick").map(\.text) == (2...8).map { "\($0)" })
        // Once the slow one answers, all goes on by itself as Records become durable.
        #expect(s.drains("slow").map(\.text).first == "1")
        var rest = 0
        for _ in 0..<20 { rest += s.drains("quick").count + s.drains("slow").count }
        #expect(s.owedToGroup == 0 && rest > 0)
    }

    // MARK: Leaving

    @Test("UNSUBSCRIBE leaves a member what it was assigned, and others what comes")
    func unsubscribes() {
        var s = Scenario.members(persistent: true)
        for n in 1...2 { s.publishes("\(n)", qos: .atLeastOnce) }
        s.sends("a", .unsubscribe("$share/g/t/#"))
        s.publishes("3", qos: .atLeastOnce)
        #expect(s.drains("a").map(\.text) == ["1"])
        #expect(s.drains("b").map(\.text) == ["2", "3"])
        #expect(s.owedToGroup == 0)
    }

    @Test(
        "What waits when the last member leaves is dropped, counted; the next group begins empty",
        arguments: [true, false])
    func lastLeaves(isPersistent: Bool) {
        var s = Scenario.connected("press")
        s.connects("a", cleanStart: !isPersistent, expiry: isPersistent ? 3600 : 0, receiveMaximum: 1)
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        for n in 1...3 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.texts("a") == ["1"])
        s.sends("a", .unsubscribe("$share/g/t/#"))
        #expect(s.observations.contains(.dropped(owner: Scenario.group, .sessionEnded, count: 2)))
        s.sends("press", .publish(.text("t/x", "4", qos: .atLeastOnce, id: 4)))
        s.syncs()
        #expect(s.received("press").contains(.puback(Acknowledgement(4, .noMatchingSubscribers))))
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        #expect(s.drains("a").isEmpty)
        #expect(s.replayed().sessionCount == (isPersistent ? 3 : 1))
    }

    @Test("A group whose last member's Session ended is gone after a power cut in between")
    func endedWithoutMembers() throws {
        var s = Scenario.connected("press", "a")
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        s.vanishes("a")
        s.publishes("1", qos: .atLeastOnce)
        s.syncs()
        s.passes(milliseconds: 7_200_000)
        let end = try #require(
            s.journal.lastIndex { if case .sessionEnded(_, .expired) = $0 { true } else { false } })
        s.losesPower(keeping: end + 1 - s.synced)
        #expect(s.observations.contains(.dropped(owner: Scenario.group, .sessionEnded, count: 1)))
        s.syncs()
        #expect(s.replayed().session(of: Scenario.group) == nil)
    }

    @Test("A group whose Record was damaged begins anew")
    func damagedGroup() throws {
        let filter = try #require(TopicFilter("$share/g/t/#"))
        var state = DurableState()
        state.apply(
            .sessionOpened(
                SessionOpened(
                    session: SessionID(1), owner: .client(identifier: "a"), version: .v5_0,
                    expirySeconds: 3600, isPersistent: true, will: nil)),
            at: Position(1))
        let subscribed = Record.subscribed(
            SessionID(1), [Subscription(filter: filter, maximumQoS: .exactlyOnce)])
        state.apply(subscribed, at: Position(3))
        var effects: [Effect] = []
        let gateway = Gateway(
            plan: GatewayPlan(), state: state, lastPosition: Position(3), now: Instant(milliseconds: 1),
            into: &effects)
        let group = try #require(gateway.state.session(of: Scenario.group))
        let appended = effects.compactMap { if case .append(let record, _) = $0 { record } else { nil } }
        #expect(appended.count == 2 && appended.last == subscribed)
        #expect(gateway.state[group]?.isPersistent == true)
    }

    @Test("A full queue of a group without a trace loses the newest, counted")
    func fullQueue() {
        var plan = GatewayPlan()
        plan.limits.queuedMessagesOfVolatileMax = 2
        var s = Scenario(plan: plan)
        s.connects("press")
        s.connects("a", cleanStart: true, expiry: 0, receiveMaximum: 1)
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        for n in 1...3 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.observations.contains(.dropped(owner: Scenario.group, .queueFull, count: 1)))
        #expect(s.drains("a").map(\.text) == ["1", "2"])
    }

    @Test("A message that expires while it waits in a group is dropped, counted")
    func expires() {
        var s = Scenario.connected("press", "a")
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        s.vanishes("a")
        var publish = Publish.text("t/x", "1", qos: .atLeastOnce, id: 1)
        publish.messageExpirySeconds = 10
        s.sends("press", .publish(publish))
        s.passes(milliseconds: 11_000)
        s.connects("a")
        #expect(s.drains("a").isEmpty)
        #expect(s.observations.contains(.dropped(owner: Scenario.group, .messageExpired, count: 1)))
    }

    @Test("A backlog on flash is handed out in order, however little memory there is")
    func backlog() {
        var plan = GatewayPlan()
        plan.limits.residentBytesMax = 30
        plan.limits.residentBytesOfAbsentMax = 1
        plan.limits.loadedAtOnceMax = 3
        plan.limits.identifierSpan = 8
        var s = Scenario.connected("press", "a", "b", plan: plan)
        for member in ["a", "b"] {
            s.subscribes(member, "$share/g/t/#")
            s.vanishes(member)
        }
        for n in 1...100 { s.publishes("\(n)", qos: n % 3 == 0 ? .exactlyOnce : .atLeastOnce) }
        s.syncs()
        for member in ["a", "b"] {
            s.opens(
                member,
                Connect(
                    version: .v5_0, clientIdentifier: member, cleanStart: false, sessionExpirySeconds: 3600,
                    receiveMaximum: 3))
        }
        var got: [String: [Int]] = [:]
        for _ in 0..<200 {
            s.syncs()
            for member in ["a", "b"] {
                for packet in s.received(member) {
                    if case .publish(let publish) = packet {
                        got[member, default: []].append(Int(publish.text) ?? 0)
                    }
                    if let answer = packet.subscribersAnswer { s.sends(member, answer) }
                }
            }
            s.passes(milliseconds: 100)
        }
        #expect(got.values.flatMap { $0 }.sorted() == Array(1...100))
        #expect(got.values.allSatisfy { $0 == $0.sorted() })
        #expect(got.count == 2)
    }
}

extension Scenario {
    static var group: SessionOwner {
        guard let filter = TopicFilter("$share/g/t/#") else { preconditionFailure("a valid filter") }
        return .group(filter)
    }

    /// A publisher, and members `a` and `b` of one group, whose Sessions are kept for an hour or end with their
    /// connections.
    fileprivate static func members(persistent: Bool) -> Scenario {
        var s = Scenario.connected("press")
        for member in ["a", "b"] {
            s.connects(member, cleanStart: !persistent, expiry: persistent ? 3600 : 0)
            s.subscribes(member, "$share/g/t/#")
        }
        return s
    }

    /// Connects again, and reads nothing; what follows from CONNACK is not durable yet.
    fileprivate mutating func returns(_ client: String) {
        opens(
            client,
            Connect(version: .v5_0, clientIdentifier: client, cleanStart: false, sessionExpirySeconds: 3600))
        syncsOnce()
    }

    /// PUBLISH from `press`, with an identifier that is free again at QoS 2 by the time it comes round.
    mutating func publishes(_ text: String, qos: QoS, retain: Bool = false) {
        let id = PacketIdentifier(rawValue: UInt16(truncatingIfNeeded: journal.count % 60_000 + 1))
        sends(
            "press", .publish(.text("t/x", text, qos: qos, id: qos == .atMostOnce ? nil : id, retain: retain))
        )
        if qos == .exactlyOnce, let id {
            sends("press", .pubrel(Acknowledgement(id)))
        }
    }

    /// Messages the group has not seen settled.
    var owedToGroup: Int {
        gateway.state.session(of: Self.group).flatMap { gateway.state[$0]?.queue.waitingCount } ?? 0
    }
}
