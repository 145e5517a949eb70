import Foundation

/// The shipped gateway binary, its configuration and its state directory.
package final class Gateway {
    package struct Uplink: Sendable {
        package var name = "cloud"
        package var port: UInt16
        /// Instead of `mqtt://` and the port, if it is something else.
        package var address: String?
        /// What a user would write below `routes:`, one route an entry.
        package var routes: [String]
        package var reconnect = "{ min: 200ms, max: 1s }"
        /// Further keys of the uplink, one a line.
        package var extra: [String] = []

        package init(port: UInt16, routes: [String]) {
            self.port = port
            self.routes = routes
        }
    }

    /// The binary beside the running test bundle; another one when the environment names it in TIDEGATE.
    package static let executableOfThisBuild: String = {
        if let named = ProcessInfo.processInfo.environment["TIDEGATE"] { return named }
        return besideThisBuild("tidegate")
    }()

    /// A program that was built with the running test bundle.
    package static func besideThisBuild(_ program: String) -> String {
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        let directory = URL(fileURLWithPath: bundle).resolvingSymlinksInPath().deletingLastPathComponent()
        return directory.appendingPathComponent(program).path
    }

    package let port: UInt16
    package let executable: String
    package let statePath: String
    package let configurationPath: String
    package let logPath: String
    /// How many files and sockets it may have open, soft and hard limit; nil for as many as this process.
    package var descriptorsMax: Int?
    private let place: Workplace
    private let name: String
    private let journal: [String]
    private var process: ChildProcess?

    /// Writes the configuration; nothing is started.
    ///
    /// - Parameters:
    ///   - home: where the state directory is, if not with everything else.
    ///   - statePath: the state directory itself, on a disk that need not be there yet.
    ///   - journal: what a user would write as `journal`, one key an entry.
    ///   - settings: further top-level lines of the file.
    package init(
        _ executable: String, in place: Workplace, stateIn home: Workplace? = nil,
        stateAt statePath: String? = nil,
        name: String = "plant", uplinks: [Uplink] = [], journal: [String] = [], settings: [String] = []
    ) throws {
        self.executable = executable
        port = FreePort.next()
        self.statePath = statePath ?? (home ?? place).file("state")
        logPath = place.file("gateway.log")
        self.place = place
        self.name = name
        let isVolatile = statePath == nil && (home ?? place).isVolatile
        self.journal = journal + (isVolatile ? ["allow-volatile: true"] : [])
        configurationPath = place.file("tidegate.yaml")
        try configure(uplinks: uplinks, settings: settings)
    }

    /// Writes the configuration anew; a gateway that runs hears of it by SIGHUP, or when it is told to reload.
    package func configure(uplinks: [Uplink], settings: [String] = []) throws {
        var lines = [
            "gateway: \(name)", "state: \(statePath)", "listeners:", "  - address: 127.0.0.1:\(port)",
        ]
        if !journal.isEmpty { lines.append("journal: { \(journal.joined(separator: ", ")) }") }
        lines += settings
        if !uplinks.isEmpty { lines.append("uplinks:") }
        for uplink in uplinks {
            lines += [
                "  - name: \(uplink.name)",
                "    address: \(uplink.address ?? "mqtt://127.0.0.1:\(uplink.port)")",
                "    keep-alive: 10s", "    reconnect: \(uplink.reconnect)",
            ]
            lines += uplink.extra.map { "    \($0)" }
            lines.append("    routes:")
            lines += uplink.routes.map { "      - \($0)" }
        }
        _ = try place.write(lines.joined(separator: "\n") + "\n", to: "tidegate.yaml")
    }

    /// Starts it on its state directory and returns once its listener accepts.
    ///
    /// - Returns: seconds from the start until it accepted.
    /// - Throws: `WorkbenchError` with its log when it ended or took longer than `seconds`.
    @discardableResult
    package func start(within seconds: Double = 20) throws -> Double {
        let began = monotonicSeconds()
        let words = [
            executable, "run", "--config", configurationPath, "--listen", "127.0.0.1:\(port)", "--state",
            statePath,
        ]
        let limits = descriptorsMax.map { ["/usr/bin/prlimit", "--nofile=\($0):\($0)"] } ?? []
        let all = limits + words
        let child = try ChildProcess(all[0], Array(all.dropFirst()), log: logPath)
        process = child
        let port = self.port
        waitUpTo(seconds) { Loopback.accepts(port) || !child.isRunning }
        guard child.isRunning, Loopback.accepts(port) else {
            let ending = child.ended(within: 0).map { "it ended with \($0)" } ?? "it does not listen"
            throw WorkbenchError("the gateway does not start, \(ending):\n\(log.suffix(2000))")
        }
        return monotonicSeconds() - began
    }

    package var isRunning: Bool { process?.isRunning ?? false }
    /// nil while it was told to end, or never started.
    package var pid: pid_t? { process?.pid }
    /// Started, and not told to end since; when it does not run then, it ended by itself.
    package var isWanted: Bool { process != nil }
    /// All it wrote, over all its lives.
    package var log: String { Workplace.text(of: logPath) }

    /// SIGHUP: read the configuration again.
    package func hangUp() { process?.send(SIGHUP) }

    /// SIGKILL; returns once it is gone.
    package func kill() {
        process?.kill()
        process = nil
    }

    /// SIGTERM; how it ended, nil when it did not within `seconds` (it is then killed).
    package func stop(within seconds: Double = 10) -> ChildProcess.Ending? {
        process?.send(SIGTERM)
        let ending = process?.ended(within: seconds)
        kill()
        return ending
    }
}
