import Foundation
import Workbench

/// One drill: the parts, the events as they fall due, and what was measured.
final class Drill {
    private let command: DrillCommand
    private let schedule: Schedule
    private let ledger = Ledger()
    private let cloud: CloudBroker
    private let link: CuttableLink
    private let tap: WireTap
    private let gateway: Gateway
    private var sensors: [Client] = []
    private var devices: [Client] = []
    private var application: Client?

    private var began = monotonicSeconds()
    private var cutSince: Double?
    private var measured = Measurements()

    /// Messages a second, over all publishers.
    private static let upPerSecond = (qos0: 20.0, qos1: 70.0, qos2: 50.0)
    private static let downPerSecond = (qos1: 70.0, qos2: 60.0)
    private static let deviceCount = 4

    init(_ command: DrillCommand, _ place: Workplace) throws {
        self.command = command
        schedule =
            command.isStorm
            ? Schedule(stormSeconds: command.seconds, devices: Self.deviceCount, seed: command.seed)
            : Schedule(seconds: command.seconds, devices: Self.deviceCount, seed: command.seed)
        var options = CloudBroker.Options()
        options.make = command.cloud
        options.persistence = command.isStorm
        cloud = try CloudBroker(in: place, options: options)
        try cloud.start()
        tap = WireTap(ledger)
        link = try CuttableLink(to: cloud.port, tap: tap)
        let qos = command.cloudQoSMax
        var uplink = Gateway.Uplink(
            port: link.port,
            routes: [
                "{ out: \"sensors/#\", to: \"site/${gateway}/sensors/#\" }",
                "{ in: \"site/${gateway}/commands/#\", to: \"commands/#\", qos: \(qos) }",
            ])
        if command.cloud == .rabbitMQ { uplink.extra = ["version: 3.1.1"] }
        gateway = try Gateway(command.gateway, in: place, uplinks: [uplink])
        measured.seconds = command.seconds
        measured.seed = command.seed
        measured.isStorm = command.isStorm
        measured.cloudQoSMax = qos
    }

    func run() throws -> Outcome {
        defer { tearDown() }
        try gateway.start()
        try populate()
        say(
            "seed \(command.seed): a cloud broker, the gateway, \(sensors.count) sensors, "
                + "\(devices.count) devices and a cloud application are up")
        try follow()
        try comeToRest()
        return finish()
    }

    // MARK: - Setting up

    private func populate() throws {
        for (qos, rate) in [
            (0, Self.upPerSecond.qos0), (1, Self.upPerSecond.qos1), (2, Self.upPerSecond.qos2),
        ] {
            for version in [Client.Version.v311, .v5] {
                sensors.append(sensor(qos: qos, version: version, perSecond: rate / 2))
            }
        }
        var commands: [Client.Publication] = []
        for number in 1...Self.deviceCount {
            var plan = Client.Plan(
                id: "device-\(number)", port: gateway.port, version: number % 2 == 0 ? .v5 : .v311)
            plan.subscriptions = [("commands/device-\(number)/#", 2)]
            devices.append(Client(plan, ledger: ledger))
            for (qos, rate) in [(1, Self.downPerSecond.qos1), (2, Self.downPerSecond.qos2)]
            where qos <= command.cloudQoSMax {
                let topic = "device-\(number)/qos\(qos)"
                var publication = Client.Publication(
                    stream: ledger.open(.down, qos: qos, name: "commands to \(topic)"),
                    topic: "site/plant/commands/\(topic)", qos: Int32(qos),
                    perSecond: rate / Double(Self.deviceCount))
                publication.messagesMax = Client.qos2MessagesMax
                commands.append(publication)
            }
        }
        var plan = Client.Plan(
            id: "cloud-application", port: cloud.port, version: command.cloudVersion)
        plan.subscriptions = [("site/plant/sensors/#", Int32(command.cloudQoSMax))]
        plan.publications = commands
        let application = Client(plan, ledger: ledger)
        self.application = application

        let everyone = sensors + devices + [application]
        guard waitUpTo(20, until: { everyone.allSatisfy { $0.isReady } }) else {
            let missing = everyone.filter { !$0.isReady }.map {
                "\($0.plan.id) (\($0.lastError ?? "no answer"))"
            }
            throw WorkbenchError("not connected and subscribed: \(missing.joined(separator: ", "))")
        }
        try Probe.awaitUplink(
            of: gateway.port, cloud: cloud.port, prefix: "site/plant", speaking: command.cloudVersion)
        everyone.forEach { $0.publishing(true) }
        began = monotonicSeconds()
    }

    private func sensor(qos: Int, version: Client.Version, perSecond: Double) -> Client {
        let id = "sensor-qos\(qos)-\(version == .v5 ? "v5" : "v311")"
        var plan = Client.Plan(id: id, port: gateway.port, version: version)
        plan.publications = [
            Client.Publication(
                stream: ledger.open(.up, qos: qos, name: id), topic: "sensors/\(id)", qos: Int32(qos),
                perSecond: perSecond)
        ]
        return Client(plan, ledger: ledger)
    }

    // MARK: - Events

    private func follow() throws {
        var coming = schedule.events[...]
        var nextReport = 3.0
        while elapsed < Double(command.seconds), !Interruption.happened {
            if let next = coming.first, next.at <= elapsed {
                coming.removeFirst()
                try perform(next.event)
            }
            try observe()
            if elapsed >= nextReport {
                reportProgress()
                nextReport = elapsed + 3
            }
            usleep(10_000)
        }
    }

