import Foundation
import Synchronization

/// Lets the simulator look for a mutant, seed after seed.
struct Hunt: Sendable {
    let simulator: String
    let seeds: ClosedRange<UInt64>
    /// For one mutant, in seconds.
    let budget: Double
    /// For one seed, in seconds: who breaks a rule may also go on for ever.
    static let patience = 120.0

    enum Catch: Sendable {
        case caught(seed: UInt64, events: String, violation: String)
        case survived(seeds: Int)
    }

    /// - Parameters:
    ///   - number: of the mutant; 0 for the product as it is.
    ///   - grounds: of the mutant.
    func run(_ number: Int, in grounds: Mutant.Grounds = .anywhere) -> Catch {
        let began = Date()
        var tried = 0
        for seed in seeds where grounds.contains(seed) {
            guard Date().timeIntervalSince(began) < budget else { break }
            tried += 1
            let (status, output) = simulate(seed, number)
            guard status != .passed else { continue }
            // What the product as it is breaks too tells nothing about the mutant.
            guard number == 0 || simulate(seed, 0).0 == .passed else { continue }
            let lines = output.split(separator: "\n").map(String.init)
            let events =
                lines.lazy.compactMap { $0.firstMatch(of: #/(\d+) events/#).map { String($0.output.1) } }.last
                ?? "?"
            let violation =
                switch status {
                case .hung: "it does not come to an end"
                case .failed, .passed:
                    lines.firstIndex { $0.contains(" broke ") }.map { $0 + 1 }
                        .flatMap { lines.indices.contains($0) ? lines[$0].trimmed : nil }
                        ?? lines.first { $0.contains("Fatal error") || $0.contains("precondition") }
                        ?? lines.last ?? "it says nothing"
                }
            return .caught(seed: seed, events: events, violation: String(violation.prefix(200)))
        }
        return .survived(seeds: tried)
    }

    private enum Status { case passed, failed, hung }

    private func simulate(_ seed: UInt64, _ number: Int) -> (Status, String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: simulator)
        process.arguments = ["--seed", "\(seed)", "--shrinking", "0"]
        var environment = ProcessInfo.processInfo.environment
        environment[Workshop.variable] = "\(number)"
        // A crash is a catch like any other, and needs no minutes of explanation.
        environment["SWIFT_BACKTRACE"] = "enable=no"
        process.environment = environment
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        let hasHung = Atomic<Bool>(false)
        do { try process.run() } catch { return (.failed, "cannot run \(simulator): \(error)") }
        let pid = process.processIdentifier
        let isOver = DispatchSemaphore(value: 0)
        let watchman = Thread {
            if isOver.wait(timeout: .now() + Self.patience) == .timedOut {
                hasHung.store(true, ordering: .relaxed)
                kill(pid, SIGKILL)
            }
        }
        watchman.start()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        isOver.signal()
        if hasHung.load(ordering: .relaxed) { return (.hung, output) }
        return (
            process.terminationStatus == 0 && process.terminationReason == .exit ? .passed : .failed, output
        )
    }
}

extension String {
    fileprivate var trimmed: String { trimmingCharacters(in: .whitespaces) }
}
