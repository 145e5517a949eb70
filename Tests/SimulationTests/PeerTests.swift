import MQTT
import Testing

@testable import Simulation

/// MQTT 5 §4.3 and §4.4, MQTT 3.1.1 §4.3 and §4.4 from the other side: the simulated peers must keep the rules that the
/// gateway is held to, or nothing is proven with them. Whether the gateway keeps its own is the oracle's matter.
@Suite("Simulated peers")
struct PeerTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]

    private static func sensor(_ version: ProtocolVersion) -> ClientPlan {
        var plan = ClientPlan("sensor", author: 1)
        plan.version = version
        plan.publishing = .init(["up/a", "up/b", "home/c"], every: 50_000)
        plan.publishing?.burst = 3
        return plan
    }

    private static func valve(_ version: ProtocolVersion) -> ClientPlan {
        var plan = ClientPlan("valve", author: 2)
        plan.version = version
        plan.receiveMaximum = 3
        for filter in ["down/#", "home/+", "up/a"] {
            plan.subscriptions.append(
                .init(.init(filter: PeerBench.filter(filter), maximumQoS: .exactlyOnce)))
        }
        return plan
    }

    private static func cloud(_ version: ProtocolVersion) -> CloudPlan {
        var plan = CloudPlan(author: 100)
        plan.version = version
        plan.topics = ["down/x", "down/y"]
        plan.publishesEvery = 100_000
        return plan
    }

    /// What `peer` saw of a kind.
    private static func names(
        _ bench: borrowing PeerBench, _ peer: Int, _ pick: (PeerEvent) -> MessageName?
    ) -> [MessageName] {
        bench.events.filter { $0.peer == peer }.compactMap { pick($0.event) }
    }

    /// What `peer` saw accepted once "valve" was subscribed for the first time.
    private static func owed(_ bench: borrowing PeerBench, _ peer: Int) -> [MessageName] {
        let since = bench.events.first {
            if case .subscribed = $0.event { $0.peer == 1 } else { false }
        }
        var begun: Set<MessageName> = []
        return bench.events.filter { $0.peer == peer && $0.at > since?.at ?? .max }.compactMap {
            if case .publishing(let it) = $0.event, !it.duplicate { begun.insert(it.name) }
            return accepted($0.event).flatMap { begun.contains($0) ? $0 : nil }
        }
    }

    private static func accepted(_ event: PeerEvent) -> MessageName? {
        if case .accepted(let name) = event { name } else { nil }
    }

    private static func receivedNew(_ event: PeerEvent) -> MessageName? {
        if case .received(let it) = event, it.isNew { it.name } else { nil }
    }

    private static func broken(_ bench: borrowing PeerBench) -> [String] {
        bench.events.compactMap {
            if case .broken(let words) = $0.event { "\($0.peer): \(words)" } else { nil }
        }
    }

    @Test("All that is accepted arrives, in both directions, when nothing is cut", arguments: versions)
    func quiet(version: ProtocolVersion) {
        var bench = PeerBench(
            clients: [Self.sensor(version), Self.valve(version)], cloud: Self.cloud(version), seed: 1)
        bench.runs(seconds: 20)
        let isQuiet = bench.settles(withinSeconds: 10)
        #expect(isQuiet)
        let broken = Self.broken(bench)
        #expect(broken == [])
        let published = Self.owed(bench, 0)
        #expect(published.count > 100)
        let commands = Self.owed(bench, 2)
        #expect(commands.count > 50)
        let reached = Set(Self.names(bench, 1, Self.receivedNew)).union(
            Self.names(bench, 2, Self.receivedNew))
        #expect(reached.isSuperset(of: published))
        #expect(reached.isSuperset(of: commands))
    }

    @Test(
        "[MQTT5-4.4.0-1] [MQTT311-4.4.0-1] Cut at any byte, all that is accepted arrives, and at QoS 2 once",
        arguments: versions)
    func cut(version: ProtocolVersion) {
        for seed in 1...6 as ClosedRange<UInt64> {
            var bench = PeerBench(
                clients: [Self.sensor(version), Self.valve(version)], cloud: Self.cloud(version), seed: seed)
            bench.cutsOneIn = 40
            for _ in 0..<4 {
                bench.runs(seconds: 8)
                bench.powerFails()
            }
            let isQuiet = bench.settles(withinSeconds: 30)
            #expect(isQuiet, "seed \(seed)")
            let broken = Self.broken(bench)
            #expect(broken == [], "seed \(seed)")
            let cuts = bench.cuts
            #expect(cuts > 5)
            var qos: [MessageName: QoS] = [:]
            for case (_, _, .publishing(let publishing)) in bench.events {
                qos[publishing.name] = publishing.qos
            }
            let published = Self.owed(bench, 0) + Self.owed(bench, 2)
            var reached: Set<MessageName> = []
            for peer in [1, 2] {
                let received = Self.names(bench, peer, Self.receivedNew)
                reached.formUnion(received)
                let twice = Dictionary(grouping: received) { $0 }.filter {
                    $1.count > 1 && qos[$0] == .exactlyOnce
                }
                #expect(twice.isEmpty, "seed \(seed)")
            }
            #expect(Set(published).subtracting(reached) == [], "seed \(seed)")
        }
    }

    @Test("A sensor of MQTT 5 uses Topic Aliases, and comes, goes and begins anew")
    func features() {
        var sensor = Self.sensor(.v5_0)
        sensor.publishing?.usesAliases = true
        sensor.staysFor = 2_000_000
        sensor.cleanStartPercent = 30
        sensor.will = .init("up/will", .exactlyOnce)
        var valve = Self.valve(.v5_0)
        valve.changesSubscriptionsEvery = 500_000
        valve.topicAliasMaximum = 3
        valve.answersWithin = 100_000
        var cloud = Self.cloud(.v5_0)
        cloud.endsConnectionsAfter = 3_000_000
        cloud.forgetsPercent = 30
        cloud.refusesPercent = 5
        cloud.capsQoSPercent = 30
        cloud.receiveMaximum = 4
        cloud.topicAliasMaximum = 2
        cloud.answersWithin = 50_000
        cloud.stuttersPercent = 10
        var bench = PeerBench(clients: [sensor, valve], cloud: cloud, seed: 7)
        bench.cutsOneIn = 100
        bench.runs(seconds: 60)
        let isQuiet = bench.settles(withinSeconds: 30)
        #expect(isQuiet)
        let broken = Self.broken(bench)
        #expect(broken == [])
        func count(_ peer: Int, _ isIt: (PeerEvent) -> Bool) -> Int {
            bench.events.filter { $0.peer == peer && isIt($0.event) }.count
        }
        #expect(count(0) { if case .connected(false, _) = $0 { true } else { false } } > 1)
        #expect(count(0) { if case .leaving = $0 { true } else { false } } > 1)
        #expect(count(1) { if case .unsubscribed = $0 { true } else { false } } > 5)
        #expect(count(2) { $0 == .forgot } > 1)
        #expect(count(2) { if case .refused = $0 { true } else { false } } > 1)
    }

    @Test("Rude clients do each of their rudenesses and harm nobody", arguments: versions)
    func rude(version: ProtocolVersion) {
        var plans = [Self.sensor(version), Self.valve(version)]
        for (i, manner) in ClientPlan.Rudeness.allCases.enumerated() {
            var plan = Self.sensor(version)
            plan.identifier = "rude-\(i)"
            plan.author = UInt16(10 + i)
            plan.manners = [manner]
            plan.expirySeconds = 0
            plan.publishing?.topics = ["rude/a"]
            plan.subscriptions = [.init(.init(filter: PeerBench.filter("home/#"), maximumQoS: .exactlyOnce))]
            plans.append(plan)
        }
        var bench = PeerBench(clients: plans, cloud: Self.cloud(version), seed: 3)
        bench.runs(seconds: 15)
        let isQuiet = bench.settles(withinSeconds: 30)
        #expect(isQuiet)
        let broken = Self.broken(bench).filter { $0.hasPrefix("0:") || $0.hasPrefix("1:") }
        #expect(broken == [])
        let cloud = plans.count
        let reached = Set(Self.names(bench, 1, Self.receivedNew)).union(
            Self.names(bench, cloud, Self.receivedNew))
        let published = Self.owed(bench, 0)
        #expect(reached.isSuperset(of: published))
    }

    @Test("The same seed makes the same life")
    func determinism() {
        func life() -> [PeerEvent] {
            var bench = PeerBench(
                clients: [Self.sensor(.v5_0), Self.valve(.v5_0)], cloud: Self.cloud(.v5_0), seed: 5)
            bench.cutsOneIn = 50
            bench.runs(seconds: 10)
            return bench.events.map(\.event)
        }
        #expect(life() == life())
    }

    @Test("A payload says which message it is, and whether it is whole")
    func names() {
        for name in [MessageName(0, 1), MessageName(65_535, 4_294_967_295)] {
            for padding in [0, 1, 100] {
                var payload = name.payload(padding: padding)
                #expect(MessageName(payload: payload[...]) == name)
                payload[payload.count - 1] ^= 1
                #expect(MessageName(payload: payload[...]) == nil)
                #expect(MessageName(payload: payload.dropLast()) == nil)
            }
        }
        #expect(MessageName(payload: []) == nil)
    }
}