    private func perform(_ event: Schedule.Event) throws {
        switch event {
        case .cut:
            link.cut()
            cutSince = monotonicSeconds()
            say("uplink CUT")
        case .cutAfter(let bytes, let direction):
            link.cut(after: bytes, direction)
            cutSince = monotonicSeconds()
            say("uplink CUT after \(bytes) more bytes \(direction == .towardsTarget ? "up" : "down")")
        case .blackHole:
            link.blackHole()
            cutSince = monotonicSeconds()
            say("uplink BLACK-HOLED")
        case .slow:
            link.slow(bytesPerSecond: 2000, roundTripSeconds: 0.6)
            cutSince = monotonicSeconds()
            say("uplink SLOWED to 2 KB/s with a round trip of 600 ms")
        case .restore:
            restoreLink()
        case .cloudKill(let forgets):
            cloud.kill()
            if forgets { cloud.forget() }
            measured.cloudKills += 1
            say("cloud SIGKILLed\(forgets ? ", its disk LOST" : "")")
        case .cloudStart:
            try cloud.start()
            say("cloud back")
        case .kill:
            gateway.kill()
            measured.kills += 1
            if cutSince != nil { measured.killsDuringCuts += 1 }
            say("gateway SIGKILLed\(cutSince == nil ? "" : ", the uplink being cut")")
        case .start:
            let seconds = try gateway.start()
            measured.slowestStart = max(measured.slowestStart, seconds)
            say("gateway back after \(formatted(seconds, decimals: 2)) s")
        case .deviceLeaves(let index, let abruptly):
            devices[index].leave(abruptly: abruptly)
            measured.departures += 1
            say("device-\(index + 1) leaves\(abruptly ? " without a word" : "")")
        case .deviceReturns(let index):
            devices[index].comeBack()
            say("device-\(index + 1) returns")
        }
    }

    private func restoreLink() {
        link.restore()
        guard let since = cutSince else { return }
        let seconds = monotonicSeconds() - since
        measured.cuts.append(seconds)
        cutSince = nil
        say("uplink restored after \(formatted(seconds)) s")
    }

    private func observe() throws {
        for direction in Direction.allCases {
            let backlog = ledger.backlog(direction)
            measured.largestBacklog[direction] = max(measured.largestBacklog[direction] ?? 0, backlog)
        }
        guard cloud.isRunning || !cloud.isWanted else {
            throw WorkbenchError("the cloud broker ended by itself")
        }
        if gateway.isWanted, !gateway.isRunning {
            measured.crashes += 1
            say("gateway ENDED BY ITSELF; starting it again")
            try gateway.start()
        }
    }

    // MARK: - Coming to rest

    private func comeToRest() throws {
        let everyone = sensors + devices + (application.map { [$0] } ?? [])
        everyone.forEach { $0.publishing(false) }
        if !gateway.isWanted { try perform(.start) }
        if !cloud.isWanted { try perform(.cloudStart) }
        if cutSince != nil { restoreLink() }
        devices.forEach { $0.comeBack() }
        say("everything restored, nobody publishes any more; waiting for the rest to arrive")
        let patience = 60.0 + Double(command.seconds) / 10
        let end = monotonicSeconds() + patience
        var quietSince: Double?
        // Some time of rest after the last arrival, for duplicates would come late.
        while monotonicSeconds() < end, monotonicSeconds() - (quietSince ?? .infinity) < 3 {
            try observe()
            let totals = ledger.totals()
            // What the cloud has lost is not waited for.
            let quiet = totals.unanswered == 0 && totals.underWay - verdict.lostByCloud.count <= 0
            quietSince = quiet ? (quietSince ?? monotonicSeconds()) : nil
            if Interruption.happened { break }
            usleep(100_000)
        }
        reportProgress()
    }

    private var verdict: Verdict { Verdict(ledger, tap, cloudKills: measured.cloudKills) }

    private func finish() -> Outcome {
        let everyone = sensors + devices + (application.map { [$0] } ?? [])
        measured.sessionsLost = (sensors + devices).reduce(0) { $0 + $1.sessionsLost }
        measured.cloudSessionsLost = tap.sessionsLost
        if !command.isStorm { measured.sessionsLost += application?.sessionsLost ?? 0 }
        measured.clientErrors = everyone.compactMap { client in
            client.lastError.map { "\(client.plan.id): \($0)" }
        }
        everyone.forEach { $0.end() }
        let ending = gateway.stop()
        if ending != .exited(0) {
            measured.badEnding = ending.map(String.init(describing:)) ?? "not within 10 seconds"
        }
        return Outcome(measured, ledger, verdict)
    }

    private func tearDown() {
        (sensors + devices + (application.map { [$0] } ?? [])).forEach { $0.end() }
        gateway.kill()
        link.end()
        cloud.stop()
    }

    // MARK: - Telling

    private var elapsed: Double { monotonicSeconds() - began }

    private func say(_ text: String) {
        print("\(padded(formatted(elapsed), 6)) s  \(text)")
        fflush(nil)
    }

    private func reportProgress() {
        let (up, down) = (ledger.totals(.up), ledger.totals(.down))
        say(
            "up: \(up.sent) sent, \(up.received) received, \(ledger.backlog(.up)) under way · "
                + "down: \(down.sent) sent, \(down.received) received, \(ledger.backlog(.down)) under way")
    }
}

func formatted(_ number: Double, decimals: Int = 1) -> String { String(format: "%.\(decimals)f", number) }

/// `text` at the right of a column.
func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
}
