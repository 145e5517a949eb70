import Workbench

/// What was done to the gateway, and what was seen, beside the ledger.
struct Measurements {
    var seconds = 0
    var seed: UInt64 = 0
    var kills = 0
    var killsDuringCuts = 0
    var departures = 0
    /// How long each cut lasted, in seconds.
    var cuts: [Double] = []
    var slowestStart = 0.0
    var largestBacklog: [Direction: Int] = [:]
    var crashes = 0
    var sessionsLost = 0
    var isStorm = false
    var cloudQoSMax = 2
    var cloudKills = 0
    /// How often the cloud had forgotten the gateway's session.
    var cloudSessionsLost = 0
    var clientErrors: [String] = []
    /// How the gateway answered SIGTERM, when not with exit status 0.
    var badEnding: String?
}

/// Whose fault the ledger's faults are: the gateway's, or that of a cloud that died and forgot what it had acknowledged.
struct Verdict {
    var lost: [Ledger.Fault] = []
    /// The cloud had taken them over: from the gateway, or from the application without handing them on.
    var lostByCloud: [Ledger.Fault] = []
    var doubled: [Ledger.Fault] = []
    var doubledByCloud: [Ledger.Fault] = []

    init(_ ledger: Ledger, _ tap: WireTap, cloudKills: Int) {
        for fault in ledger.lost() {
            let hadIt =
                switch fault.direction {
                case .up: tap.wasTakenByCloud(fault.message)
                case .down: tap.timesTakenByGateway(fault.message) == 0
                }
            if cloudKills > 0, hadIt { lostByCloud.append(fault) } else { lost.append(fault) }
        }
        let publishedAgain = tap.publishedAgain
        let publishedAgainByCloud = tap.publishedAgainByCloud
        for fault in ledger.doubled() {
            let isOurs =
                switch fault.direction {
                case .up: publishedAgain.contains(fault.message)
                case .down: fault.arrivals > tap.timesTakenByGateway(fault.message)
                }
            let isTheirs = fault.direction == .down && publishedAgainByCloud.contains(fault.message)
            if isTheirs || cloudKills > 0 && !isOurs {
                doubledByCloud.append(fault)
            } else {
                doubled.append(fault)
            }
        }
    }

    static func count(_ faults: [Ledger.Fault], _ direction: Direction, _ qos: Int) -> Int {
        faults.count { $0.direction == direction && $0.qos == qos }
    }
}

/// The verdict over a drill and the table that shows it.
struct Outcome {
    /// Why the drill failed, in words; empty when it succeeded.
    let failures: [String]
    let report: String

    init(_ measured: Measurements, _ ledger: Ledger, _ verdict: Verdict) {
        failures = Self.failures(measured, ledger, verdict)
        var lines = ["", Self.table(measured, ledger, verdict), ""]
        let cuts = measured.cuts.map { formatted($0) }.joined(separator: ", ")
        lines.append("Uplink cut \(measured.cuts.count) times, for \(cuts) seconds.")
        lines.append(
            "Gateway SIGKILLed \(measured.kills) times, \(measured.killsDuringCuts) of them during a cut; "
                + "slowest start \(formatted(measured.slowestStart, decimals: 2)) s.")
        if measured.isStorm {
            lines.append(
                "Cloud SIGKILLed \(measured.cloudKills) times; it had forgotten the gateway's session "
                    + "\(measured.cloudSessionsLost) times.")
        }
        lines.append("Devices left and returned \(measured.departures) times.")
        lines.append(
            "Largest backlog: \(measured.largestBacklog[.up] ?? 0) up, \(measured.largestBacklog[.down] ?? 0) down."
        )
        lines.append("Seed \(measured.seed).")
        lines.append("")
        if failures.isEmpty {
            lines.append("PASSED: no acknowledged message was lost, no QoS 2 message was duplicated.")
        } else {
            lines.append("FAILED:")
            lines += failures.map { "  - \($0)" }
            lines += ledger.faults().map { "    \($0)" }
        }
        report = lines.joined(separator: "\n")
    }

