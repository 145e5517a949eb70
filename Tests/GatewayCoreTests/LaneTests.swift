import GatewayCore
import MQTT
import Testing

/// An uplink with several queues: who leaves first, under which identifiers, and how much at a time.
@Suite("Lanes of an uplink")
struct LaneTests {
    static func route(
        _ filter: String, _ priority: UplinkRoutes.Priority = .normal, liveFirst: Bool = false,
        queue: QueueBounds? = nil, except: [String] = []
    ) -> UplinkRoutes.Route {
        guard let parsed = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        var route = UplinkRoutes.Route(filter: parsed, rename: nil, maximumQoS: .exactlyOnce)
        route.priority = priority
        route.isLiveFirst = liveFirst
        route.queue = queue
        route.except = except.compactMap { TopicFilter($0) }
        return route
    }

    static func plan(
        _ out: [UplinkRoutes.Route], in inbound: [UplinkRoutes.Route] = [],
        drain: UplinkRoutes.Drain = .init()
    ) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.uplinks = [UplinkRoutes(name: "cloud", out: out, in: inbound)]
        plan.uplinks[0].drain = drain
        return plan
    }

    static let threePriorities = plan([route("a/#", .low), route("b/#"), route("c/#", .high)])

    static func established(_ plan: GatewayPlan, receiveMaximum: UInt16 = 100) -> Scenario {
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false, receiveMaximum: receiveMaximum)
        s.syncs()
        _ = s.cloudReceived()
        _ = s.uplinkControls()
        return s
    }

    // MARK: Priorities

    @Test("[MQTT5-4.6.0-6] What waits leaves by the priority of its route, and in order within it")
    func priorities() {
        var s = Scenario.connected("press", plan: Self.threePriorities)
        for (n, topic) in ["a/1", "b/1", "c/1", "a/2", "b/2", "c/2"].enumerated() {
            s.publishes("press", topic, topic, id: UInt16(n + 1))
        }
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["c/1", "c/2", "b/1", "b/2", "a/1", "a/2"])
    }

    @Test("A route that finds no lane of its own joins the first without raising it above others")
    func tooManyLabels() {
        let own = QueueBounds(messagesMax: 100)
        var routes = (1...7).map { Self.route("r\($0)/#", $0 == 1 ? .high : .normal, queue: own) }
        routes += [Self.route("p/#"), Self.route("z/#", .high)]
        var s = Scenario.connected("press", plan: Self.plan(routes))
        for (n, topic) in ["p/1", "z/1", "r1/1", "r7/1"].enumerated() {
            s.publishes("press", topic, topic, id: UInt16(n + 1))
        }
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["r1/1", "p/1", "z/1", "r7/1"])
    }

    @Test("[MQTT5-3.3.4-7] All lanes together keep to the cloud's Receive Maximum")
    func receiveMaximum() {
        var s = Self.established(Self.threePriorities, receiveMaximum: 3)
        for n in 1...9 as ClosedRange<UInt16> {
            s.publishes("press", ["a/x", "b/x", "c/x"][Int(n) % 3], "\(n)", id: n)
        }
        s.syncs()
        var unanswered = s.cloudReceived().publishes
        #expect(unanswered.map(\.text) == ["1", "2", "3"])
        var order: [String] = []
        while !unanswered.isEmpty {
            let first = unanswered.removeFirst()
            order.append(first.text)
            if let id = first.id { s.cloudSends(0, .puback(Acknowledgement(id))) }
            unanswered += s.cloudReceived().publishes
            #expect(unanswered.count <= 3)
        }
        #expect(order == ["1", "2", "3", "5", "8", "4", "7", "6", "9"])
    }

    @Test("Each lane has identifiers of its own, the same on every connection and after a power cut")
    func identifiers() {
        var s = Self.established(Self.threePriorities)
        for (n, topic) in ["a/1", "b/1", "c/1"].enumerated() {
            s.publishes("press", topic, topic, qos: .exactlyOnce, id: UInt16(2 * n + 1))
            s.publishes("press", topic, topic, qos: .atLeastOnce, id: UInt16(2 * n + 2))
        }
        s.syncs()
        let first = s.cloudReceived().publishes
        #expect(Set(first.compactMap(\.id)).count == 6)
        for publish in first where publish.topic == "a/1" && publish.qos == .exactlyOnce {
            if let id = publish.id { s.cloudSends(0, .pubrec(Acknowledgement(id))) }
        }
        s.syncs()
        let released = s.cloudReceived()
        #expect(released.count == 1)
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        let again = s.cloudReceived()
        #expect(again.filter { if case .pubrel = $0 { true } else { false } } == released)
        for publish in again.publishes {
            #expect(
                first.contains { $0.id == publish.id && $0.topic == publish.topic && $0.qos == publish.qos })
        }
        #expect(again.count == 6)
    }

    @Test("Each identifier belongs to one lane, and each lane finds its deliveries by theirs")
    func rule() {
        let rules = [PacketIdentifierRule.whole] + (0..<8).map { PacketIdentifierRule.lane($0) }
        for number in [0, 1, 3583, 3584, 4096, 28_671, 28_672, 1_000_000, 1 << 40] as [UInt64] {
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                for rule in rules {
                    let id = rule.identifier(of: Delivery(number), qos: qos)
                    #expect((id.rawValue >= 0x8000) == (qos == .exactlyOnce))
                    #expect(!(0x7001...0x7FFF).contains(id.rawValue))
                    let floor = Delivery(number - min(number, rule.span - 1))
                    #expect(rule.delivery(with: id, atOrAfter: floor) == Delivery(number))
                    if rule != .whole { #expect(rules[1 + Int(PacketIdentifierRule.lane(of: id))] == rule) }
                    for other in rules.dropFirst() where rule != .whole && other != rule {
                        #expect(other.delivery(with: id, atOrAfter: floor) == nil)
                    }
                }
            }
        }
    }

    // MARK: Which route

    @Test("The first route that carries a topic decides its lane; what it excepts, a later one may carry")
    func exceptions() {
        var s = Self.established(
            Self.plan([
                Self.route("s/#", .high, except: ["s/noise/#", "s/+/raw"]), Self.route("s/noise/+", .low),
            ]))
        for (n, topic) in ["s/a", "s/noise/1", "s/b/raw", "s/noise/1/2"].enumerated() {
            s.publishes("press", topic, topic, id: UInt16(n + 1))
        }
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["s/a", "s/noise/1"])
    }

    @Test("What an inbound route excepts goes no further, and RETAIN only where the route carries it")
    func inbound() {
        var quiet = Self.route("in/#", except: ["in/secret"])
        quiet.carriesRetain = false
        var s = Self.established(Self.plan([], in: [quiet]))
        s.subscribes("press", "in/#")
        s.cloudSends(0, .publish(.text("in/secret", qos: .atLeastOnce, id: 1)))
        s.cloudSends(0, .publish(.text("in/open", qos: .atLeastOnce, id: 2, retain: true)))
        #expect(s.drains("press").map(\.topic) == ["in/open"])
        #expect(s.observations.contains(.dropped(owner: .uplink(name: "cloud"), .noRoute, count: 1)))
        s.connects("late")
        s.subscribes("late", "in/#")
        #expect(s.drains("late").isEmpty)
    }

    @Test("RETAIN goes up only where the route carries it", arguments: [true, false])
    func retain(carries: Bool) {
        var route = Self.route("a")
        route.carriesRetain = carries
        var s = Self.established(Self.plan([route]))
        s.sends("press", .publish(.text("a", qos: .atLeastOnce, id: 1, retain: true)))
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.retain) == [carries])
    }

    @Test("What came from the cloud does not go back, whichever lane its route leads to")
    func noLoop() {
        let both = [Self.route("x/#", .high, liveFirst: true)]
        var s = Self.established(Self.plan(both, in: both))
        s.cloudSends(0, .publish(.text("x/1", qos: .exactlyOnce, id: 5)))
        s.syncs()
        #expect(s.cloudReceived().publishes == [])
    }

    // MARK: Live first

    @Test("New messages leave ahead of their route's backlog, which follows in order")
    func liveFirst() {
        var s = Scenario.connected("press", plan: Self.plan([Self.route("a/#", liveFirst: true)]))
        for n in 1...6 as ClosedRange<UInt16> { s.publishes("press", "a/1", "old \(n)", id: n) }
        s.syncs()
        s.cloudConnects(sessionPresent: false, receiveMaximum: 2)
        s.syncs()
        var unanswered = s.cloudReceived().publishes
        #expect(unanswered.map(\.text) == ["old 1", "old 2"])
        for n in 7...8 as ClosedRange<UInt16> { s.publishes("press", "a/1", "new \(n)", id: n) }
        s.syncs()
        var order: [String] = []
        while !unanswered.isEmpty {
            let first = unanswered.removeFirst()
            order.append(first.text)
            if let id = first.id { s.cloudSends(0, .puback(Acknowledgement(id))) }
            unanswered += s.cloudReceived().publishes
        }
        #expect(order == ["old 1", "old 2", "new 7", "new 8", "old 3", "old 4", "old 5", "old 6"])
    }

    @Test("A live lane that is full, or whose cloud is away, leaves new messages to the backlog")
    func liveIsFull() {
        var plan = Self.plan([Self.route("a/#", liveFirst: true)])
        plan.limits.liveMessagesMax = 2
        var s = Self.established(plan, receiveMaximum: 1)
        for n in 1...5 as ClosedRange<UInt16> { s.publishes("press", "a/1", "\(n)", id: n) }
        s.syncs()
        #expect(s.waiting("live") == 2)
        #expect(s.waiting("") == 3)
        s.cloudVanishes()
        s.publishes("press", "a/1", "6", id: 6)
        s.syncs()
        #expect(s.waiting("live") == 2)
        #expect(s.waiting("") == 4)
        #expect(s.balance.isEven)
    }

    @Test("E3: a message that its live lane had room for is elided when the cloud has it at once")
    func elided() {
        var s = Self.established(Self.plan([Self.route("a/#", liveFirst: true), Self.route("b/#", .high)]))
        s.publishes("press", "a/1", "x", id: 1)
        #expect(s.lastMessageUrgency == .elidable)
        for case .publish(let publish) in s.cloudReceived() {
            if let id = publish.id { s.cloudSends(0, .puback(Acknowledgement(id))) }
        }
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
        #expect(s.elided.count == 1)
        #expect(s.balance.isEven)
    }

    @Test("E2: what cannot leave at once because the other lanes fill the Receive Maximum does not linger")
    func notElidable() {
        var s = Self.established(Self.threePriorities, receiveMaximum: 1)
        s.publishes("press", "a/1", "1", id: 1)
        #expect(s.lastMessageUrgency == .elidable)
        s.publishes("press", "c/1", "2", id: 2)
        #expect(s.lastMessageUrgency == .message)
    }

    // MARK: Comings and goings

    @Test("More lanes than there are identifiers for: what finds none is in the first")
    func tooMany() {
        let routes = (0..<9).map { Self.route("r/\($0)", queue: QueueBounds(messagesMax: 10)) }
        #expect(Self.plan(routes).uplinks[0].laneLabels.count == 9)
        var s = Scenario.connected("press", plan: Self.plan(routes))
        for n in 0..<9 as Range<UInt16> { s.publishes("press", "r/\(n)", "\(n)", id: n + 1) }
        s.syncs()
        #expect(s.waiting("") == 2)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text).sorted() == (0..<9).map { "\($0)" })
    }

    @Test(
        "A lane that no route leads to any more drains after a restart, then ends and its number is free",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func drains(qos: QoS) {
        var s = Self.established(Self.threePriorities)
        s.publishes("press", "c/1", "sent", qos: qos, id: 1)
        s.syncs()
        let sent = s.cloudReceived().publishes
        s.cloudVanishes()
        s.publishes("press", "c/1", "waits", qos: qos, id: 2)
        s.syncs()
        s.restarts(with: Self.plan([Self.route("c/#")]))
        s.connects("press")
        s.publishes("press", "c/1", "new", qos: qos, id: 3)
        s.syncs()
        s.cloudConnects(sessionPresent: true)
        s.syncs()
        let got = s.cloudReceived().publishes
        #expect(got.first { $0.text == "sent" }?.id == sent.first?.id)
        #expect(got.map(\.text).sorted() == ["new", "sent", "waits"])
        #expect(s.lanes() == ["high", "low"].filter { s.waiting($0) > 0 })
        for publish in got {
            guard let id = publish.id else { continue }
            if qos == .exactlyOnce {
                s.cloudSends(0, .pubrec(Acknowledgement(id)))
                s.syncs()
                s.cloudSends(0, .pubcomp(Acknowledgement(id)))
            } else {
                s.cloudSends(0, .puback(Acknowledgement(id)))
            }
        }
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.lanes() == [])
        #expect(s.balance.isEven)
        s.restarts(with: Self.plan([Self.route("c/#")]))
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived() == [])
        #expect(s.lanes() == [])
    }

    @Test("Session Present 0: every lane begins anew, and what any had PUBREC'd is the cloud's")
    func cloudForgot() {
        var s = Self.established(Self.threePriorities)
        for (n, topic) in ["a/1", "b/1", "c/1"].enumerated() {
            s.publishes("press", topic, topic, qos: .exactlyOnce, id: UInt16(n + 1))
        }
        s.syncs()
        for publish in s.cloudReceived().publishes where publish.topic != "b/1" {
            if let id = publish.id { s.cloudSends(0, .pubrec(Acknowledgement(id))) }
        }
        s.syncs()
        s.cloudVanishes()
        _ = s.cloudReceived()
        s.cloudConnects(sessionPresent: false)
        let again = s.cloudReceived()
        #expect(again.publishes.map(\.text) == ["b/1"])
        #expect(again.publishes.map(\.duplicate) == [false])
        #expect(again.count == 1)
    }
}

extension Scenario {
    mutating func publishes(
        _ client: String, _ topic: String, _ text: String, qos: QoS = .atLeastOnce, id: UInt16
    ) {
        sends(client, .publish(.text(topic, text, qos: qos, id: PacketIdentifier(rawValue: id))))
    }

    /// The labels of an uplink's lanes beside the first.
    func lanes(of uplink: String = "cloud") -> [String] {
        gateway.state.sessionIDs.compactMap { id in
            guard case .lane(uplink, _, let label) = gateway.state[id]?.owner else { return nil }
            return label
        }.sorted()
    }

    /// How many wait in the lane with this label.
    func waiting(_ label: String, of uplink: String = "cloud") -> Int {
        gateway.state.sessionIDs.reduce(0) { sum, id in
            switch gateway.state[id]?.owner {
            case .uplink(uplink) where label.isEmpty, .lane(uplink, _, label):
                sum + (gateway.state[id]?.queue.waitingCount ?? 0)
            default: sum
            }
        }
    }
}
