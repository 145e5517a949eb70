/// What came of a run.
package struct Outcome: Sendable {
    package var digest: UInt64
    package var statistics: Statistics
    /// Empty when every promise was kept.
    package var violations: [String]
    package var lines: [String]
}

/// What happened, counted.
package struct Statistics: Sendable {
    package var events = 0
    package var microseconds: UInt64 = 0
    package var lives = 0
    package var powerCuts = 0
    package var cutsOfRecovery = 0
    package var kills = 0
    package var faults: [FaultKind: Int] = [:]
    package var connections = 0
    package var bytesToGateway = 0
    package var bytesToPeers = 0
    package var diskSteps = 0
    package var bytesWritten = 0
    package var records = 0
    package var elided = 0
    package var strikes = 0
    package var reused = 0
    package var merged = 0
    package var checkpoints = 0
    package var damage = 0
    package var batches = 0
    package var batchBytes = 0
    package var published = 0
    package var delivered = 0

    package init() {}

    package mutating func add(_ other: Statistics) {
        events += other.events
        microseconds += other.microseconds
        lives += other.lives
        powerCuts += other.powerCuts
        cutsOfRecovery += other.cutsOfRecovery
        kills += other.kills
        faults.merge(other.faults) { $0 + $1 }
        connections += other.connections
        bytesToGateway += other.bytesToGateway
        bytesToPeers += other.bytesToPeers
        diskSteps += other.diskSteps
        bytesWritten += other.bytesWritten
        records += other.records
        elided += other.elided
        strikes += other.strikes
        reused += other.reused
        merged += other.merged
        checkpoints += other.checkpoints
        damage += other.damage
        batches += other.batches
        batchBytes += other.batchBytes
        published += other.published
        delivered += other.delivered
    }

    /// Cuts of every kind.
    package var allPowerCuts: Int { powerCuts + cutsOfRecovery }

    package var lines: [String] {
        let kinds = FaultKind.allCases.compactMap { kind in
            faults[kind].map { "\(kind.rawValue) \($0)" }
        }
        return [
            "\(microseconds / 1_000_000) simulated seconds, \(events) events, \(lives) lives of the gateway, \(connections) connections",
            "\(allPowerCuts) power cuts, \(cutsOfRecovery) of them during recovery; \(kills) kills",
            "\(published) messages accepted, \(delivered) deliveries; \(bytesToGateway) bytes to the gateway, \(bytesToPeers) from it",
            "\(records) records, \(elided) elided; \(diskSteps) steps of the disk, \(batches) commits, \(bytesWritten) bytes written, \(checkpoints) checkpoints, \(reused) files used again, \(merged) merged",
            "\(strikes) disk errors, \(damage) places damaged; faults: \(kinds.joined(separator: ", "))",
        ]
    }
}
