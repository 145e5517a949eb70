import GatewayCore
import MQTT
import Testing

/// Damage takes some Records, and must take nothing else: a receiver may know what is lost by its Packet Identifier,
/// and would take another message under it for the one that it has [MQTT5-4.3.3-10].
@Suite("What lost Records leave behind")
struct LostRecordTests {
    /// "press" publishes for "archive", which is sent "0" to "2" at QoS 2 and answers nothing; all is durable.
    private static func unanswered(plan: GatewayPlan = GatewayPlan()) -> Scenario {
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        for n in 0..<3 { s.publishes(n) }
        return s
    }

    private static func uplinkPlan() throws -> GatewayPlan {
        var plan = GatewayPlan()
        let filter = try #require(TopicFilter("t"))
        plan.uplinks = [
            UplinkRoutes(
                name: "cloud", out: [.init(filter: filter, rename: nil, maximumQoS: .exactlyOnce)], in: [])
        ]
        return plan
    }

    private static func identifier(_ number: UInt64) -> PacketIdentifier {
        PacketIdentifierRule.whole.identifier(of: Delivery(number), qos: .exactlyOnce)
    }

    private static func isOneOfTheFirst(_ id: PacketIdentifier?) -> Bool {
        (0..<3).map(identifier).contains(id)
    }

    @Test("A7 The number of a lost Record is not given again")
    func lastIsLost() throws {
        var s = Self.unanswered()
        #expect(s.received("archive").publishes.map(\.id) == (0..<3).map(Self.identifier))
        // Whatever comes behind it shows that it was there.
        s.connects("witness")
        s.losesPower(andMessages: ["2"])
        s.connects("archive")
        s.connects("press")
        s.publishes(3)
        let rest = s.drains("archive")
        #expect(rest.map(\.text) == ["0", "1", "3"])
        let id = try #require(rest.last?.id)
        #expect(!Self.isOneOfTheFirst(id))
        // What nothing tells of is in no books, and neither is what was jumped over.
        #expect(s.gateway.state.balance.books.received == 3)

        // The next start comes to the same numbers, and to no others.
        s.losesPower(andMessages: ["2"])
        s.connects("archive")
        s.connects("press")
        s.publishes(4)
        #expect(s.drains("archive").map(\.id?.rawValue) == [id.rawValue + 1])
        #expect(s.gateway.state.balance.isEven)
    }

    @Test("A7 Nor is it when a Record behind it settles some of what is lost")
    func acknowledgedBehind() throws {
        var s = Self.unanswered()
        _ = s.received("archive")
        for n in 0..<3 as Range<UInt64> { s.sends("archive", .pubrec(Acknowledgement(Self.identifier(n)))) }
        s.syncs()
        for n in 0..<2 as Range<UInt64> { s.sends("archive", .pubcomp(Acknowledgement(Self.identifier(n)))) }
        s.passes(milliseconds: 2000)
        s.syncs()
        guard case .acknowledged(let settled) = s.journal.last else {
            Issue.record("\(String(describing: s.journal.last))")
            return
        }
        #expect(settled.floor == Delivery(2))
        s.losesPower(andMessages: ["1", "2"])
        s.connects("archive")
        s.connects("press")
        s.publishes(3)
        let rest = s.drains("archive")
        #expect(rest.map(\.text) == ["3"] && !Self.isOneOfTheFirst(rest.last?.id))
        #expect(s.gateway.state.balance.isEven)
    }

    @Test("What is elided behind a jump is delivered and no damage, after a start too")
    func elidedBehindAJump() throws {
        var s = Self.unanswered()
        s.connects("witness")
        s.losesPower(andMessages: ["2"])
        s.connects("archive")
        s.connects("press")
        _ = s.drains("archive")
        s.passes(milliseconds: 2000)
        s.syncs()
        s.sends("press", .publish(.text("t", "elided", qos: .atLeastOnce, id: 50)))
        s.answers("archive", s.received("archive"))
        #expect(s.elided.count == 1)
        s.publishes(3)
        #expect(s.drains("archive").map(\.text) == ["3"])
        s.losesPower(andMessages: ["2"])
        let balance = s.gateway.state.balance
        #expect(balance.isEven && balance.books.dropped(.damaged) == 0)
    }

