import Foundation

/// A real mosquitto in the role of the cloud.
///
/// It drops nothing by itself: no limit on queued messages, so that every command it acknowledged is owed.
package final class CloudBroker {
    package struct Options: Sendable {
        /// Whether sessions and queues outlive the process; saved every `autosaveSeconds` and at a graceful end.
        package var persistence = false
        package var autosaveSeconds = 1
        package var inflightMessagesMax = 100
        /// Further lines of its configuration.
        package var lines: [String] = []
        package init() {}
    }

    package let port: UInt16
    private let configuration: String
    private let log: String
    private var process: ChildProcess?

    package init(in place: Workplace, name: String = "cloud", options: Options = Options()) throws {
        port = FreePort.next()
        log = place.file("\(name).log")
        var text = """
            listener \(port) 127.0.0.1
            allow_anonymous true
            max_queued_messages 0
            max_queued_bytes 0
            max_inflight_messages \(options.inflightMessagesMax)
            log_dest stderr
            log_type error
            log_type warning
            log_type notice
            persistence \(options.persistence)

            """
        if options.persistence {
            text += "autosave_interval \(options.autosaveSeconds)\npersistence_location \(place.path)/\n"
            text += "persistence_file \(name).db\n"
        }
        text += options.lines.map { $0 + "\n" }.joined()
        // Started by root it would change to a user who may not write here.
        if geteuid() == 0 { text += "user root\n" }
        configuration = try place.write(text, to: "\(name).conf")
    }

    /// Starts it and returns once it accepts connections.
    package func start() throws {
        let paths = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
        let path: String = paths.first { access($0, X_OK) == 0 } ?? paths[0]
        let child = try ChildProcess(path, ["-c", configuration], log: log)
        process = child
        let port = self.port
        guard waitUpTo(10, until: { Loopback.accepts(port) || !child.isRunning }), child.isRunning else {
            throw WorkbenchError("mosquitto does not start: \(child.log)")
        }
    }

    package var isRunning: Bool { process?.isRunning ?? false }
    package var pid: pid_t? { process?.pid }

    /// SIGHUP: read the configuration and the access rules again.
    package func hangUp() { process?.send(SIGHUP) }

    package func stop() {
        process?.send(SIGTERM)
        _ = process?.ended(within: 10)
        process = nil
    }

    package func kill() {
        process?.kill()
        process = nil
    }
}
