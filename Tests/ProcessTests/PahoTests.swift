import Foundation
import Testing
import Workbench

/// The persistent-session story as users of paho-mqtt know it. The steps are in Paho/session_story.py.
@Suite("paho-mqtt: the persistent session", .serialized)
struct PahoTests {
    static let versions = ["3.1.1", "5"]

    @Test("a session that was left is present, and its messages arrive", arguments: versions)
    func resumes(version: String) throws {
        try tell(version, ["leave", "resume"])
    }

    @Test("a clean start discards the session", arguments: versions)
    func discards(version: String) throws {
        try tell(version, ["leave", "discard"])
    }

    @Test("[MQTT5-3.14.2.2.2] DISCONNECT with Session Expiry Interval 0 releases the session")
    func releases() throws {
        try tell("5", ["leave", "release"])
    }

    @Test("[MQTT5-4.1.0-2] without a Session Expiry Interval the session ends with its connection")
    func endsWithConnection() throws {
        try tell("5", ["brief"])
    }

    @Test("a limit for sessions of 3.1.1 applies to them, and not to MQTT 5", arguments: versions)
    func expires(version: String) throws {
        let rig = try Rig()
        let gateway = try rig.gateway(settings: ["sessions: { expiry-for-3.1.1: 2s }"])
        try gateway.start()
        try step(rig, gateway, version, "leave")
        usleep(3_500_000)
        try step(rig, gateway, version, version == "5" ? "resume" : "absent")
    }

    @Test("the session and its messages survive SIGKILL", arguments: versions)
    func survivesKill(version: String) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        try step(rig, gateway, version, "leave")
        gateway.kill()
        try gateway.start()
        try step(rig, gateway, version, "resume")
        gateway.kill()
        try gateway.start()
        try step(rig, gateway, version, "discard")
    }

    @Test("SIGTERM: clients are told, the exit status is 0, and sessions are kept", arguments: versions)
    func survivesTermination(version: String) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        try step(rig, gateway, version, "leave")
        let listener = try rig.tool(
            Self.python, [Self.script, "\(gateway.port)", version, "told", "listener"])
        try #require(waitUpTo(10) { listener.output.contains("connected") }, "\(listener.output)")
        #expect(gateway.stop() == .exited(0), "\(gateway.log.suffix(1000))")
        #expect(listener.process.ended(within: 10) == .exited(0), "\(listener.output)\(listener.process.log)")
        try gateway.start()
        try step(rig, gateway, version, "resume")
    }

    private static let python = "/usr/bin/python3"
    private static let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Paho/session_story.py").path

    private func tell(_ version: String, _ steps: [String]) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        for name in steps { try step(rig, gateway, version, name) }
        #expect(gateway.stop() == .exited(0))
    }

    private func step(_ rig: Rig, _ gateway: Gateway, _ version: String, _ name: String) throws {
        try rig.run(Self.python, [Self.script, "\(gateway.port)", version, name, "tide-user"])
    }
}
