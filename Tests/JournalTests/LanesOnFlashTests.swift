import GatewayCore
import MQTT
import Testing

@testable import Journal

/// An uplink with several lanes on a disk that loses power: what was promised arrives, at QoS 2 once, whatever the
/// configuration has become meanwhile.
@Suite("Lanes on flash")
struct LanesOnFlashTests {
    private static let topics = ["x/0", "x/1", "x/2", "x/3"]

    /// One of four configurations of the same topics.
    private static func plan(_ variant: Int) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.limits.queueEntriesMax = 8
        plan.limits.residentBytesMax = 2000
        plan.limits.residentBytesOfAbsentMax = 500
        plan.limits.identifierSpan = 16
        plan.limits.lazyAcknowledgementsMax = 6
        plan.limits.liveMessagesMax = 4
        var routes: [UplinkRoutes.Route] = []
        for (n, topic) in topics.enumerated() {
            guard let filter = TopicFilter(topic) else { continue }
            var route = UplinkRoutes.Route(filter: filter, rename: nil, maximumQoS: .exactlyOnce)
            switch (variant % 4, n) {
            case (1, 0), (2, 1): route.priority = .high
            case (1, 1): route.isLiveFirst = true
            case (2, 2), (3, 0):
                route.priority = .low
                route.isLiveFirst = true
            case (3, _): route.queue = QueueBounds(bytesMax: 1 << 20)
            default: break
            }
            routes.append(route)
        }
        plan.uplinks = [UplinkRoutes(name: "cloud", out: routes, in: [])]
        if variant % 4 == 1 { plan.uplinks[0].drain = .init(messagesPerSecond: 1000) }
        return plan
    }

    private static func freshDisk() throws -> FaultDisk {
        var disk = FaultDisk(formatted: try #require(testStore))
        disk.space = FileSystemSpace(free: 1 << 30, total: 2 << 30)
        return disk
    }

    @Test(
        "A2, A5, A6, A7: through power cuts between any two steps of the disk, and changed configurations",
        arguments: 0..<60)
    func powerCuts(seed: Int) throws {
        var dice = Dice(UInt64(seed + 500))
        var plan = House.plan()
        if seed % 2 == 0 { plan.commits = .balanced }
        var house = try House.starting(on: Self.freshDisk(), plan: plan, gateway: Self.plan(seed))
        var number = 0
        for _ in 0..<6 {
            house.change { $0.stepsLeft = 20 + dice.below(400) }
            do {
                try house.connects("p", expiry: 0)
                for _ in 0..<30 { try Self.step(&house, &dice, &number) }
            } catch is PowerCut {}
            house.change { disk in
                disk.losePower(&dice)
                disk.stepsLeft = .max
            }
            house = try house.restarted(with: Self.plan(dice.below(4)))
        }
        for _ in 0..<20 {
            try house.cloudConnects()
            try house.passes(milliseconds: 2000)
        }
        let (owed, had) = (house.ledger.owed["cloud"] ?? [], house.ledger.had["cloud"] ?? [])
        #expect(owed.subtracting(had) == [])
        #expect(owed.count > 5)
        let twice = Dictionary(house.ledger.cloud.got.map { ($0, 1) }, uniquingKeysWith: +)
            .filter { $0.key.hasPrefix("two") && $0.value > 1 }
        #expect(twice == [:])
        let balance = house.gateway.state.balance
        #expect(balance.isEven && balance.queued == 0)
    }

    private static func step(_ house: inout House, _ dice: inout Dice, _ number: inout Int) throws {
        switch dice.below(12) {
        case 0...6:
            number += 1
            let isTwo = dice.below(2) == 0
            try house.publishes(
                "p", "\(isTwo ? "two" : "one")-\(number)", isTwo ? .exactlyOnce : .atLeastOnce,
                topic: topics[dice.below(4)], padding: dice.below(900), to: ["cloud"])
        case 7: try house.cloudConnects(receiveMaximum: UInt16(1 + dice.below(5)))
        case 8: house.cloudVanishes()
        case 9: try house.passes(milliseconds: UInt64(dice.below(3000)))
        case 10: try house.checkpoints()
        default: try house.reconfigures(plan(dice.below(4)))
        }
    }

    @Test(
        "P3: bounded queues in pages lose what their policy says, counted, and the audit of the log agrees",
        arguments: [QueueBounds.WhenFull.dropOldest, .dropNewest])
    func bounded(policy: QueueBounds.WhenFull) throws {
        var plan = Self.plan(0)
        plan.uplinks[0].out[0].queue = QueueBounds(messagesMax: 40, whenFull: policy)
        plan.uplinks[0].out[1].queue = QueueBounds(bytesMax: 30_000, whenFull: policy)
        var house = try House.starting(on: Self.freshDisk(), gateway: plan)
        try house.connects("p", expiry: 0)
        for n in 0..<300 {
            try house.publishes(
                "p", "m\(n)", .atLeastOnce, topic: Self.topics[n % 3], padding: 400, to: [])
            if n % 40 == 0 { try house.passes(milliseconds: 2000) }
            if n == 150 {
                try house.passes(milliseconds: 6000)
                house = try house.restarted()
                try house.connects("p", expiry: 0)
            }
        }
        try house.passes(milliseconds: 5000)
        let live = house.gateway.state.balance
        #expect(live.isEven)
        #expect(live.books.received == 300)
        #expect(live.books.dropped(.queueFull) == 300 - live.queued)
        #expect((40 + 60 + 100...40 + 75 + 100).contains(live.queued))
        var disk = house.disk
        var audit = Audit()
        var state = DurableState()
        _ = try Inspection.inspect(
            &disk,
            recovered: { record, position in
                state.apply(record, at: position)
                audit.recovered(record)
            }, found: { audit.inLog($0.record) })
        #expect(state.balance == live)
        #expect(audit.result(state).isEven)
        house = try house.restarted()
        for _ in 0..<10 {
            try house.cloudConnects()
            try house.passes(milliseconds: 2000)
        }
        #expect(UInt64(house.ledger.cloud.got.count) == live.queued)
        #expect(house.gateway.state.balance.queued == 0)
        let first = house.ledger.cloud.got.filter { Int($0.dropFirst()).map { $0 % 3 == 0 } ?? false }
        #expect(first.first == (policy == .dropOldest ? "m180" : "m0"))
        #expect(first.count == 40)
    }
}
