import Foundation
import Workbench

/// One recording, and the power cuts that are made of it.
final class Round {
    private let command: PowerCutCommand
    private let place: Workplace
    private let bench: Bench
    private let cast: Cast
    private let durability: String
    private var random: SplitMix64

    init(_ command: PowerCutCommand, _ place: Workplace, number: Int) throws {
        self.command = command
        self.place = place
        random = SplitMix64(seed: command.seed &+ UInt64(number) &* 1_000_003)
        durability = ["latency", "balanced"].randomElement(using: &random) ?? "balanced"
        cast = Cast(hasCloud: command.hasCloud, &random)
        bench = try Bench(command.gateway, place, hasCloud: command.hasCloud, durability: durability)
    }

    func run(images: Int, into tally: inout Tally) throws {
        defer { bench.end() }
        let (recording, peers, order) = try record()
        let acknowledged = peers.reduce(0) { $0 + $1.memory.taken.count }
        say(
            "recorded \(recording.writes) writes and \(recording.flushes) flushes (durability \(durability)); "
                + "\(acknowledged) messages acknowledged")
        guard acknowledged > 0 else { throw WorkbenchError("nothing was acknowledged, so nothing is shown") }
        for _ in 0..<images where !Interruption.happened {
            let trial = Trial(
                boundary: .random(in: 1...recording.events.count, using: &random),
                fate: Recording.Fate.allCases.randomElement(using: &random) ?? .kept,
                cutsOfStart: [0, 0, 1, 2].randomElement(using: &random) ?? 0, seed: random.next())
            let verdict = try attempt(trial, recording, peers, order, &tally)
            tally.add(verdict)
            guard !verdict.faults.isEmpty else { continue }
            say("\(trial):")
            for fault in verdict.faults.prefix(5) { say("  \(fault)") }
            if verdict.faults.count > 5 { say("  and \(verdict.faults.count - 5) more") }
        }
    }

    // MARK: - Recording

    private func record() throws -> (Recording, [Peer], order: Int) {
        let disk = RecordedDisk(try bench.newDisk())
        let chronicle = Chronicle(recording: disk)
        let peers = cast.roles.map { role in
            Peer(role, cast, chronicle, port: role.isAtCloud ? bench.cloud?.port ?? 0 : bench.gateway.port)
        }
        let crowd = Crowd(peers, cast)
        try bench.mount(disk)
        try bench.gateway.start()
        crowd.live(seconds: command.seconds, &random)
        let recording = disk.recording
        bench.gateway.kill()
        try bench.unmount()
        let complaints = peers.flatMap(\.complaints)
        guard complaints.isEmpty else { throw WorkbenchError(complaints.joined(separator: "\n")) }
        crowd.leave()
        return (recording, peers, chronicle.order)
    }

    // MARK: - Cutting

    /// Which cut, and what the disk makes of it.
    struct Trial: CustomStringConvertible {
        let boundary: Int
        let fate: Recording.Fate
        /// How often the power fails again while the gateway starts.
        let cutsOfStart: Int
        let seed: UInt64

        var description: String {
            "cut after event \(boundary), \(fate.rawValue), \(cutsOfStart) cuts of the start, dice \(seed)"
        }
    }

    private func attempt(
        _ trial: Trial, _ recording: Recording, _ before: [Peer], _ order: Int, _ tally: inout Tally
    ) throws -> Verdict {
        var dice = SplitMix64(seed: trial.seed)
        var image =
            command.ignoresFlushes
            ? recording.cutOfLyingDisk(at: trial.boundary, eventsMax: 100, &dice)
            : recording.cut(at: trial.boundary, trial.fate, &dice)
        do {
            for _ in 0..<trial.cutsOfStart {
                image = try cutStart(on: image, &dice)
                tally.cutsOfStart += 1
            }
            let verdict = try collect(from: image, trial, before, order, &dice)
            if !verdict.faults.isEmpty { try keep(image, trial) }
            return verdict
        } catch let error as WorkbenchError {
            try bench.unmount()
            bench.cloud?.stop()
            var verdict = Verdict()
            verdict.add(.startRefused, "\(error)")
            try keep(image, trial)
            return verdict
        }
    }

    /// Starts the gateway on `image`, and takes the power away while it starts, or soon after.
    private func cutStart(on image: Image, _ dice: inout SplitMix64) throws -> Image {
        let disk = RecordedDisk(image)
        try bench.mount(disk)
        try bench.gateway.start()
        usleep(.random(in: 0...30_000, using: &dice))
        let recording = disk.recording
        try bench.unmount()
        return recording.cut(
            at: .random(in: 0...recording.events.count, using: &dice),
            Recording.Fate.allCases.randomElement(using: &dice) ?? .kept, &dice)
    }

    private func collect(
        from image: Image, _ trial: Trial, _ before: [Peer], _ order: Int, _ dice: inout SplitMix64
    ) throws -> Verdict {
        let chronicle = Chronicle(recording: nil, after: order)
        let peers = before.map { peer in
            let port = peer.role.isAtCloud ? bench.cloud?.port ?? 0 : bench.gateway.port
            return Peer(peer, at: trial.boundary, chronicle, port: port)
        }
        let crowd = Crowd(peers, cast)
        defer { crowd.leave() }
        if let cloud = bench.cloud {
            try cloud.start()
            try crowd.awaitTheCloud(seconds: 10)
        }
        try bench.mount(RecordedDisk(image))
        try bench.gateway.start()
        let patience = command.ignoresFlushes ? 3.0 : 20.0
        let isSettled = crowd.settle(seconds: patience, &dice)
        var verdict = Verdict(crowd, cast, before: before, boundary: trial.boundary)
        if !isSettled {
            verdict.add(.restless, "\(patience) seconds after the start something was still under way")
        }
        if !bench.gateway.isRunning { verdict.add(.unexpected, "the gateway ended by itself") }
        crowd.leave()
        try bench.unmount()
        bench.cloud?.kill()
        return verdict
    }

    /// What a person needs to look at it: `mount -o loop` and `tidegate journal verify`.
    private func keep(_ image: Image, _ trial: Trial) throws {
        guard command.keepsImages else { return }
        let path = place.file("image-\(trial.boundary)-\(trial.seed)")
        try Data(image.read(0..<image.byteCount)).write(to: URL(fileURLWithPath: path))
        say("  the disk is kept as \(path)")
    }
}

/// The sums over all images.
struct Tally {
    var images = 0
    var cutsOfStart = 0
    var acknowledged = 0
    var owed = 0
    var faults: [Verdict.Fault.Kind: Int] = [:]

    mutating func add(_ verdict: Verdict) {
        images += 1
        acknowledged += verdict.acknowledged
        owed += verdict.owed
        for fault in verdict.faults { faults[fault.kind, default: 0] += 1 }
    }

    var report: String {
        var lines = [
            "\(images) images of the disk tried, and the power cut \(cutsOfStart) times more while the gateway started",
            "\(acknowledged) times a message that was acknowledged before the cut, \(owed) times owed to a subscriber",
        ]
        let kinds: [Verdict.Fault.Kind] = [.lost, .doubled]
        let others = Verdict.Fault.Kind.allCases.filter { !kinds.contains($0) && faults[$0] != nil }
        lines.append((kinds + others).map { "\($0.rawValue): \(faults[$0] ?? 0)" }.joined(separator: ", "))
        lines.append(
            faults.isEmpty
                ? "PASSED: no acknowledged message was lost, no QoS 2 message was duplicated." : "FAILED")
        return lines.joined(separator: "\n")
    }
}