    @Test("A7 The same of an uplink, whose identifiers are soon used again; its seq goes on a little further")
    func uplink() throws {
        var plan = try Self.uplinkPlan()
        plan.uplinks[0].provenance = .init(
            gateway: "g", addsGateway: false, addsSequence: true, addsReceivedAt: false)
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        _ = s.cloudReceived()
        for n in 0..<2 { s.publishes(n) }
        let known = s.cloudReceived().publishes.compactMap(\.id)
        #expect(known.count == 2)
        s.connects("witness")
        s.losesPower(andMessages: ["1"])
        s.cloudConnects(sessionPresent: true)
        s.connects("press")
        s.publishes(2)
        s.publishes(3)
        #expect(s.cloudReceived().publishes.map(\.text) == ["0"])
        s.cloudSends(0, .pubrec(Acknowledgement(known[0])))
        s.syncs()
        s.cloudSends(0, .pubcomp(Acknowledgement(known[0])))
        s.syncs()
        let others = s.cloudReceived().publishes
        #expect(others.map(\.text) == ["2", "3"])
        #expect(!others.contains { known.contains($0.id ?? known[0]) })
        // Nobody gets the number of what is lost, and a little more is missing.
        #expect(others.map(\.sequence) == ["4097", "4098"])
    }

    @Test("PUBREL goes to nobody who takes no QoS 2")
    func cappedCloud() throws {
        var s = Scenario.connected("press", plan: try Self.uplinkPlan())
        let terms = UplinkTerms(
            version: .v5_0, sessionPresent: false, receiveMaximum: 9, maximumQoS: .atLeastOnce)
        s.cloudConnects(terms)
        for n in 0..<2 { s.publishes(n) }
        s.damaged = Set(s.positions(of: ["0"]))
        s.losesPowerBehindACheckpoint()
        s.cloudConnects(
            UplinkTerms(version: .v5_0, sessionPresent: true, receiveMaximum: 9, maximumQoS: .atLeastOnce))
        s.syncs()
        let packets = s.cloudReceived()
        #expect(packets.publishes.map(\.text) == ["1"] && packets.pubrels.isEmpty)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 1)
    }

    @Test(
        "A6 A damaged message that was sent at QoS 2 ends its handshake, however often the power fails, and is damage"
    )
    func damagedInFlight() throws {
        var s = Self.unanswered()
        s.damaged = Set(s.positions(of: ["1"]))
        for _ in 0..<2 {
            s.losesPowerBehindACheckpoint()
            s.connects("archive")
            let packets = s.received("archive")
            #expect(packets.publishes.map(\.text) == ["0", "2"])
            #expect(packets.pubrels == [Self.identifier(1)])
            #expect(s.gateway.state.balance.queued == 3)
        }
        s.sends("archive", .pubcomp(Acknowledgement(Self.identifier(1), .packetIdentifierNotFound)))
        s.syncs()
        #expect(s.gateway.state.balance.queued == 2)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 1)
        s.losesPowerBehindACheckpoint()
        s.connects("archive")
        #expect(s.received("archive").pubrels.isEmpty)
        #expect(s.gateway.state.balance.isEven)
    }

