import GatewayCore
import Testing

@testable import Journal

@Suite("Power cuts")
struct PowerCutTests {
    /// One life after another, each ended by a power cut between two steps of the disk or by a kill.
    ///
    /// - Parameter eliding: messages are elided as receivers get them, in any order.
    static func live(
        _ seed: UInt64, plan: JournalPlan = Rig.smallPlan(), eliding: Bool = false,
        breaking: (inout FaultDisk) -> Void = { _ in }
    ) throws {
        var dice = Dice(seed)
        var plan = plan
        if seed % 4 == 1 { plan.reserveBytes = 16 << 10 }
        var rig = try Rig(try #require(testStore), plan: plan, recycles: seed % 2 == 1)
        breaking(&rig.disk)
        for _ in 0..<5 {
            rig.disk.stepsLeft = dice.below(150)
            let isKilled = dice.below(4) == 0
            do {
                for _ in 0..<60 {
                    for _ in 0..<dice.below(6) {
                        if eliding, dice.coin() {
                            rig.append(
                                Samples.plain(
                                    "e", delivery: rig.nextDelivery, payload: dice.bytes(upTo: 2000)),
                                .elidable)
                        } else {
                            rig.appendSomething(&dice)
                        }
                    }
                    rig.now = rig.now.advanced(byMilliseconds: UInt64(dice.below(eliding ? 200 : 2000)))
                    if eliding {
                        let recent = UInt64(max(1, rig.history.count - 12))..<UInt64(rig.history.count)
                        rig.elide(
                            recent.filter { number in
                                guard case .message = rig.history[Int(number)].record else { return false }
                                return dice.below(4) == 0
                            })
                    }
                    rig.journal.tick(at: rig.now)
                    if rig.journal.wantsCheckpoint || dice.below(30) == 0 {
                        rig.journal.beginCheckpoint(of: rig.ledger, at: rig.now)
                    }
                    for _ in 0..<dice.below(4) { _ = try rig.work() }
                }
            } catch is PowerCut {
                rig.collect()
            }
            if !isKilled { rig.disk.losePower(&dice) }
            rig.disk.stepsLeft = .max
            try rig.restart()
            try rig.checkIndexes()
            try rig.loadAllOwed()
        }
    }

    @Test("what was promised is there, and nothing that never was", arguments: 0..<400)
    func promisesHold(seed: Int) throws { try Self.live(UInt64(seed)) }

    @Test("the same with a directory that is never synced is noticed: the test can fail")
    func theTestCanFail() throws {
        withKnownIssue {
            for seed in 0..<12 { try Self.live(UInt64(seed)) { $0.skipsDirectorySync = true } }
        }
    }

    @Test("a torn end is cut for good: a second power cut does not bring half of it back")
    func tornTwice() throws {
        for seed in 0..<40 as Range<UInt64> {
            var dice = Dice(seed + 5000)
            var rig = try Rig(try #require(testStore))
            rig.append(Samples.plain("kept", payload: dice.bytes(upTo: 5000)))
            try rig.settle()
            try rig.restart()
            for round in 0..<3 {
                for _ in 0..<4 { rig.append(Samples.plain("torn \(round)", payload: dice.bytes(upTo: 3000))) }
                rig.journal.tick(at: rig.now)
                rig.disk.stepsLeft = 1 + dice.below(5)
                #expect(throws: PowerCut.self) { while try rig.work() {} }
                rig.disk.losePower(&dice)
                rig.disk.stepsLeft = .max
                rig.collect()
                try rig.restart()
            }
            rig.append(Samples.plain("after"))
            try rig.settle()
            try rig.restart()
            try rig.loadAllOwed()
        }
    }
}
