import Workbench

/// What happens when in a drill, all of it decided by the seed.
struct Schedule {
    enum Event: Equatable {
        case cut
        /// The line is cut in the middle of whatever passes then.
        case cutAfter(bytes: Int, CuttableLink.Direction)
        /// Nothing moves and nothing is refused.
        case blackHole
        /// 2 KB/s with a round trip of 600 ms.
        case slow
        /// Ends what one of these began.
        case restore
        /// The cloud broker is SIGKILLed, and perhaps loses its disk too.
        case cloudKill(forgets: Bool)
        case cloudStart
        case kill
        case start
        case deviceLeaves(Int, abruptly: Bool)
        case deviceReturns(Int)
    }

    /// Seconds after the drill's start, ascending.
    let events: [(at: Double, event: Event)]

    /// The shortest drill in which three cuts of five seconds, three kills and the recoveries between fit.
    static let secondsMin = 45

    /// The time is divided into spells of some 20 seconds. Each has a cut of the uplink and a kill of the
    /// gateway, which falls by turns into the cut, into the draining after it, or into steady flow; some kills
    /// are followed by another as soon as the gateway is back.
    init(seconds: Int, devices: Int, seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let events =
            Self.cutsAndKills(seconds: seconds, &random)
            + Self.departures(of: devices, seconds: seconds, &random)
        self.events = events.sorted { $0.at < $1.at }
    }

    /// The shortest drill in which every kind of trouble with the cloud comes once.
    static let stormSecondsMin = 90

    /// Every kind of trouble that an uplink can have, one after the other in an order that the seed decides, and the
    /// gateway killed in every other one.
    init(stormSeconds seconds: Int, devices: Int, seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var events: [(at: Double, event: Event)] = []
        let all: [(start: Event, end: Event)] = [
            (.cut, .restore),
            (.cutAfter(bytes: .random(in: 1...4000, using: &random), .towardsTarget), .restore),
            (.cutAfter(bytes: .random(in: 1...4000, using: &random), .fromTarget), .restore),
            (.blackHole, .restore), (.slow, .restore), (.cloudKill(forgets: false), .cloudStart),
            (.cloudKill(forgets: true), .cloudStart),
        ]
        let spells = max(all.count, seconds / 12)
        let length = Double(seconds) / Double(spells)
        var coming: [(start: Event, end: Event)] = []
        for spell in 0..<spells {
            if coming.isEmpty { coming = all.shuffled(using: &random) }
            let trouble = coming.removeFirst()
            let beginsAt = Double(spell) * length + .random(in: 1.0...2.0, using: &random)
            let endsAt = beginsAt + .random(in: 0.4...0.6, using: &random) * length
            events += [(beginsAt, trouble.start), (endsAt, trouble.end)]
            guard spell % 2 == 0 else { continue }
            // Before the end of the trouble, or just after it.
            let killAt = Double.random(in: beginsAt...(endsAt + 0.8), using: &random)
            events += [(killAt, .kill), (killAt + .random(in: 0.1...0.8, using: &random), .start)]
        }
        events += Self.departures(of: devices, seconds: seconds, &random)
        self.events = events.sorted { $0.at < $1.at }
    }

    private static func cutsAndKills(
        seconds: Int, _ random: inout SplitMix64
    ) -> [(at: Double, event: Event)] {
        var events: [(at: Double, event: Event)] = []
        let spells = max(3, seconds / 20)
        let length = Double(seconds) / Double(spells)
        let firstKind = Int.random(in: 0..<3, using: &random)
        for spell in 0..<spells {
            let cutAt = Double(spell) * length + .random(in: 1.0...2.0, using: &random)
            let restoreAt = cutAt + .random(in: 5.1...7.0, using: &random)
            events += [(cutAt, .cut), (restoreAt, .restore)]
            var killAt: Double
            switch (spell + firstKind) % 3 {
            case 0: killAt = cutAt + .random(in: 0.5...3.0, using: &random)
            case 1: killAt = restoreAt + .random(in: 0.2...0.8, using: &random)
            default: killAt = restoreAt + .random(in: 2.5...4.0, using: &random)
            }
            let kills = Bool.random(using: &random) ? 2 : 1
            for _ in 0..<kills {
                let startAt = killAt + .random(in: 0.1...1.0, using: &random)
                events += [(killAt, .kill), (startAt, .start)]
                killAt = startAt + .random(in: 0.3...0.6, using: &random)
            }
        }
        return events
    }

    private static func departures(
        of devices: Int, seconds: Int, _ random: inout SplitMix64
    ) -> [(at: Double, event: Event)] {
        var events: [(at: Double, event: Event)] = []
        for device in 0..<devices {
            var time = Double.random(in: 2.0...5.0, using: &random)
            while time < Double(seconds) - 3 {
                events.append((time, .deviceLeaves(device, abruptly: .random(using: &random))))
                time += .random(in: 1.5...5.0, using: &random)
                events.append((time, .deviceReturns(device)))
                time += .random(in: 4.0...9.0, using: &random)
            }
        }
        return events
    }
}
