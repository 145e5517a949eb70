import Foundation
import MQTT
import Testing

@testable import GatewayCore

/// What report by exception saves on a metered link: a generated day of three thermometers that publish every ten
/// seconds, through the gateway with and without a rule, on its own clock.
@Suite("Device profiles: a day of temperatures")
struct TemperatureDayTests {
    /// What a day costs upstream.
    struct Cost: Equatable {
        var messages = 0
        /// Of PUBLISH packets, QoS 0, MQTT 5, without Topic Aliases.
        var bytes = 0
    }

    /// One of each thermometer every ten seconds.
    private static let readings = 3 * 8640

    @Test("Seed 7, every reading, and with a deadband and at least every 15 minutes")
    func figures() throws {
        let whole = try Self.day(deadband: nil)
        #expect(whole.messages == Self.readings)
        let fifth = try Self.day(deadband: 0.2)
        let half = try Self.day(deadband: 0.5)
        let readme = try String(contentsOf: Self.readme, encoding: .utf8)
        for (name, cost) in [("every reading", whole), ("deadband 0.2", fifth), ("deadband 0.5", half)] {
            let row =
                "| \(name) | \(Self.spaced(cost.messages)) messages, \(Self.spaced(cost.bytes / 1000)) kB |"
            let isTold = readme.contains(row)
            #expect(isTold, "the README should say: \(row)")
        }
        #expect(fifth.messages < whole.messages / 5 && half.messages < fifth.messages)
    }

    /// Carries the day through the gateway.
    ///
    /// Checks on the way that who subscribes here gets everything, that what the cloud knows is never off by more than
    /// the deadband nor older than the maximum interval, and that nothing is missing in the counts.
    private static func day(deadband: Double?) throws -> Cost {
        let rule = try deadband.map { band in
            ReportByException(
                filter: try TopicTemplate("sensors/${clientid}/#"),
                value: JSONPointer("/temperature"),
                deadband: .absolute(band), intervalMillisecondsMax: 15 * 60_000)
        }
        var plan = GatewayPlan()
        let everything = UplinkRoutes.Route(
            filter: try #require(TopicFilter("#")), rename: nil, maximumQoS: .exactlyOnce)
        plan.uplinks = [UplinkRoutes(name: "cloud", out: [everything], in: [])]
        var profile = DeviceProfile(
            name: "thermometer", matches: [DeviceMatch(clientIdentifier: Glob("t-*"))])
        profile.reportByException = [rule].compactMap { $0 }
        plan.profiles = [profile]
        var s = Scenario.connected("t-outside", "t-cold", "t-hall", "screen", plan: plan)
        s.subscribes("screen", "#")
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        _ = s.cloudReceived()

        var thermometers = [
            Thermometer(.outside, seed: 7), Thermometer(.coldStore, seed: 7), Thermometer(.hall, seed: 7),
        ]
        let clients = ["t-outside", "t-cold", "t-hall"]
        var cost = Cost()
        var known: [(value: Double, at: Int)?] = [nil, nil, nil]
        var (wrong, missed) = (0, 0)
        for second in stride(from: 0, to: 86_400, by: 10) {
            for i in clients.indices {
                let value = thermometers[i].reading(at: second)
                let payload = #"{"temperature":\#(value),"n":\#(second / 10)}"#
                s.sends(
                    clients[i], .publish(.text("sensors/\(clients[i])/climate", payload)))
                for publish in s.cloudReceived().publishes {
                    cost.messages += 1
                    var bytes: [UInt8] = []
                    Packet.publish(publish).encode(version: .v5_0, into: &bytes)
                    cost.bytes += bytes.count
                    known[i] = (value, second)
                }
                if s.texts("screen") != [payload] { missed += 1 }
                let (latest, at) = try #require(known[i])
                let isNear = (value - latest).magnitude <= (deadband ?? 0) && second - at < 900
                if !isNear { wrong += 1 }
            }
            s.passes(milliseconds: 10_000)
        }
        #expect(wrong == 0, "readings of which the cloud knows less than was promised")
        #expect(missed == 0, "readings that a subscriber here did not get")
        #expect(Int(s.gateway.profileCounts[0].suppressed) + cost.messages == readings)
        #expect(s.gateway.state.balance.isEven)
        return cost
    }

    private static func spaced(_ number: Int) -> String {
        number < 1000 ? "\(number)" : "\(number / 1000) \(String(format: "%03d", number % 1000))"
    }

    private static let readme = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "README.md")
}

/// A thermometer with a resolution of 0.01 degrees and a noise of a few hundredths: the same readings from the same
/// seed.
private struct Thermometer {
    enum Place {
        /// The sun, and weather that wanders.
        case outside
        /// A compressor that keeps it between 2 and 5 degrees, and doors.
        case coldStore
        /// Heated, with two shifts of machines.
        case hall
    }

    private let place: Place
    private var seed: UInt64
    /// What changes from reading to reading.
    private var level: Double
    private var isCooling = false

    init(_ place: Place, seed: UInt64) {
        self.place = place
        self.seed = seed
        level =
            switch place {
            case .outside: 0
            case .coldStore: 4
            case .hall: 19
            }
    }

    /// In degrees; asked for every ten seconds of the day, in order.
    mutating func reading(at second: Int) -> Double {
        let hour = Double(second) / 3600
        var value: Double
        switch place {
        case .outside:
            level += 0.02 * (chance() - 0.5) - 0.0005 * level
            value = 12 + 6 * sin((hour - 9) * .pi / 12) + level
        case .coldStore:
            if level > 5 { isCooling = true } else if level < 2 { isCooling = false }
            level += isCooling ? -0.04 : 0.014
            let isWorking = hour > 6 && hour < 22
            if isWorking, chance() < 0.004 { level += 0.8 * chance() }
            value = level
        case .hall:
            let target = hour > 6 && hour < 22 ? 22.5 : 18.5
            level += (target - level) / 400
            value = level
        }
        value += 0.04 * (chance() + chance() - 1)
        return (value * 100).rounded() / 100
    }

    /// From 0 to 1, by SplitMix64.
    private mutating func chance() -> Double {
        seed &+= 0x9e37_79b9_7f4a_7c15
        var mixed = seed
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return Double((mixed ^ (mixed >> 31)) >> 11) / Double(1 << 53)
    }
}
