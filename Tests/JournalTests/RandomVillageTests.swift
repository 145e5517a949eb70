@testable import GatewayCore
import MQTT
import Testing

@testable import Journal

/// Core, journal and disk together, and everything at random: when the disk works, when its answers are heard, when links
/// and power fail, also while a start is under way. Queues are paged, files used again and merged, Records elided.
///
/// Damage is not among it: `ServingDamagedStoresTests` has that.
@Suite("A gateway and its clients at random")
struct RandomVillageTests {
    @Test("nothing acknowledged is lost, nothing at QoS 2 is doubled, the books balance", arguments: 1...60)
    func lives(seed: Int) throws {
        // Long enough, now and then, for files to be used again: that takes a thousand settled Records.
        #expect(try Self.faults(UInt64(seed), steps: seed % 20 == 0 ? 5000 : 700) == [])
    }

    @Test("the same with a directory that is never synced is noticed: the test can fail")
    func theTestCanFail() throws {
        var faults: [String] = []
        for seed in 1...40 as ClosedRange<UInt64> where faults.isEmpty {
            faults = try Self.faults(seed, steps: 700) { $0.skipsDirectorySync = true }
        }
        #expect(!faults.isEmpty)
    }

    private static func faults(
        _ seed: UInt64, steps: Int, breaking: (inout FaultDisk) -> Void = { _ in }
    ) throws -> [String] {
        var life = try Life(seed: seed)
        life.village.change(breaking)
        try life.run(steps: steps)
        try life.settle()
        return life.village.faults
    }
}

/// One seed's village, from its first day to the last.
struct Life: ~Copyable {
    var village: Village
    private let isFaulty: Bool
    private let elides: Bool
    private let sizeMax: Int

    init(seed: UInt64) throws {
        var dice = Dice(seed &* 0x9E37_79B9)
        isFaulty = seed % 4 == 3
        elides = seed % 3 == 0
        sizeMax = [100, 3000, 9000][dice.below(3)]
        let store = try #require(testStore)
        village = try Village(
            store: store, plan: Self.plan(&dice), corePlan: Self.corePlan(&dice),
            people: Self.people(shares: !elides), dice: dice)
    }

    private static func plan(_ dice: inout Dice) -> JournalPlan {
        var plan = JournalPlan()
        plan.segmentBytes = [16 << 10, 32 << 10, 64 << 10][dice.below(3)]
        plan.batchBytesMax = 12 << 10
        plan.checkpointGrowthBytes = [24 << 10, 64 << 10, 256 << 10][dice.below(3)]
        plan.checkpointGrowthFactor = 1
        plan.checkpointSegments = 4 + dice.below(20)
        plan.compactionSlackBytes = [16 << 10, 64 << 10][dice.below(2)]
        plan.compactionBytesPerSecond = 1 << 20
        plan.freeSegmentsMax = dice.below(4)
        plan.commits =
            [
                CommitPlan(windowMilliseconds: 0, commitsPerSecond: 100, burst: 100), .balanced,
                CommitPlan(windowMilliseconds: 1000, commitsPerSecond: 1, burst: 2),
            ][dice.below(3)]
        if dice.coin() { plan.reserveBytes = 8 << 10 }
        return plan
    }