    @Test("A6 A message that no index has any more ends its handshake where it may have been sent")
    func damagedInAPage() throws {
        var plan = GatewayPlan()
        plan.limits.queueEntriesMax = 0
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        for n in 0..<8 { s.publishes(n) }
        s.seals()
        s.damagedPostings = Set(s.positions(of: ["1", "2"]))
        for _ in 0..<2 {
            s.losesPower()
            s.connects("archive")
            let packets = s.received("archive")
            #expect(packets.publishes.map(\.text) == ["0"] + (3..<8).map(String.init))
            #expect(packets.pubrels == [1, 2].map(Self.identifier))
        }
        s.answers("archive", [.pubrel(Acknowledgement(Self.identifier(1)))])
        s.answers("archive", [.pubrel(Acknowledgement(Self.identifier(2)))])
        s.syncs()
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 2)
        #expect(s.gateway.state.balance.isEven)
    }

    @Test("A receiver that never ends the handshake of a damaged message is not asked for ever")
    func neverEnded() throws {
        var s = Self.unanswered()
        s.damaged = Set(s.positions(of: ["1"]))
        s.losesPowerBehindACheckpoint()
        for attempt in 0..<10 {
            s.connects("archive")
            #expect(s.received("archive").pubrels == (attempt < 8 ? [Self.identifier(1)] : []), "\(attempt)")
        }
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 1)
    }

    @Test("A damaged message whose receiver says that it has it is delivered")
    func answeredAfterAll() throws {
        var s = Self.unanswered()
        s.damaged = Set(s.positions(of: ["1"]))
        s.losesPowerBehindACheckpoint()
        s.connects("archive")
        _ = s.received("archive")
        s.sends("archive", .pubrec(Acknowledgement(Self.identifier(1))))
        s.syncs()
        #expect(s.received("archive").pubrels == [Self.identifier(1)])
        s.sends("archive", .pubcomp(Acknowledgement(Self.identifier(1))))
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 0)
        #expect(s.gateway.state.balance.queued == 2)
    }

    @Test("A damaged message that nobody was sent is let go without a word, at QoS 2 too")
    func damagedWhileAway() throws {
        var plan = GatewayPlan()
        plan.limits.residentBytesOfAbsentMax = 0
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        s.leaves("archive")
        for n in 0..<3 { s.publishes(n) }
        s.damaged = Set(s.positions(of: ["1"]))
        s.losesPowerBehindACheckpoint()
        s.connects("archive")
        let packets = s.received("archive")
        #expect(packets.publishes.map(\.text) == ["0", "2"])
        #expect(packets.pubrels.isEmpty)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 1)
    }

    @Test("A cloud that forgot its session is owed no end of a handshake; the message is damage all the same")
    func cloudForgot() throws {
        let plan = try Self.uplinkPlan()
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false)
        for n in 0..<2 { s.publishes(n) }
        s.damaged = Set(s.positions(of: ["0"]))
        s.losesPowerBehindACheckpoint()
        let (released, packets) = s.cloudReturnsAndForgets()
        #expect(released.pubrels.count == 1)
        #expect(packets.publishes.map(\.text) == ["1"])
        #expect(packets.pubrels.isEmpty)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 1)
    }

    @Test("A cloud that forgot is not sent another message for one that no index has any more")
    func cloudForgotAPage() throws {
        var plan = try Self.uplinkPlan()
        plan.limits.queueEntriesMax = 0
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        s.seals()
        for n in 0..<8 { s.publishes(n) }
        s.seals()
        s.damagedPostings = Set(s.positions(of: ["1", "2"]))
        s.losesPower()
        let (released, packets) = s.cloudReturnsAndForgets()
        #expect(released.pubrels.count == 2)
        #expect(packets.publishes.map(\.text) == ["0"] + (3..<8).map(String.init))
        #expect(packets.pubrels.isEmpty)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 2)
    }

    @Test("More damaged messages in a row than one Record can settle stop nobody")
    func longRun() throws {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 4
        plan.limits.residentBytesOfAbsentMax = 0
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.leaves("archive")
        for n in 0..<40 { s.publishes(n) }
        s.damaged = Set(s.positions(of: (1..<39).map(String.init)))
        s.losesPowerBehindACheckpoint()
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["0", "39"])
        s.passes(milliseconds: 2000)
        #expect(s.gateway.state.balance.queued == 0)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 38)
    }
}

extension Scenario {
    /// The message `n` from "press" to "t" at QoS 2, durable and released.
    fileprivate mutating func publishes(_ n: Int) {
        guard let id = PacketIdentifier(rawValue: UInt16(n + 1)) else {
            preconditionFailure("n + 1 is not zero")
        }
        sends("press", .publish(.text("t", "\(n)", qos: .exactlyOnce, id: id)))
        syncs()
        sends("press", .pubrel(Acknowledgement(id)))
        syncs()
    }

    /// The power fails, and the Records of these messages are damaged beyond use.
    fileprivate mutating func losesPower(andMessages texts: [String]) {
        losesPower(andRecords: Set(positions(of: texts).map { Int($0.number) - 1 }))
    }

    /// What the cloud gets when it comes back with its session, and what it gets when it comes again without.
    fileprivate mutating func cloudReturnsAndForgets() -> (known: [Packet], new: [Packet]) {
        cloudConnects(sessionPresent: true)
        let known = cloudReceived()
        cloudVanishes()
        cloudConnects(sessionPresent: false)
        syncs()
        return (known, cloudReceived())
    }

    /// So that no message is in memory afterwards.
    fileprivate mutating func losesPowerBehindACheckpoint() {
        checkpoints()
        losesPowerAndRecoversFromOldCheckpoint()
    }

    fileprivate mutating func answers(_ client: String, _ packets: [Packet]) {
        for case .some(let answer) in packets.map(\.subscribersAnswer) { sends(client, answer) }
    }
}

extension Publish {
    fileprivate var sequence: String? {
        ForwardedProperties(message.properties).userProperties.first { $0.name == "seq" }?.value
    }
}

extension [Packet] {
    fileprivate var pubrels: [PacketIdentifier] {
        compactMap { if case .pubrel(let pubrel) = $0 { pubrel.id } else { nil } }
    }
}
