import GatewayCore
import MQTT
import Testing

@testable import Journal

/// Every call of the disk fails in turn under a whole gateway: what a client was told is kept, and the trouble ends
/// with the fault.
@Suite("A gateway on a failing disk")
struct ServingFailingDisksTests {
    static let receivers = ["a", "b"]

    struct Trial: CustomStringConvertible {
        var errorNumber: Int32
        var times: Int
        var description: String { "errno \(errorNumber), \(times) times" }
    }

    static let trials = [Fault.noSpace, Fault.broken, Fault.readOnly, Fault.noDescriptor].flatMap { number in
        [1, 30].map { Trial(errorNumber: number, times: $0) }
    }

    /// Two Sessions that are away, and a few messages for them.
    static func begun() throws -> Estate {
        var disk = FaultDisk(formatted: try #require(testStore))
        disk.space = FileSystemSpace(free: 1 << 30, total: 2 << 30)
        var house = try House.starting(on: disk)
        for (client, qos) in zip(receivers, [QoS.atLeastOnce, .exactlyOnce]) {
            try house.connects(client)
            try house.subscribes(client, "#", qos)
            try house.leaves(client)
        }
        try house.connects("p", expiry: 0)
        try house.publishes("p", "begun", .exactlyOnce, to: receivers)
        return house.estate
    }

    /// Work with checkpoints and deletions, in which the `call`-th call of the disk fails.
    ///
    /// - Returns: whether there were so many calls.
    private static func work(_ trial: Trial, failing call: Int, on estate: Estate) throws -> Bool {
        var house = try House.starting(on: estate.disk, ledger: estate.ledger)
        house.change { disk in
            disk.fault = Fault(after: call, errorNumber: trial.errorNumber, times: trial.times)
        }
        try house.connects("p", expiry: 0)
        for n in 0..<12 {
            try house.publishes(
                "p", "m\(n)", n % 2 == 0 ? .atLeastOnce : .exactlyOnce, padding: 3000, to: receivers)
            try house.passes(milliseconds: 1500)
            if n == 5 {
                try house.connects("a")
                try house.leaves("a")
                try house.passes(milliseconds: 2000)
            }
            if n % 4 == 3 { try house.checkpoints() }
        }
        let struck = house.disk.strikes > 0
        house.change { $0.fault = nil }
        for _ in 0..<3 { try house.passes(milliseconds: 60_000) }
        // It takes messages again without a restart.
        try house.publishes("p", "after", .exactlyOnce, to: receivers)
        #expect(house.ledger.owed["a"]?.contains("after") ?? false, "call \(call)")
        #expect(house.disk.abused.isEmpty, "call \(call)")
        #expect(house.damagedDeliveries.isEmpty, "call \(call)")
        var next = try house.restarted()
        #expect(!next.recovered.report.isDamaged, "call \(call)")
        for receiver in receivers {
            try next.connects(receiver)
            #expect(next.ledger.sessionPresent[receiver] == true, "call \(call)")
            let missing = (next.ledger.owed[receiver] ?? []).subtracting(next.ledger.had[receiver] ?? [])
            #expect(missing.isEmpty, "call \(call)")
        }
        return struck
    }

    @Test("each call in turn fails: nobody misses what was acknowledged", arguments: trials)
    func everyCall(trial: Trial) throws {
        let estate = try Self.begun()
        var call = 0
        while try Self.work(trial, failing: call, on: estate) { call += 1 }
        #expect(call > 50)
    }

    @Test("each call of recovery in turn fails: it starts, or says why, and nothing is lost by trying again")
    func everyCallOfRecovery() throws {
        for ending in ServingDamagedStoresTests.Ending.allCases {
            let sample = try ServingDamagedStoresTests.sample(ending)
            var call = 0
            var refusals = 0
            while true {
                var disk = sample.disk
                disk.recoveryFault = (call, isLasting: false)
                var probe = disk
                do {
                    _ = try Recovery.recover(&probe) { _, _ in }
                    if probe.recoveryFault != nil { break }
                    try ServingDamagedStoresTests.serve(disk, sample, lost: [], "call \(call), \(ending)")
                } catch let error as RecoveryError {
                    guard case .unreadable = error else { throw error }
                    refusals += 1
                    disk.recoveryFault = nil
                    try ServingDamagedStoresTests.serve(disk, sample, lost: [], "call \(call), \(ending)")
                }
                call += 1
            }
            #expect(call > 30 && refusals > 0 && refusals < call)
        }
    }

    @Test("a disk that gives nothing for half a minute while it is recovered costs nothing")
    func recoveryWaits() throws {
        for ending in ServingDamagedStoresTests.Ending.allCases {
            let sample = try ServingDamagedStoresTests.sample(ending)
            var untroubled = sample.disk
            let whole = try Recovery.recover(&untroubled) { _, _ in }
            var (call, waits) = (0, 0)
            while true {
                var disk = sample.disk
                disk.recoveryFault = (call, isLasting: true)
                var seconds: UInt32 = 0
                var patient = PatientReader(disk) {
                    seconds += $1
                    if seconds > 30 { $0.recoveryFault = nil }
                }
                do {
                    let recovered = try Recovery.recover(&patient) { _, _ in }
                    #expect(recovered == whole, "call \(call), \(ending)")
                    if seconds == 0 { break }
                    waits += 1
                } catch {
                    // What is not a read is tried again by whoever supervises the process.
                    guard case .unreadable = error else { throw error }
                }
                call += 1
            }
            #expect(waits > 10, "\(ending)")
        }
    }
}
