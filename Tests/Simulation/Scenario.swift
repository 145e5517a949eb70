import GatewayCore
import Journal
import MQTT
import Uplink

/// One run, decided by a number: what the gateway is given, who is there and what goes wrong. A value, so that a run
/// that fails can be tried again with less of everything.
package struct Scenario: Sendable {
    package let seed: UInt64
    package var family: Family
    /// How long things go wrong, in simulated seconds.
    package var seconds: Int
    /// Then they stop, too.
    package var cutsMax: Int
    package var faults: [FaultKind]
    /// Places in the cast that stay empty.
    package var absent: [Int] = []

    /// What a run is mostly about.
    package enum Family: String, Hashable, Sendable, CaseIterable {
        /// Everything a little.
        case mixed
        /// Receivers are here and quick: most messages are never written.
        case elision
        /// Segments are small and much lasts long.
        case compaction
        /// Queues that do not fit in memory.
        case paging
        /// Groups that share subscriptions.
        case shared
        /// The cloud and its troubles.
        case uplink
        /// A disk that is full again and again.
        case full
        /// Pages that go bad.
        case damage
        /// Time that nobody knows.
        case clocks
        /// Everybody comes and goes.
        case storms
    }

    package init(seed: UInt64) {
        self.seed = seed
        family = Family.allCases[Int(seed % UInt64(Family.allCases.count))]
        var dice = Dice(seed ^ 0x5CE4_A810)
        seconds = 60 + dice.below(300)
        cutsMax = 20 + dice.below(180)
        faults = Self.faults(family, &dice)
    }

    private static func faults(_ family: Family, _ dice: inout Dice) -> [FaultKind] {
        FaultKind.allCases.filter { kind in
            // Drawn for each, so that the families differ in nothing else.
            let chance = dice.below(100)
            switch kind {
            case .powerCut: return chance < 95
            case .stepCut: return chance < 90
            case .recoveryCut: return chance < 70
            case .kill, .stop: return chance < 50
            case .linkCut: return chance < 70
            case .halfOpen, .blackHole: return chance < 50
            case .storm: return family == .storms || chance < 20
            case .outage: return chance < (family == .uplink ? 80 : 40)
            case .stall: return chance < 50
            case .diskError: return family != .damage && chance < 30
            case .fullDisk: return family == .full
            case .rot: return family == .damage && chance < 60
            case .neighbour: return family == .damage && (chance >= 40)
            case .noClock: return chance < (family == .clocks ? 90 : 30)
            case .wrongClock: return chance < (family == .clocks ? 50 : 5)
            case .suspend: return chance < (family == .clocks ? 50 : 10)
            }
        }
    }

    package func has(_ kind: FaultKind) -> Bool { faults.contains(kind) }

    /// What reproduces it.
    package var arguments: String {
        var words = ["--seed \(seed)"]
        let plain = Scenario(seed: seed)
        if seconds != plain.seconds { words.append("--seconds \(seconds)") }
        if cutsMax != plain.cutsMax { words.append("--cuts-max \(cutsMax)") }
        let without = plain.faults.filter { !has($0) }.map(\.rawValue)
        if !without.isEmpty { words.append("--without " + without.joined(separator: ",")) }
        if !absent.isEmpty { words.append("--absent " + absent.map(String.init).joined(separator: ",")) }
        return words.joined(separator: " ")
    }

    // MARK: What the gateway is given

    func journalPlan() -> JournalPlan {
        var dice = Dice(seed ^ 0x10AD_F00D)
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
                CommitPlan(windowMilliseconds: 0, commitsPerSecond: 100, burst: 100), .latency, .balanced,
                CommitPlan(windowMilliseconds: 1000, commitsPerSecond: 1, burst: 2),
            ][family == .elision ? 2 : dice.below(4)]
        if family == .compaction {
            // Header and footer take so much of a merged file that nothing is gained where segments are shorter.
            plan.segmentBytes = 64 << 10
            plan.checkpointGrowthBytes = [24 << 10, 64 << 10][dice.below(2)]
            plan.compactionSlackBytes = 16 << 10
            plan.compactionLookMilliseconds = 500
        }
        if dice.coin() { plan.reserveBytes = 8 << 10 }
        if family == .full {
            // In the product's proportions: what is written while there is no room for messages fits many times into
            // what is kept free for it.
            plan.segmentBytes = 64 << 10
            plan.reserveBytes = plan.segmentBytes
            plan.checkpointSegments = 4
            plan.pressureCheckMilliseconds = 200
            plan.pressureCheckpointMilliseconds = 300
            plan.commits = .balanced
        }
        return plan
    }

    /// Bytes of the disk; nil for more than is ever needed.
    var capacity: Int? { has(.fullDisk) ? journalPlan().segmentBytes * (9 + Int(seed / 10 % 5)) : nil }
    /// By how many Records it is counted what is owed, as a power of two: in the product's proportions to a segment, and
    /// now and then as in the product.
    var blockBits: UInt64 { seed % 11 == 0 && family != .full ? 10 : 2 }
    /// Whether the file system is one on which files are used again.
    var recycles: Bool { seed % 5 != 0 }

    func gatewayPlan() -> GatewayPlan {
        var dice = Dice(seed ^ 0x6A7E_0001)
        var plan = GatewayPlan()
        plan.limits.queueEntriesMax = [0, 2, 8, 1000][family == .paging ? dice.below(3) : dice.below(4)]
        plan.limits.identifierSpan = [8, 64, PacketIdentifierRule.whole.span][dice.below(3)]
        plan.limits.residentBytesMax =
            [100, 1000, 64 << 10][family == .paging ? dice.below(2) : dice.below(3)]
        plan.limits.residentBytesOfAbsentMax = [20, 4 << 10][dice.below(2)]
        plan.limits.loadedAtOnceMax = [3, 256][dice.below(2)]
        plan.limits.lazyAcknowledgementsMax = [3, 2000][dice.below(2)]
        plan.limits.lazyAcknowledgementMilliseconds = [50, 1000][dice.below(2)]
        plan.limits.inFlightMax = [2, 10, 100][dice.below(3)]
        plan.limits.bytesPerRoundMax = [2 << 10, 128 << 10][dice.below(2)]
        plan.limits.returnGraceMilliseconds = [1000, 30_000][dice.below(2)]
        plan.uplinks = [routes]
        plan.profiles = profiles
        if family == .paging || family == .storms {
            // Identifiers go round soon.
            plan.limits.identifierSpan = 8
            plan.limits.inFlightMax = 10
        }
        return plan
    }

    /// Classes of device whose messages are kept in other ways, now and then: nobody gets anything else for it.
    private var profiles: [DeviceProfile] {
        var dice = Dice(seed ^ 0xDE_71CE)
        guard dice.below(3) == 0 else { return [] }
        return ["p*", "meter", "b*"].map { pattern in
            var profile = DeviceProfile(
                name: "class \(pattern)", matches: [DeviceMatch(clientIdentifier: Glob(pattern))])
            profile.durability = [nil, .latency, .balanced, .flashSaver][dice.below(4)]
            profile.receiveMaximum = [nil, 2, 20][dice.below(3)]
            let burst = UInt32(1 + dice.below(10))
            profile.rate = dice.coin() ? PublishRate(messagesPerSecond: 5, messagesBurst: burst) : nil
            profile.uplink.priority = [nil, .high, .low][dice.below(3)]
            profile.keepAliveSecondsMax = dice.coin() ? 10 : nil
            return profile
        }
    }
}
