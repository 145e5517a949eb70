import Foundation
import MQTT
import Testing
import Workbench

@testable import Uplink

/// The broker of the Debian package on a free port, without persistence.
final class Mosquitto {
    let port: Int
    private let directory: URL
    private var process: pid_t?

    /// Of a listener for WebSockets, if there is one.
    let webSocketPort: Int

    /// - Parameters:
    ///   - lines: what else stands in the configuration of its listener, or of the one for WebSockets, which there is
    ///     beside the plain one then: mosquitto 2.0.11 does not start with that alone.
    init(anonymous: Bool = true, overWebSocket: Bool = false, lines: [String] = []) throws {
        webSocketPort = Int(FreePort.next())
        port = Int(FreePort.next())
        directory = FileManager.default.temporaryDirectory.appending(
            path: "uplink-tests-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        // Started by root it would change to a user who may not read its files.
        let user = geteuid() == 0 ? ["user root"] : []
        let all =
            [
                "listener \(port) 127.0.0.1", "allow_anonymous \(anonymous)", "persistence false",
                "log_dest none",
            ] + user + (overWebSocket ? ["listener \(webSocketPort) 127.0.0.1", "protocol websockets"] : [])
            + lines
        try all.map { $0 + "\n" }.joined().write(
            to: directory.appending(path: "mosquitto.conf"), atomically: true, encoding: .utf8)
        try start()
    }

    deinit {
        stop()
        do { try FileManager.default.removeItem(at: directory) } catch { Issue.record(error) }
    }

    func start() throws {
        process = try Self.spawn(
            "/usr/sbin/mosquitto", ["-c", directory.appending(path: "mosquitto.conf").path])
        for _ in 0..<500 where !Self.isListening(port) { usleep(20_000) }
        try #require(Self.isListening(port), "mosquitto does not listen on \(port)")
    }

    func stop() {
        guard let process else { return }
        // The child inherits a worker thread's signal mask, so SIGTERM would not reach it.
        kill(process, SIGKILL)
        waitpid(process, nil, 0)
        self.process = nil
    }

    func plan(_ version: ProtocolVersion, adjust: (inout UplinkPlan) -> Void = { _ in }) -> UplinkPlan {
        var plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "127.0.0.1", port: port)], clientIdentifier: "gw",
            version: version,
            backoffMinMilliseconds: 20, backoffMaxMilliseconds: 100)
        adjust(&plan)
        return plan
    }

    /// Runs one of mosquitto's clients against this broker and returns what it printed.
    func run(_ tool: String, _ arguments: String...) throws -> String {
        let output = directory.appending(path: "output-\(UUID().uuidString)")
        let process = try Self.spawn(
            "/usr/bin/" + tool, ["-h", "127.0.0.1", "-p", "\(port)"] + arguments, output: output.path)
        waitpid(process, nil, 0)
        return try String(contentsOf: output, encoding: .utf8)
    }

    /// Foundation's `Process` waits by way of a run loop, which a test's thread has not.
    private static func spawn(_ path: String, _ arguments: [String], output: String = "/dev/null") throws
        -> pid_t
    {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        var words = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        try #require(posix_spawn(&process, path, &actions, nil, &words, environ) == 0)
        return process
    }

    private static func isListening(_ port: Int) -> Bool {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}
