import Foundation
import Testing
import Workbench

@testable import drill

/// The drill's own judgement: whatever the seed, it tries enough; and it passes nothing it should fail.
@Suite("the drill's schedule and verdict")
struct DrillTests {
    @Test("every schedule has enough cuts and kills, in time", arguments: [45, 60, 600])
    func schedulesEnough(seconds: Int) {
        for seed in UInt64(1)...500 {
            let events = Schedule(seconds: seconds, devices: 4, seed: seed).events
            var cutAt: Double?
            var cuts: [Double] = []
            var kills = 0
            var killsDuringCuts = 0
            var isUp = true
            for (at, event) in events {
                switch event {
                case .cut:
                    #expect(cutAt == nil, "seed \(seed): cut twice")
                    cutAt = at
                case .restore:
                    cuts.append(at - (cutAt ?? at))
                    cutAt = nil
                case .kill:
                    #expect(isUp, "seed \(seed): killed twice")
                    isUp = false
                    kills += at < Double(seconds) ? 1 : 0
                    killsDuringCuts += cutAt == nil ? 0 : 1
                case .start:
                    #expect(!isUp, "seed \(seed): started twice")
                    isUp = true
                case .deviceLeaves, .deviceReturns: break
                case .cutAfter, .blackHole, .slow, .cloudKill, .cloudStart:
                    Issue.record("seed \(seed): only a storm has these")
                }
                #expect(event != .restore || at < Double(seconds), "seed \(seed): restored too late")
            }
            #expect(cuts.count >= 3 && cuts.allSatisfy { $0 >= 5 }, "seed \(seed): \(cuts)")
            #expect(kills >= 3, "seed \(seed)")
            #expect(killsDuringCuts >= 1, "seed \(seed)")
            #expect(events.contains { if case .deviceLeaves = $0.event { true } else { false } })
        }
    }

    @Test("every storm has every kind of trouble, ended before the next begins", arguments: [90, 120, 600])
    func stormsEnough(seconds: Int) {
        for seed in UInt64(1)...200 {
            let events = Schedule(stormSeconds: seconds, devices: 4, seed: seed).events.map(\.event)
            var kinds: Set<String> = []
            var isTroubled = false
            for event in events {
                switch event {
                case .cut, .cutAfter, .blackHole, .slow, .cloudKill:
                    #expect(!isTroubled, "seed \(seed): two at once")
                    isTroubled = true
                    kinds.insert(
                        "\(event)".prefix { $0 != "(" } + (event == .cloudKill(forgets: true) ? "!" : ""))
                case .restore, .cloudStart: isTroubled = false
                case .kill, .start, .deviceLeaves, .deviceReturns: break
                }
            }
            #expect(kinds.count == 6, "seed \(seed): \(kinds)")
            #expect(events.count { $0 == .kill } >= 3)
        }
    }

    @Test("what a dying cloud loses is the cloud's, and what the gateway loses meanwhile is its own")
    func tellsApart() {
        let ledger = Ledger()
        let tap = WireTap(ledger)
        var line = WireTap.Line()
        let stream = ledger.open(.up, qos: 2, name: "up")
        for _ in 1...3 { ledger.acknowledged(stream, ledger.sends(stream)) }
        func publish(_ number: Int, id: UInt8, header: UInt8 = 0x34) -> [UInt8] {
            let payload = Array("\(ledger.mark) 0 \(number) ".utf8)
            return [header, UInt8(5 + payload.count), 0, 1, 0x74, 0x80, id] + payload
        }
        // The first arrives twice because the cloud forgot that it had it, the second is lost by the cloud, and the
        // third never left the gateway.
        tap.passed(publish(1, id: 1), .towardsTarget, on: &line)
        tap.passed([0x50, 2, 0x80], .fromTarget, on: &line)
        tap.passed([1], .fromTarget, on: &line)
        tap.passed(publish(2, id: 2) + publish(1, id: 1, header: 0x3C), .towardsTarget, on: &line)
        tap.passed([0x50, 2, 0x80, 2], .fromTarget, on: &line)
        ledger.received(stream, 1)
        ledger.received(stream, 1)
        let verdict = Verdict(ledger, tap, cloudKills: 1)
        #expect(verdict.lostByCloud.map(\.message.number) == [2])
        #expect(verdict.lost.map(\.message.number) == [3])
        #expect(verdict.doubledByCloud.map(\.message.number) == [1] && verdict.doubled.isEmpty)
        // A cloud that stayed alive is not to blame.
        let strict = Verdict(ledger, tap, cloudKills: 0)
        #expect(strict.lost.map(\.message.number) == [2, 3] && strict.doubled.count == 1)
        // Nor is one that is sent a message after PUBREL.
        tap.passed([0x62, 2, 0x80, 1], .towardsTarget, on: &line)
        tap.passed(publish(1, id: 9), .towardsTarget, on: &line)
        #expect(Verdict(ledger, tap, cloudKills: 1).doubled.map(\.message.number) == [1])
    }

