import Foundation
import MQTT
import Testing
import Workbench

@testable import Uplink

/// The broker of the Debian package on a free port, without persistence.
final class Mosquitto {
    let port: Int
    private let directory: URL
    private var process: ChildProcess?

    /// Of a listener for WebSockets, if there is one.
    let webSocketPort: Int
    private let ports: [UInt16]

    /// - Parameters:
    ///   - lines: what else stands in the configuration of its listener, or of the one for WebSockets, which there is
    ///     beside the plain one then: mosquitto 2.0.11 does not start with that alone.
    init(anonymous: Bool = true, overWebSocket: Bool = false, lines: [String] = []) throws {
        webSocketPort = Int(FreePort.next())
        port = Int(FreePort.next())
        ports = (overWebSocket ? [port, webSocketPort] : [port]).map { UInt16($0) }
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
        let started = try ChildProcess(
            "/usr/sbin/mosquitto", ["-c", directory.appending(path: "mosquitto.conf").path], log: log)
        process = started
        // It opens them one after the other.
        for port in ports {
            waitUpTo(10) { Loopback.accepts(port) || !started.isRunning }
            try #require(Loopback.accepts(port), "mosquitto does not listen on \(port): \(started.log)")
        }
    }

    func stop() {
        process?.kill()
        process = nil
    }

    private var log: String { directory.appending(path: "log").path }

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
        let process = try ChildProcess(
            "/usr/bin/" + tool, ["-h", "127.0.0.1", "-p", "\(port)"] + arguments, log: log,
            output: output.path)
        try #require(process.ended(within: 60) != nil, "\(tool) \(arguments) does not end")
        return try String(contentsOf: output, encoding: .utf8)
    }
}