    private static func corePlan(_ dice: inout Dice) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.limits.queueEntriesMax = [0, 2, 8, 1000][dice.below(4)]
        plan.limits.identifierSpan = [8, 64][dice.below(2)]
        plan.limits.residentBytesMax = [100, 8000][dice.below(2)]
        plan.limits.residentBytesOfAbsentMax = 20
        plan.limits.loadedAtOnceMax = 3
        plan.limits.lazyAcknowledgementsMax = 3
        if let out = TopicFilter("t/#"), let `in` = TopicFilter("c/#") {
            plan.uplinks = [
                UplinkRoutes(
                    name: "cloud", out: [.init(filter: out, rename: nil, maximumQoS: .exactlyOnce)],
                    in: [.init(filter: `in`, rename: nil, maximumQoS: .exactlyOnce)])
            ]
        }
        return plan
    }

    private static func people(shares: Bool) -> [Villager] {
        func villager(_ name: String, _ change: (inout Villager) -> Void) -> Villager {
            var villager = Villager(name)
            change(&villager)
            return villager
        }
        return [
            villager("press") { $0.topic = "t/press" },
            villager("old") {
                $0.topic = "t/old"
                $0.version = .v3_1_1
            },
            villager("archive") {
                $0.subscription = ("#", .exactlyOnce)
                $0.receiveMaximum = 4
            },
            villager("screen") {
                $0.subscription = ("+/#", .atLeastOnce)
                $0.version = .v3_1_1
            },
            villager("left") { if shares { $0.subscription = ("$share/w/#", .exactlyOnce) } },
            villager("right") { if shares { $0.subscription = ("$share/w/#", .exactlyOnce) } },
            villager("cloud") {
                $0.isCloud = true
                $0.topic = "c/cloud"
            },
        ]
    }

    // MARK: Living

    mutating func run(steps: Int) throws {
        // Everybody is here before the first message comes, so that it is known what everybody is owed.
        for i in village.people.indices { village.connects(i) }
        try settleDown(rounds: 8)
        cutSoon()
        for _ in 0..<steps where village.faults.isEmpty {
            do { try step() } catch is PowerCut {
                try village.losePower(isKilled: false)
                cutSoon()
            }
        }
    }

    private mutating func cutSoon() {
        let steps = village.dice.below([60, 400, 3000][village.dice.below(3)])
        village.change { $0.stepsLeft = steps }
    }

    private mutating func step() throws {
        let who = village.dice.below(village.people.count)
        switch village.dice.below(64) {
        case 0...13:
            let qos: QoS = village.dice.below(elides ? 6 : 2) == 0 ? .exactlyOnce : .atLeastOnce
            let size = village.dice.below(sizeMax)
            village.publishes(
                [0, 1, village.people.count - 1][village.dice.below(3)], qos,
                retain: village.dice.below(12) == 0, padding: size)
        case 14...17 where elides: for i in village.people.indices { village.hears(i) }
        case 14...31: village.hears(who, 1 + village.dice.below(6))
        case 32...39: try village.diskWorks(1 + village.dice.below(4))
        case 40...49: village.diskAnswers()
        case 50...53: village.passes(milliseconds: UInt64(village.dice.below(400)))
        case 54: village.passes(milliseconds: UInt64(village.dice.below(12_000)))
        case 55...57: village.connects(who)
        case 58: village.cutsOff(who)
        case 59: if village.dice.below(3) == 0 { village.wantsCheckpoint() }
        case 60: if village.dice.below(6) == 0 { try village.losePower(isKilled: true) }
        case 61: if isFaulty, village.dice.below(3) == 0 { breakSomething() }
        default: village.round()
        }
    }

    private mutating func breakSomething() {
        let kinds = Fault.Kind.allCases.filter { $0 != .read }
        let fault = Fault(
            after: village.dice.below(20), errorNumber: [Fault.noSpace, Fault.broken][village.dice.below(2)],
            kind: kinds[village.dice.below(kinds.count)], times: 1 + village.dice.below(4))
        village.change { $0.fault = fault }
    }

    /// Everything goes well for a while.
    private mutating func settleDown(rounds: Int) throws {
        for _ in 0..<rounds {
            for i in village.people.indices { village.hears(i) }
            village.round()
            try village.diskWorks()
            village.diskAnswers()
            village.passes(milliseconds: 300)
        }
    }

    /// Everybody comes back, and all goes well until nothing is left to say; then the ledger is read.
    mutating func settle() throws {
        guard village.faults.isEmpty else { return }
        village.change {
            $0.stepsLeft = .max
            $0.fault = nil
        }
        try settleDown(rounds: 3)
        village.passes(milliseconds: 70_000)
        returnAll()
        for _ in 0..<400 {
            try settleDown(rounds: 20)
            returnAll()
            if isQuiet { break }
        }
        try settleDown(rounds: 20)
        checkLedgers()
        checkRetained()
        if village.gateway.state.owes(from: Position(1), through: village.gateway.lastPosition) {
            village.faults.append("something is owed yet")
        }
        try village.losePower(isKilled: true)
    }

    private mutating func returnAll() {
        for i in village.people.indices where !village.people[i].isReady {
            village.connects(i)
        }
    }

    private var isQuiet: Bool {
        village.people.indices.allSatisfy {
            village.people[$0].inFlight.isEmpty && village.people[$0].inbox.isEmpty
        } && !village.gateway.state.owes(from: Position(1), through: village.gateway.lastPosition)
    }

    // MARK: Checking

    private mutating func checkLedgers() {
        var published: [Villager.Sent] = []
        for person in village.people {
            if !person.inFlight.isEmpty { village.faults.append("\(person.name) still waits") }
            published += person.published
        }
        for person in village.people where person.subscription != nil || person.isCloud {
            if person.subscription?.filter.hasPrefix("$share") == true { continue }
            let owed = published.filter { !person.isCloud || $0.topic.hasPrefix("t/") }
            check(
                person.name, person.received, owed, isOnce: person.subscription?.qos != .atLeastOnce,
                // What was refused for want of room, unheard, may be taken when it is sent again, behind later ones.
                inOrder: !isFaulty)
        }
        guard !elides else { return }
        let shared = village.people.filter { $0.subscription?.filter.hasPrefix("$share") == true }
        check("the workers", shared.flatMap(\.received), published, isOnce: true, inOrder: false)
    }

    private mutating func check(
        _ name: String, _ received: [String], _ owed: [Villager.Sent], isOnce: Bool, inOrder: Bool
    ) {
        var count: [String: Int] = [:]
        for text in received { count[text, default: 0] += 1 }
        for message in owed {
            let times = count[message.text] ?? 0
            if times == 0 { village.faults.append("\(name) lost \(message.text)") }
            if times > 1, isOnce, message.qos == .exactlyOnce {
                village.faults.append("\(name) got \(message.text) \(times) times")
            }
        }
        guard inOrder else { return }
        // As each came first: on one topic at one QoS, in the order of publishing [MQTT5-4.6.0-5].
        var last: [String: Int] = [:]
        var seen: Set<String> = []
        let topics = Dictionary(uniqueKeysWithValues: owed.map { ($0.text, $0.topic) })
        for text in received where seen.insert(text).inserted {
            let parts = text.split(separator: "-")
            guard parts.count == 3, let number = Int(parts[2]), let topic = topics[text] else { continue }
            let line = "\(topic) \(parts[1])"
            if let before = last[line], number < before {
                village.faults.append("\(name) got \(text) behind \(before)")
            }
            last[line] = number
        }
    }

    /// The last retained message of each publisher that was accepted is what is retained.
    private mutating func checkRetained() {
        for person in village.people {
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                guard let last = person.published.last(where: { $0.retain && $0.qos == qos }) else {
                    continue
                }
                let retained = village.gateway.state.retained[Array(last.topic.utf8)[...]]
                let text = retained.map {
                    String(decoding: $0.message.payload.prefix { $0 != 32 }, as: UTF8.self)
                }
                let refused = person.refused.filter { $0.topic == last.topic }.map(\.text)
                if text != last.text, !refused.contains(text ?? "") {
                    village.faults.append("\(last.topic) retains \(text ?? "nothing"), not \(last.text)")
                }
            }
        }
    }
}