    private static func table(
        _ measured: Measurements, _ ledger: Ledger, _ verdict: Verdict
    ) -> String {
        let rows: [(Direction, Int)] = [(.up, 0), (.up, 1), (.up, 2), (.down, 1), (.down, 2)]
        var heads = ["sent", "acknowledged", "received", "lost", "duplicated"]
        if measured.isStorm { heads.append("by the cloud") }
        var lines = ["direction       QoS" + heads.map { padded($0, 14) }.joined()]
        lines.append(String(repeating: "─", count: lines[0].count))
        for (direction, qos) in rows {
            let totals = ledger.totals(direction, qos: qos)
            // Nothing acknowledges QoS 0, so what did not arrive is all that can be said.
            let lost =
                qos == 0
                ? totals.sent - totals.received : Verdict.count(verdict.lost, direction, qos)
            let doubledByCloud = Verdict.count(verdict.doubledByCloud, direction, qos)
            let doubled =
                qos == 2
                ? Verdict.count(verdict.doubled, direction, qos) : totals.duplicated
            var cells = [
                "\(totals.sent)", qos == 0 ? "–" : "\(totals.acknowledged)", "\(totals.received)", "\(lost)",
                "\(doubled)",
            ]
            if measured.isStorm {
                let lostByCloud = Verdict.count(verdict.lostByCloud, direction, qos)
                cells.append("\(lostByCloud) + \(doubledByCloud)")
            }
            if qos == 0 && lost > 0 { cells[3] += "*" }
            if qos < 2 && totals.duplicated > 0 { cells[4] += "*" }
            lines.append("\(direction.rawValue)  \(qos)" + cells.map { padded($0, 14) }.joined())
        }
        lines.append("* allowed: QoS 0 promises nothing, QoS 1 at least once")
        if !measured.isStorm, !verdict.doubledByCloud.isEmpty {
            lines.append(
                "The cloud published \(verdict.doubledByCloud.count) QoS 2 messages again behind their PUBREL; "
                    + "such copies are new messages to everybody else.")
        }
        if measured.isStorm {
            lines.append(
                "by the cloud: lost and duplicated by it, after it had taken them over and was killed")
        }
        return lines.joined(separator: "\n")
    }

    private static func failures(
        _ measured: Measurements, _ ledger: Ledger, _ verdict: Verdict
    ) -> [String] {
        var failures: [String] = []
        func check(_ good: Bool, _ text: String) { if !good { failures.append(text) } }
        for direction in Direction.allCases {
            for qos in [1, 2] where direction == .up || qos <= measured.cloudQoSMax {
                let totals = ledger.totals(direction, qos: qos)
                let name = "\(direction.rawValue), QoS \(qos)"
                let lost = Verdict.count(verdict.lost, direction, qos)
                check(lost == 0, "\(name): \(lost) acknowledged messages were lost")
                // What a cloud carries at QoS 1 may come twice.
                let doubled = Verdict.count(verdict.doubled, direction, qos)
                check(qos < 2 || qos > measured.cloudQoSMax || doubled == 0, "\(name): \(doubled) duplicates")
                check(
                    totals.unanswered == 0, "\(name): \(totals.unanswered) messages were never acknowledged")
                check(totals.refused == 0, "\(name): \(totals.refused) messages were refused")
                check(totals.received > 0, "\(name): nothing was received, so nothing was shown")
            }
            // Half of it where the cloud itself is away for half of the time.
            let quota = (measured.isStorm ? 2500 : 5000) * min(60, measured.seconds) / 60
            let received = ledger.totals(direction).received
            check(received >= quota, "\(direction.rawValue): \(received) messages arrived, \(quota) were to")
        }
        check(ledger.strangers == 0, "\(ledger.strangers) messages arrived that nobody had sent")
        let longCuts = measured.cuts.filter { $0 >= 5 }.count
        if measured.isStorm {
            check(
                measured.cuts.count >= 5,
                "the uplink was in trouble \(measured.cuts.count) times, not 5 times")
            check(measured.cloudKills >= 2, "the cloud was SIGKILLed \(measured.cloudKills) times, not twice")
        } else {
            check(longCuts >= 3, "the uplink was cut \(longCuts) times for 5 seconds or more, not 3 times")
            check(measured.killsDuringCuts >= 1, "no SIGKILL fell into a cut")
        }
        check(measured.kills >= 3, "the gateway was SIGKILLed \(measured.kills) times, not 3 times")
        check(measured.departures > 0, "no device left")
        check(measured.crashes == 0, "the gateway ended by itself \(measured.crashes) times")
        check(measured.sessionsLost == 0, "\(measured.sessionsLost) times a session was gone on reconnection")
        if let ending = measured.badEnding { failures.append("on SIGTERM the gateway ended with \(ending)") }
        failures += measured.clientErrors
        return failures
    }
}