    @Test("a QoS 2 message that the cloud publishes again behind its PUBREL is the cloud's, and only that")
    func publishedAgainByCloud() {
        let ledger = Ledger()
        let tap = WireTap(ledger)
        var line = WireTap.Line()
        let stream = ledger.open(.down, qos: 2, name: "down")
        func publish(_ number: Int, id: UInt8) -> [UInt8] {
            let payload = Array("\(ledger.mark) 0 \(number) ".utf8)
            return [0x34, UInt8(5 + payload.count), 0, 1, 0x74, 0, id] + payload
        }
        for number in 1...2 {
            ledger.acknowledged(stream, ledger.sends(stream))
            tap.passed(publish(number, id: UInt8(number)), .fromTarget, on: &line)
            tap.passed([0x50, 2, 0, UInt8(number)], .towardsTarget, on: &line)
            for _ in 1...2 { ledger.received(stream, number) }
        }
        tap.passed([0x62, 2, 0, 1], .fromTarget, on: &line)
        tap.passed(publish(1, id: 1), .fromTarget, on: &line)
        let verdict = Verdict(ledger, tap, cloudKills: 0)
        #expect(verdict.doubledByCloud.map(\.message.number) == [1])
        #expect(verdict.doubled.map(\.message.number) == [2])
    }

    @Test("the same seed gives the same events")
    func repeats() {
        let first = Schedule(seconds: 60, devices: 4, seed: 9).events
        let second = Schedule(seconds: 60, devices: 4, seed: 9).events
        #expect(first.map(\.at) == second.map(\.at))
        #expect(first.map(\.event) == second.map(\.event))
    }

    @Test(
        "a drill with all messages and enough trouble passes; lost and doubled QoS 0, doubled QoS 1 are allowed"
    )
    func passes() {
        let outcome = Outcome(Self.enough, Self.ledger())
        #expect(outcome.failures == [])
        #expect(outcome.report.contains("PASSED"))
    }

    @Test(
        "what it must not pass",
        arguments: [
            (Fault.loses(qos: 1), "QoS 1: 1 acknowledged messages were lost"),
            (.loses(qos: 2), "QoS 2: 1 acknowledged messages were lost"),
            (.doubles, "QoS 2: 1 duplicates"),
            (.leavesUnanswered, "1 messages were never acknowledged"),
            (.refuses, "1 messages were refused"),
        ])
    func fails(fault: Fault, text: String) {
        let outcome = Outcome(Self.enough, Self.ledger(fault))
        #expect(outcome.failures.contains { $0.contains(text) }, "\(outcome.failures)")
        #expect(outcome.report.contains("FAILED"))
    }

    @Test("a drill that showed too little fails")
    func failsWithoutEvidence() {
        var measured = Self.enough
        measured.kills = 2
        #expect(Outcome(measured, Self.ledger()).failures.count == 1)
        measured = Self.enough
        measured.killsDuringCuts = 0
        #expect(Outcome(measured, Self.ledger()).failures.count == 1)
        measured = Self.enough
        measured.cuts = [5, 5, 4.9]
        #expect(Outcome(measured, Self.ledger()).failures.count == 1)
        measured = Self.enough
        measured.crashes = 1
        #expect(Outcome(measured, Self.ledger()).failures.count == 1)
        measured = Self.enough
        measured.sessionsLost = 1
        #expect(Outcome(measured, Self.ledger()).failures.count == 1)
        measured = Self.enough
        measured.badEnding = "signal 11"
        #expect(Outcome(measured, Self.ledger()).failures.count == 1)
        // Nothing received in four rows, and too few in two directions.
        #expect(Outcome(Self.enough, Ledger()).failures.count == 6)
    }

    enum Fault: Equatable, Sendable { case loses(qos: Int), doubles, leavesUnanswered, refuses }

    private static let enough: Measurements = {
        var measured = Measurements()
        measured.seconds = 60
        measured.kills = 3
        measured.killsDuringCuts = 1
        measured.departures = 5
        measured.cuts = [5.1, 6, 7]
        return measured
    }()

    private static func ledger(_ fault: Fault? = nil) -> Ledger {
        let ledger = Ledger()
        for (direction, qos) in [(Direction.up, 0), (.up, 1), (.up, 2), (.down, 1), (.down, 2)] {
            let stream = ledger.open(direction, qos: qos, name: "\(direction.rawValue), QoS \(qos)")
            let isFaulty = direction == .up && qos == 2
            for number in 1...2600 {
                _ = ledger.sends(stream)
                let isMarked = number == 77 && direction == .up
                if isMarked && qos == 0 { continue }
                if isMarked && fault == .loses(qos: qos) {
                    ledger.acknowledged(stream, number)
                    continue
                }
                if isMarked && isFaulty && fault == .refuses {
                    ledger.refused(stream, number)
                    continue
                }
                if !(isMarked && isFaulty && fault == .leavesUnanswered) {
                    ledger.acknowledged(stream, number)
                }
                ledger.received(stream, number)
                if isMarked && (qos == 1 || (isFaulty && fault == .doubles)) {
                    ledger.received(stream, number)
                }
            }
        }
        return ledger
    }
}

extension Outcome {
    /// Of a drill whose cloud stayed alive.
    fileprivate init(_ measured: Measurements, _ ledger: Ledger) {
        self.init(measured, ledger, Verdict(ledger, WireTap(ledger), cloudKills: 0))
    }
}
